/*
 * System calls over and over, with everything that they depend on changing under way:
 * SYSCALL and SYSRET in long mode, SYSENTER and SYSEXIT outside. A translator may keep
 * what one did for the next; this asks whether it notices what is different.
 *
 * Each round: user code loads flags, makes a call; the handler writes down what it finds
 * (registers, flags, selectors, a word of a page that is another one in each address
 * space), changes what the script says (mask, target, address space, flags to return) and
 * goes back, and user code writes down what it finds. Then all of it is compared with
 * what the manuals say of each round.
 *
 * AMD64 APM volume 3 and Intel SDM volume 2, "SYSCALL", "SYSRET", "SYSENTER", "SYSEXIT".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define ROUNDS 256
#define LOW_DS (FREE_SEL | 3) /* like UDS, but for its limit */
#define WINDOW 0x7000000ul    /* beyond the identity map */
#define STATUS (X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_ZF | X86_FL_SF | X86_FL_OF)

/* What a round does; the assembly below knows the offsets. */
struct script {
    ulong user_flags; /* 0: for POPF at ring 3 */
    ulong ret_flags;  /* 1: SYSRET's R11; of SYSEXIT, POPF at ring 0 */
    ulong cr3;        /* 2 */
    ulong msr, lo;    /* 3, 4: WRMSR in the handler */
    ulong cr4;        /* 5 */
    ulong dr7;        /* 6 */
    ulong sel;        /* 7: for DS and, above, ES */
};

struct record {
    ulong cx, r11, flags, cs, ss, sp, window, handler; /* 0 to 7: in the handler */
    ulong u_flags, u_cs, u_ss, u_sp, u_window;         /* 8 to 12: back in user code */
    ulong unused[3];
};

static struct script script[ROUNDS];
static struct record record[ROUNDS];
static struct space spaces[2];
static ulong stamp[2];
static ulong *counter;
static unsigned steps, breaks, refusals, faults;

void calls_user(void), calls_handler_a(void), calls_handler_b(void), calls_back(void);
void calls_rdtsc(void), calls_watched(void);
void calls_forbidden(void), calls_allowed(void), calls_after(void);

#ifdef __x86_64__
/* rbx rounds left, r12 record, r13 script, r14 window. */
__asm__(".intel_syntax noprefix\n"
        ".text\n"
        "calls_user:\n"
        "1: push [r13]\n"
        "popfq\n"
        "syscall\n"
        "calls_back:\n"
        "calls_rdtsc: rdtsc\n"
        "calls_watched: nop\n"
        "lea rax, [r14 + 8192]\n"
        "jmp rax\n"
        "calls_allowed:\n"
        "calls_forbidden: mov rax, [r14 + 4096]\n"
        "calls_after: pushfq\n"
        "pop rax\n"
        "mov [r12 + 8*8], rax\n"
        "mov eax, cs\n"
        "mov [r12 + 8*9], rax\n"
        "mov eax, ss\n"
        "mov [r12 + 8*10], rax\n"
        "mov [r12 + 8*11], rsp\n"
        "mov rax, [r14]\n"
        "mov [r12 + 8*12], rax\n"
        "add r12, 128\n"
        "add r13, 64\n"
        "dec rbx\n"
        "jnz 1b\n"
        "int 0x81\n"
        "calls_handler_a:\n"
        "mov qword ptr [r12 + 8*7], 1\n"
        "jmp 2f\n"
        ".fill 64, 1, 0x90\n"
        "calls_handler_b:\n"
        "mov qword ptr [r12 + 8*7], 2\n"
        "2: mov [r12], rcx\n"
        "mov [r12 + 8*1], r11\n"
        "pushfq\n"
        "pop rax\n"
        "mov [r12 + 8*2], rax\n"
        "add qword ptr [r14 + 4096], 1\n"
        "mov eax, cs\n"
        "mov [r12 + 8*3], rax\n"
        "mov eax, ss\n"
        "mov [r12 + 8*4], rax\n"
        "mov [r12 + 8*5], rsp\n"
        "mov rax, [r14]\n"
        "mov [r12 + 8*6], rax\n"
        "mov rsi, rcx\n"
        "mov rcx, [r13 + 8*3]\n"
        "jrcxz 3f\n"
        "mov eax, [r13 + 8*4]\n"
        "mov edx, [r13 + 8*4 + 4]\n"
        "wrmsr\n"
        "3: mov rcx, rsi\n"
        "mov rax, [r13 + 8*2]\n"
        "test rax, rax\n"
        "jz 4f\n"
        "mov cr3, rax\n"
        "4: mov rax, [r13 + 8*5]\n"
        "test rax, rax\n"
        "jz 5f\n"
        "mov cr4, rax\n"
        "5: mov rax, [r13 + 8*6]\n"
        "test rax, rax\n"
        "jz 6f\n"
        "mov dr7, rax\n"
        "6: mov rax, [r13 + 8*7]\n"
        "mov ds, eax\n"
        "shr eax, 16\n"
        "mov es, eax\n"
        "mov r11, [r13 + 8*1]\n"
        "sysretq\n"
        ".att_syntax prefix\n");
#else
/* ebx rounds left, ebp record, esi script, edi window. */
__asm__(".intel_syntax noprefix\n"
        ".text\n"
        "calls_user:\n"
        "1: push [esi]\n"
        "popfd\n"
        "mov edx, offset calls_back\n"
        "mov ecx, esp\n"
        "sysenter\n"
        "calls_back:\n"
        "calls_rdtsc: rdtsc\n"
        "calls_watched: nop\n"
        "lea eax, [edi + 8192]\n"
        "jmp eax\n"
        "calls_allowed:\n"
        "calls_forbidden: mov eax, [edi + 4096]\n"
        "calls_after: pushfd\n"
        "pop eax\n"
        "mov [ebp + 4*8], eax\n"
        "mov eax, cs\n"
        "mov [ebp + 4*9], eax\n"
        "mov eax, ss\n"
        "mov [ebp + 4*10], eax\n"
        "mov [ebp + 4*11], esp\n"
        "mov eax, [edi]\n"
        "mov [ebp + 4*12], eax\n"
        "add ebp, 64\n"
        "add esi, 32\n"
        "dec ebx\n"
        "jnz 1b\n"
        "int 0x81\n"
        "calls_handler_a:\n"
        "mov dword ptr [ebp + 4*7], 1\n"
        "jmp 2f\n"
        ".fill 64, 1, 0x90\n"
        "calls_handler_b:\n"
        "mov dword ptr [ebp + 4*7], 2\n"
        "2: mov [ebp], ecx\n"
        "mov [ebp + 4*5], esp\n"
        "pushfd\n"
        "pop eax\n"
        "mov [ebp + 4*2], eax\n"
        "add dword ptr [edi + 4096], 1\n"
        "mov eax, cs\n"
        "mov [ebp + 4*3], eax\n"
        "mov eax, ss\n"
        "mov [ebp + 4*4], eax\n"
        "mov eax, [edi]\n"
        "mov [ebp + 4*6], eax\n"
        "mov ecx, [esi + 4*3]\n"
        "jecxz 3f\n"
        "mov eax, [esi + 4*4]\n"
        "xor edx, edx\n"
        "wrmsr\n"
        "mov edx, offset calls_back\n"
        "3: mov ecx, [ebp]\n"
        "mov eax, [esi + 4*2]\n"
        "test eax, eax\n"
        "jz 4f\n"
        "mov cr3, eax\n"
        "4: mov eax, [esi + 4*5]\n"
        "test eax, eax\n"
        "jz 5f\n"
        "mov cr4, eax\n"
        "5: mov eax, [esi + 4*6]\n"
        "test eax, eax\n"
        "jz 6f\n"
        "mov dr7, eax\n"
        "6: mov eax, [esi + 4*7]\n"
        "mov ds, eax\n"
        "shr eax, 16\n"
        "mov es, eax\n"
        "push [esi + 4*1]\n"
        "popfd\n"
        "sysexit\n"
        ".att_syntax prefix\n");
#endif

static bool one_in(unsigned n) {
    return random32() % n == 0;
}

/* --- the script --- */

/* The MSR that the handler writes, and to what. */
static void script_msr(struct script *s) {
#ifdef __x86_64__
    static const ulong stars[] = {0x1bul << 48 | 8ul << 32, 0x1bul << 48 | 0x0bul << 32,
                                  0x18ul << 48 | 8ul << 32};
    static const ulong masks[] = {
        0,      X86_FL_IF, X86_FL_IF | X86_FL_DF | X86_FL_TF | X86_FL_AC,
        STATUS, 0x257fd5,  X86_FL_ZF | X86_FL_OF | X86_FL_NT};

    switch (random32() % 3) {
    case 0:
        s->msr = X86_MSR_LSTAR;
        s->lo = (ulong)(one_in(2) ? calls_handler_a : calls_handler_b);
        break;
    case 1:
        s->msr = X86_MSR_SFMASK;
        s->lo = masks[random32() % COUNT(masks)];
        break;
    default:
        s->msr = X86_MSR_STAR;
        s->lo = stars[random32() % COUNT(stars)];
    }
#else
    if (one_in(2)) {
        s->msr = X86_MSR_SYSENTER_EIP;
        s->lo = (ulong)(one_in(2) ? calls_handler_a : calls_handler_b);
    } else {
        s->msr = X86_MSR_SYSENTER_ESP;
        s->lo = (ulong)run_stack + 4096 + 16 * (random32() % 64);
    }
#endif
}

/* RATE: one change in so many rounds, of each kind. */
static void write_script(unsigned rate, ulong cr4) {
    const ulong user = STATUS | X86_FL_DF | X86_FL_NT | X86_FL_ID;
    const ulong kernel = user | X86_FL_IF | X86_FL_IOPL;

    for (unsigned k = 0; k < ROUNDS; k++) {
        struct script *s = &script[k];

        memset(s, 0, sizeof(*s));
        s->user_flags = (random32() & user) | X86_FL_ONE;
        /* IRET and the like are not for a handler with NT: SYSEXIT does not mind. */
        s->ret_flags = (random32() & kernel) | X86_FL_ONE;
        s->sel = (one_in(3) ? LOW_DS : UDS) | (one_in(3) ? LOW_DS : UDS) << 16;
        if (one_in(rate))
            s->user_flags |= X86_FL_AC;
        if (one_in(rate))
            s->ret_flags |= X86_FL_AC;
        if (LONG_MODE && one_in(rate))
            s->ret_flags |= one_in(2) ? X86_FL_TF : X86_FL_RF | X86_FL_VM;
        if (one_in(rate))
            script_msr(s);
        if (one_in(rate))
            s->cr3 = spaces[random32() & 1].root;
        if (one_in(rate))
            s->cr4 = cr4 ^ (one_in(2) ? X86_CR4_TSD : 0);
        if (one_in(rate))
            s->dr7 = one_in(2) ? 0x400 : 0x402; /* on calls_watched */
    }
}

/* --- what is to come of it --- */

struct model {
    ulong flags; /* at ring 3 */
    ulong cr3, target, mask, star, esp;
    bool tsd, armed;
    unsigned steps, breaks, refusals;
};

#define POPF_USER (STATUS | X86_FL_TF | X86_FL_DF | X86_FL_NT | X86_FL_AC | X86_FL_ID)

static bool round_ok(struct model *m, const struct script *s, const struct record *r) {
    ulong mask = POPF_USER, in_flags, kcs, kss, ucs, uss;
    unsigned here = m->cr3 == spaces[1].root;

    if ((m->flags & X86_FL_IOPL) == X86_FL_IOPL)
        mask |= X86_FL_IF;
    m->flags = (m->flags & ~mask) | (s->user_flags & mask);
#ifdef __x86_64__
    kcs = m->star >> 32 & 0xfffc;
    kss = kcs + 8;
    in_flags = m->flags & ~m->mask;
    if (r->cx != (ulong)calls_back || r->r11 != m->flags || r->sp != in.sp)
        return false;
#else
    kcs = KCS;
    kss = KDS;
    in_flags = m->flags & ~(ulong)X86_FL_IF;
    if (r->cx != in.sp || r->sp != m->esp)
        return false;
#endif
    /* TCG's SYSCALL clears the status flags. */
    if ((r->flags ^ in_flags) & ~(ulong)(X86_FL_RF | (cpu_is_tcg() ? STATUS : 0)) ||
        r->cs != kcs || r->ss != kss || r->window != stamp[here] ||
        r->handler != m->target)
        return false;

    if (s->cr3)
        m->cr3 = s->cr3;
    here = m->cr3 == spaces[1].root;
    if (s->msr == X86_MSR_SYSENTER_ESP)
        m->esp = s->lo;
    if (s->msr == (LONG_MODE ? X86_MSR_LSTAR : X86_MSR_SYSENTER_EIP))
        m->target = s->lo == (ulong)calls_handler_a ? 1 : 2;
    if (s->msr == X86_MSR_SFMASK)
        m->mask = s->lo;
    if (s->msr == X86_MSR_STAR)
        m->star = s->lo;
    if (s->cr4)
        m->tsd = s->cr4 & X86_CR4_TSD;
    if (s->dr7)
        m->armed = s->dr7 & 2;
    m->refusals += m->tsd;
    m->breaks += m->armed;
    m->flags = s->ret_flags & ~(ulong)(X86_FL_RF | X86_FL_VM);
    if (m->flags & X86_FL_TF) { /* at once; the hook takes it away */
        m->steps++;
        m->flags &= ~(ulong)X86_FL_TF;
    }
#ifdef __x86_64__
    ucs = ((m->star >> 48) + 16) | 3;
    uss = ((m->star >> 48) + 8) | 3;
#else
    ucs = UCS32;
    uss = UDS;
#endif
    return r->u_flags == m->flags && r->u_cs == ucs && r->u_ss == uss &&
           r->u_sp == in.sp && r->u_window == stamp[here];
}

static bool take_debug(struct frame *f) {
    if (read_dr6() & 1) {
        breaks += f->ip == (ulong)calls_watched;
        f->flags |= X86_FL_RF;
    } else {
        steps += f->ip == (ulong)calls_back;
        f->flags &= ~(ulong)X86_FL_TF;
    }
    write_dr6(X86_DR6_FIXED);
    return true;
}

static bool take_refusal(struct frame *f) {
    if (f->ip != (ulong)calls_rdtsc)
        return false;
    refusals++;
    f->ip += 2;
    f->flags &= ~(ulong)X86_FL_RF; /* or the breakpoint behind it is not seen */
    return true;
}

/* The page behind the window, and the code behind that, are the supervisor's. */
static bool take_fault(struct frame *f) {
    ulong at = read_cr2();

    if (f->ip == (ulong)calls_forbidden && at == WINDOW + 4096 && f->error == 5)
        f->ip = (ulong)calls_after;
    else if (f->ip == WINDOW + 8192 && at == f->ip && (f->error & 5) == 5)
        f->ip = (ulong)calls_allowed;
    else
        return false;
    faults++;
    return true;
}

static void set_msrs(void) {
#ifdef __x86_64__
    wrmsr(X86_MSR_STAR, 0x1bul << 48 | 8ul << 32);
    wrmsr(X86_MSR_LSTAR, (ulong)calls_handler_a);
    wrmsr(X86_MSR_SFMASK, X86_FL_IF);
#else
    wrmsr(X86_MSR_SYSENTER_CS, KCS);
    wrmsr(X86_MSR_SYSENTER_EIP, (ulong)calls_handler_a);
    wrmsr(X86_MSR_SYSENTER_ESP, (ulong)run_stack + 4096);
#endif
}

static void scene(unsigned rate) {
    ulong cr4 = read_cr4();
    struct model m = {.target = 1,
                      .mask = X86_FL_IF,
                      .star = (ulong)(0x1bull << 48 | 8ull << 32),
                      .esp = (ulong)run_stack + 4096,
                      .cr3 = spaces[0].root};

    set_msrs();
    write_script(rate, cr4);
    space_load(&spaces[0]);
    steps = breaks = refusals = faults = 0;
    *counter = 0;
    regs_user();
    m.flags = in.flags;
    in.bx = ROUNDS;
#ifdef __x86_64__
    in.r12 = (ulong)record;
    in.r13 = (ulong)script;
    in.r14 = WINDOW;
#else
    in.bp = (ulong)record;
    in.si = (ulong)script;
    in.di = WINDOW;
#endif
    hooks[X86_DB] = take_debug;
    hooks[X86_GP] = take_refusal;
    hooks[X86_PF] = take_fault;
    run((void *)calls_user);
    hooks[X86_DB] = hooks[X86_GP] = hooks[X86_PF] = NULL;
    write_cr4(cr4);
    write_dr7(0x400);
    space_load(&spaces[0]);
    if (!expect("rounds", DONE, ANY, ANY))
        return;
    for (unsigned k = 0; k < ROUNDS; k++)
        if (!check(
                round_ok(&m, &script[k], &record[k]),
                "one change in %u, round %u: flags 0x%lx then 0x%lx cs 0x%lx handler %lu "
                "window 0x%lx 0x%lx, script: flags 0x%lx 0x%lx msr 0x%lx",
                rate, k, record[k].flags, record[k].u_flags, record[k].cs,
                record[k].handler, record[k].window, record[k].u_window,
                script[k].user_flags, script[k].ret_flags, script[k].msr))
            return;
    check_eq("traps of SYSRET with TF", steps, m.steps);
    check_eq("pages refused", faults, 2 * ROUNDS);
    check_eq("calls that the handler counted", *counter, ROUNDS);
    check_eq("breakpoints", breaks, m.breaks);
    check_eq("RDTSC refused", refusals, m.refusals);
    digest_bytes(record, sizeof(record));
}

void guest_main(void) {
    uint8_t *code;

    if (!LONG_MODE && !cpu_has(1, REG_EDX, 11)) {
        note("no SYSENTER");
        return;
    }
    if (!LONG_MODE)
        write_cr4(read_cr4() | X86_CR4_PSE);
    counter = page_alloc();
    code = page_alloc();
    code[0] = 0x0f; /* UD2 */
    code[1] = 0x0b;
    for (unsigned k = 0; k < 2; k++) {
        ulong *page = page_alloc();

        page[0] = stamp[k] = 0x1000 + k;
        space_new(&spaces[k], LONG_MODE ? SPACE_LONG : SPACE_32, RWU);
        space_map(&spaces[k], WINDOW, (ulong)page, RWU, 1);
        space_map(&spaces[k], WINDOW + 4096, (ulong)counter, RW, 1);
        space_map(&spaces[k], WINDOW + 8192, (ulong)code, RW, 1);
    }
    write_dr0((ulong)calls_watched);
    gdt_set(FREE_SEL, seg_desc(0, 0x7fffffff, 0xc0f3));
    static const unsigned rates[] = {100000, 64, 16, 5, 2};

    for (unsigned n = 0; n < 8 * COUNT(rates); n++)
        scene(rates[n % COUNT(rates)]);
    digest_print();
}
