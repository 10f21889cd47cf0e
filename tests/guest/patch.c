/*
 * Code that is rewritten while it is hot: what kernels and JITs really do to code that
 * has run thousands of times, inlined into loops, unrolled, or laid across pages by then.
 * The first encounters are in smc.c.
 *
 * Every expected value is computed here, by C that is not rewritten. Where the
 * architecture leaves a choice (a remapped page before INVLPG), nothing is expected.
 *
 * AMD64 APM volume 2, "Self-Modifying Code" and "Cross-Modifying Code"; Intel SDM volume
 * 3, "Handling Self- and Cross-Modifying Code".
 */
#include "guest.h"
#include "lib/forms.h"

const char guest_name[] = GUEST_NAME;

#define HOT 4600 /* executions: the translator looks again at 4000 */
#define VA 0x40000000ul
#define ALIAS 0x48000000ul
#define OTHER 0x50000000ul

static uint8_t area[4 * 4096] __attribute__((aligned(4096)));
static struct space s;
static uint64_t seed = 88172645463325252ull;

static uint32_t rnd(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 11);
}

static void serialize(void) {
    uint32_t r[4];
    cpuid(0, 0, r);
}

static uint32_t call(const void *p, uint32_t ax) {
    __asm__ volatile("call *%1"
                     : "+a"(ax)
                     : "r"(p)
                     : "memory", "cc", BITS("ecx", "rcx"), BITS("edx", "rdx"));
    return ax;
}

/* The sum of what N calls return, each given what the one before returned. */
static uint32_t calls(const void *p, uint32_t n) {
    uint32_t ax = 0;
    __asm__ volatile("1: call *%2; dec %1; jnz 1b"
                     : "+a"(ax), "+r"(n)
                     : "r"(p)
                     : "memory", "cc", BITS("ecx", "rcx"), BITS("edx", "rdx"));
    return ax;
}

static void put32(uint8_t *p, uint32_t v) {
    memcpy(p, &v, 4);
}

/* add eax, v; ret */
static void emit_add(uint8_t *p, uint32_t v) {
    p[0] = 0x05;
    put32(p + 1, v);
    p[5] = 0xc3;
}

static void result(const char *what, uint32_t got, uint32_t want) {
    check_eq(what, got, want);
    digest_add(got);
}

/* --- as Linux patches text --- */

static const uint8_t nop5[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
static unsigned poked; /* calls that met the breakpoint */
static ulong poke_at;

/* Does what the new instruction will do: a nop, here. */
static bool on_int3(struct frame *f) {
    if (f->ip != poke_at + 1)
        return false;
    poked++;
    f->ip = poke_at + 5;
    return true;
}

/* text_poke_bp(): int3 over the first byte, then the tail, then the first byte, each
 * through a mapping of its own, HEAT calls in between. */
static void poke(uint8_t *at, const uint8_t *insn, uint32_t heat, uint8_t *f) {
    uint8_t *w = (uint8_t *)ALIAS + (at - (uint8_t *)VA);

    poke_at = (ulong)at;
    poked = 0;
    *w = 0xcc;
    serialize();
    result("int3 is in place", calls(f, heat), heat);
    memcpy(w + 1, insn + 1, 4);
    serialize();
    result("the tail is new", calls(f, heat), heat);
    check_eq("breakpoints", poked, 2 * heat);
    *w = insn[0];
    serialize();
}

static void text_poke(void) {
    uint8_t *f = (uint8_t *)VA + 0x100, *w = (uint8_t *)ALIAS + 0x100;
    static const uint8_t jmp[5] = {0xe9, 6, 0, 0, 0};
    uint32_t rel = 0x100 - 5;
    uint8_t to[5] = {0xe8};

    /* f: nop5; inc eax; ret ... +11: add eax, 16; ret; at +0x100: add eax, 256; ret */
    memcpy(w, nop5, 5);
    memcpy(w + 5, BITS("\x83\xc0\x01\xc3", "\x83\xc0\x01\xc3"), 4);
    memcpy(w + 11, "\x83\xc0\x10\xc3", 4);
    emit_add(w + 0x100, 256);
    put32(to + 1, rel);
    for (uint32_t heat = 3; heat <= HOT; heat += HOT - 3) {
        for (unsigned n = 0; n < 3; n++) {
            result("nop", calls(f, heat), heat);
            poke(f, jmp, heat, f); /* a jump label switched on */
            result("jmp", calls(f, heat), heat * 16);
            memcpy(w, nop5, 5);
            serialize();
            result("nop again", calls(f, heat), heat);
            poke(f, to, heat, f); /* a tracer */
            result("call", calls(f, heat), heat * 257);
            memcpy(w, nop5, 5);
            serialize();
        }
    }
}

/* A jump label in a loop, switched by the loop itself. */
static void jump_label(void) {
    for (unsigned n = 0; n < 4; n++) {
        TRY0("xor eax, eax\nxor ebx, ebx\nmov ecx, 15000\n"
             "1: cmp ecx, 5000\nje 5f\ncmp ecx, 10000\nje 4f\n"
             "2: nop\nnop\n"
             "add eax, 1\n"
             "3: inc ebx\ndec ecx\njnz 1b\njmp 6f\n"
             "4: mov word ptr [2b], 0x03eb\njmp 2b\n" /* jmp over the add */
             "5: mov word ptr [2b], 0x9090\njmp 2b\n6:");
        result("jump label, not taken", (uint32_t)trap.r.ax, 5000 + 5000);
        result("jump label, rounds", (uint32_t)trap.r.bx, 15000);
    }
}

/* 128 sites in a block, each one of three alternatives of eight bytes. */
static void alternatives(void) {
    static const uint8_t alt[3][8] = {
        {0x83, 0xc0, 0x01, 0x0f, 0x1f, 0x44, 0x00, 0x00}, /* add eax, 1; nop5 */
        {0x05, 0x34, 0x12, 0x00, 0x00, 0x0f, 0x1f, 0x00}, /* add eax, 0x1234; nop3 */
        {0xeb, 0x06, 0x83, 0xc0, 0x7f, 0x90, 0x90, 0x90}, /* jmp over the rest */
    };
    static const uint32_t adds[3] = {1, 0x1234, 0};
    uint8_t which[128] = {0}, *w = (uint8_t *)ALIAS, *f = (uint8_t *)VA;

    memset(w, 0x90, 4096);
    for (unsigned k = 0; k < 128; k++)
        memcpy(w + 16 * k, alt[0], 8);
    w[16 * 128] = 0xc3;
    serialize();
    for (unsigned n = 0; n < 40; n++) {
        uint32_t heat = n % 10 == 9 ? HOT : rnd() % 8 + 1, sum = 0;
        for (unsigned k = rnd() % 30; k--;) {
            unsigned site = rnd() & 127;
            which[site] = (uint8_t)(rnd() % 3);
            memcpy(w + 16 * site, alt[which[site]], 8);
        }
        serialize();
        for (unsigned k = 0; k < 128; k++)
            sum += adds[which[k]];
        result("alternatives", calls(f, heat), sum * heat);
    }
}

/* Function entries between nop and call, many at a time. */
static void tracing(void) {
    uint8_t *w = (uint8_t *)ALIAS, *f = (uint8_t *)VA;
    bool traced[32] = {0};

    /* 32 functions of 32 bytes; the caller is a chain of calls at +0x800, the tracer at
     * +0xc00. */
    for (unsigned k = 0; k < 32; k++) {
        uint8_t *p = w + 32 * k, *c = w + 0x800 + 5 * k;
        memcpy(p, nop5, 5);
        emit_add(p + 5, k);
        *c = 0xe8;
        put32(c + 1, (uint32_t)(p - (c + 5)));
    }
    w[0x800 + 5 * 32] = 0xc3;
    emit_add(w + 0xc00, 1u << 16);
    serialize();
    for (unsigned n = 0; n < 12; n++) {
        uint32_t heat = n & 1 ? 7 : HOT, sum = 0;
        for (unsigned k = 0; k < 32; k++) {
            if (n && rnd() & 1) {
                uint8_t *p = w + 32 * k;
                traced[k] = !traced[k];
                if (traced[k]) {
                    *p = 0xe8;
                    put32(p + 1, (uint32_t)(0xc00 - (32 * k + 5)));
                } else {
                    memcpy(p, nop5, 5);
                }
            }
            sum += k + (traced[k] ? 1u << 16 : 0);
        }
        serialize();
        result("traced functions", calls(f + 0x800, heat), sum * heat);
    }
}

/* --- a program that rewrites itself --- */

/* Each kind of store, onto the immediate of the mov behind it; DX is what it has to be.
 * SI counts rounds, DI the wrong ones. */
#define STORES(setup, store, target)                                                     \
    TRY0("mov esi, 1500\nxor edi, edi\n" setup "5: imul edx, esi, 0x10203\n" store       \
         "\n" target "\ncmp eax, edx\nje 6f\ninc edi\n6: dec esi\njnz 5b")
#define MOV32 "1: mov eax, 0"
#define MOVLONG "1: " BITS("mov eax, 0", "movabs rax, 0")
#define STACK(store)                                                                     \
    "mov ecx, esp\nmov esp, offset 1f + " BITS("5", "10") "\n" store "\nmov esp, ecx"

static void stores_end(const char *what) {
    expect(what, DONE, 0, ANY);
    check_eq("rounds", trap.r.si, 0);
    result(what, (uint32_t)trap.r.di, 0);
}

static void integer_stores(void) {
    STORES("", "mov [1f + 1], edx", MOV32);
    stores_end("mov");
    STORES("", "mov ecx, edx\nxchg [1f + 1], ecx", MOV32);
    stores_end("xchg");
    STORES("", "mov ecx, edx\nsub ecx, [1f + 1]\nlock xadd [1f + 1], ecx", MOV32);
    stores_end("xadd");
    STORES("", "mov eax, [1f + 1]\nlock cmpxchg [1f + 1], edx", MOV32);
    stores_end("cmpxchg");
    /* One that fails writes back what was there. */
    STORES("", "mov [1f + 1], edx\nxor eax, eax\nmov ecx, 5\nlock cmpxchg [1f + 1], ecx",
           MOV32);
    stores_end("cmpxchg that fails");
    STORES("",
           "mov ebx, edx\nmov ebp, edx\nmov eax, [1f + 1]\nmov edx, [1f + 5]\nmov ecx, "
           "edx\nlock cmpxchg8b [1f + 1]\nmov edx, ebp",
           MOV32 "\nnop\nnop\nnop\nnop");
    stores_end("cmpxchg8b");
    STORES("",
           "mov [1f + 1], dl\nmov [1f + 2], dh\nmov ecx, edx\nshr ecx, 16\n"
           "mov [1f + 3], cx",
           MOV32);
    stores_end("by bytes");
    STORES("",
           "mov [7f], edx\nlea ebp, [1f + 1]\nxchg esi, ecx\nxchg edi, ebp\n"
           "lea esi, [7f]\nmov ebx, ecx\nmov ecx, 4\nrep movsb\nmov edi, ebp\n"
           "mov esi, ebx",
           MOV32 "\njmp 8f\n7: .long 0\n8:");
    stores_end("rep movsb");
    STORES("",
           "mov ebp, edi\nlea edi, [1f + 1]\nmov eax, edx\nmov ecx, 1\nrep stosd\n"
           "mov edi, ebp",
           MOV32);
    stores_end("rep stosd");
    STORES("", STACK("push " BITS("edx", "rdx")) "\n", "jmp 1f\n" MOVLONG);
    stores_end("push, jumped over");
    STORES("",
           "mov ecx, esp\nmov esp, offset 1f + " BITS("5", "10") "\npush " BITS("edx",
                                                                                "rdx"),
           MOVLONG "\nmov esp, ecx");
    stores_end("push");
    STORES("",
           "mov ecx, esp\nmov ebx, ebp\nmov ebp, edx\nmov esp, offset 1f + " BITS(
               "5", "10") "\nenter 0, 0",
           MOVLONG "\nmov esp, ecx\nmov ebp, ebx");
    stores_end("enter");
    /* A call whose return address is the immediate of what it calls. */
    STORES("",
           "mov ecx, esp\nmov esp, offset 1f + " BITS(
               "5", "10") "\ntest esi, 1\njz 7f\nmov edx, offset 7f\ncall 1f\n"
                          "7: mov edx, offset 8f\ncall 1f\n8: nop",
           MOVLONG "\nmov esp, ecx");
    stores_end("call");
#ifndef __x86_64__
    /* PUSHA: EAX ends in the immediate, and ECX in the opcode. */
    STORES("",
           "mov ebx, esp\nmov esp, offset 1f + 5\nmov eax, edx\nmov ecx, 0xb8000000\n"
           "pusha\njmp 1f\n.skip 40, 0x90",
           MOV32 "\nmov esp, ebx");
    stores_end("pusha");
#endif
}

static void vector_stores(void) {
    write_cr0((read_cr0() | X86_CR0_MP) & ~(ulong)(X86_CR0_EM | X86_CR0_TS));
    write_cr4(read_cr4() | X86_CR4_OSFXSR);
    STORES("", "movd xmm0, edx\nmovd [1f + 1], xmm0", MOV32);
    stores_end("movd");
    STORES("",
           "movups xmm1, [1f + 1]\nmovd xmm0, edx\nmovss xmm1, xmm0\n"
           "movups [1f + 1], xmm1",
           MOV32 "\nnop\nnop\nnop\nnop\nnop\nnop\nnop\nnop\nnop\nnop\nnop\nnop");
    stores_end("movups");
    STORES("", "movnti [1f + 1], edx\nsfence", MOV32);
    stores_end("movnti");
    STORES("fninit\n", "mov [7f], edx\nfild dword ptr [7f]\nfistp dword ptr [1f + 1]",
           MOV32 "\njmp 8f\n.balign 64\n7: .long 0\n8:");
    stores_end("fistp");
    /* FNSAVE: ST(7) ends in the opcode and the immediate. */
    STORES("",
           "fninit\nmov ecx, edx\nor ecx, 0x8000\nand ecx, 0x7f00ff00\n"
           "or ecx, 0x3f008000\nmov edx, ecx\nmov [7f + 6], ecx\n"
           "mov byte ptr [7f + 5], 0xb8\n"
           "fld tbyte ptr [7f]\nfld st(0)\nfld st(0)\nfld st(0)\nfld st(0)\n"
           "fld st(0)\nfld st(0)\nfld st(0)\nfnsave [1f + 5 - 108]",
           "jmp 1f\n.skip 120, 0x90\n" MOV32 "\njmp 8f\n.skip 64, 0x90\n"
           "7: .skip 16\n8:");
    stores_end("fnsave");
}

/* A loop whose store walks up to the loop, and past it. */
static void walk(void) {
    uint8_t *f = area + 3 * 4096 + 0x40; /* 64 bytes that nothing else is in */
    static const uint8_t code[] = {0x83, 0xc3, 0x01, /* add ebx, 1 */
                                   0x88, 0x07,       /* mov [rdi], al */
                                   0x83, 0xc7, 0x40, /* add edi, 64 */
                                   0x83, 0xe9, 0x01, /* sub ecx, 1 */
                                   0x75, 0xf3,       /* jnz */
                                   0xcd, DONE};
    for (unsigned warm = 0; warm <= 60; warm += 30) {
        memset(area, 0, sizeof(area));
        memcpy(f, code, sizeof(code));
        for (unsigned n = 0; n <= warm; n++) {
            unsigned before = 190, rounds = n == warm ? before + 30 : before;
            regs_kernel();
            in.di = (ulong)f + 2 - 64 * before;
            in.cx = rounds;
            in.bx = 0;
            in.ax = 5;
            run(f);
            /* Round number BEFORE + 1 writes, after its own add. */
            result("a store that walks over its own loop", (uint32_t)trap.r.bx,
                   n == warm ? before + 1 + 29 * 5 : before);
        }
    }
}

static void own_operand(void) {
    uint32_t sum = 0;
    for (uint32_t n = 0, k = 1; n < 3000; n++, k++)
        sum += (uint32_t)(int32_t)(int8_t)k;
    TRY0("xor eax, eax\nmov ecx, 3000\n1: add eax, 1\ninc byte ptr [1b + 2]\ndec ecx\n"
         "jnz 1b\nmov byte ptr [1b + 2], 1");
    result("an operand counted up in each round", (uint32_t)trap.r.ax, sum);
    /* Only once in a while, from a loop that is hot by then. */
    TRY0("xor eax, eax\nmov ecx, 20000\n1: add eax, 1\ntest ecx, 0x1fff\njnz 2f\n"
         "inc byte ptr [1b + 2]\n2: dec ecx\njnz 1b\nmov byte ptr [1b + 2], 1");
    result("and every 8192nd round", (uint32_t)trap.r.ax,
           (20000 - 16384 + 1) + 8192 * 2 + (16383 - 8192) * 0 + 8191 * 3);
    /* The instruction that repeats overwrites itself: it is not fetched again. */
    TRY0("cld\nmov ebx, 300\n"
         "1: lea edi, [2f]\nmov ecx, 16\nmov al, 0x90\n2: rep stosb\n.skip 14, 0x90\n"
         "mov word ptr [2b], 0xaaf3\ndec ebx\njnz 1b");
    expect("rep stosb over itself", DONE, 0, ANY);
    /* A pushed return address on the line of code that runs. */
    regs_kernel();
    uint8_t *f = area + 0x40;
    memset(area, 0x90, 256);
    emit_add(f, 3);
    in.sp = (ulong)area + 0x80;
    in.bx = (ulong)f;
    in.ax = 0;
    RUN("mov ecx, 9000\n1: call " BITS("ebx", "rbx") "\ndec ecx\njnz 1b");
    result("the stack on the line of the code", (uint32_t)trap.r.ax, 27000);
}

/* Counters and code in the same 64 bytes. */
static void data_beside(void) {
    for (unsigned n = 0; n < 3; n++) {
        TRY0("jmp 1f\n.balign 64\n3: .long 0\n4: .long 0\n"
             "1: mov ecx, 9000\nmov dword ptr [3b], 0\nmov dword ptr [4b], 1\n"
             "2: inc dword ptr [3b]\nmov eax, [3b]\nadd [4b], eax\ndec ecx\njnz 2b\n"
             "mov ebx, [4b]");
        result("counter", (uint32_t)trap.r.ax, 9000);
        result("sum", (uint32_t)trap.r.bx, 1 + 9000u * 9001 / 2);
    }
}

/* --- a compiler --- */

/* Emits a random straight program at P and tells what it makes of *AX. */
static uint8_t *jit(uint8_t *p, unsigned len, uint32_t *ax) {
    uint32_t a = *ax;
    while (len--) {
        uint32_t v = rnd();
        switch (rnd() % 7) {
        case 0:
            *p++ = 0x05, put32(p, v), p += 4, a += v; /* add */
            break;
        case 1:
            *p++ = 0x35, put32(p, v), p += 4, a ^= v; /* xor */
            break;
        case 2:
            *p++ = 0xc1, *p++ = 0xc0, *p++ = (uint8_t)(v %= 31); /* rol */
            a = v ? a << v | a >> (32 - v) : a;
            break;
        case 3:
            *p++ = 0xf7, *p++ = 0xd0, a = ~a; /* not */
            break;
        case 4:
            *p++ = 0x69, *p++ = 0xc0, put32(p, v), p += 4, a *= v; /* imul */
            break;
        case 5: /* test eax, eax; js +5; sub eax, v */
            memcpy(p, "\x85\xc0\x78\x05\x2d", 5), put32(p + 5, v), p += 9;
            a = a >> 31 ? a : a - v;
            break;
        default:
            *p++ = 0xeb, *p++ = (uint8_t)(v & 3); /* jmp over rubbish */
            for (v &= 3; v--;)
                *p++ = 0xff;
        }
    }
    *p++ = 0xc3;
    *ax = a;
    return p;
}

/* One function, rewritten again and again, run so many times each. */
static void compiler(unsigned at) {
    bool ok = true;
    uint8_t *end = area + at;
    for (unsigned n = 0; n < 700; n++) {
        uint32_t ax = rnd(), start = ax, v = 0;
        uint32_t times = n % 100 == 99 ? HOT : n & 3;
        uint8_t *p = jit(area + at, rnd() % 24 + 1, &ax);
        end = p > end ? p : end;
        for (uint32_t k = 0; k <= times; k++)
            v = call(area + at, start);
        ok &= v == ax;
        digest_add(v);
    }
    check(ok, "a function rewritten 700 times, at 0x%x", at);
}

/* --- pages --- */

static void crossing(void) {
    for (unsigned split = 1; split < 5; split++) {
        uint8_t *f = area + 4096 - split;
        uint32_t ax = 0x01010101;
        f[0] = 0x05; /* add eax, imm32; ret */
        put32(f + 1, ax);
        f[5] = 0xc3;
        for (uint32_t n = 0; n < 8; n++) {
            uint32_t heat = n & 1 ? HOT : 2;
            area[4096] = (uint8_t)(n * 17);
            ((uint8_t *)&ax)[split - 1] = area[4096];
            result("only the second page changes", calls(f, heat), ax * heat);
        }
        for (uint32_t n = 0; n < 300; n++) {
            *(volatile uint32_t *)(f + 1) = n * 0x1030507;
            ax = call(f, 1);
            if (ax != n * 0x1030507 + 1)
                check_eq("a store across pages", ax, n * 0x1030507 + 1);
        }
    }
    /* A loop whose end lies on the next page. */
    uint8_t *f = area + 2 * 4096 - 5;
    memcpy(f, "\x83\xc0\x01\x90\x90\x83\xc0\x02\x83\xe9\x01\x75\xf3\xcd\x81", 15);
    for (uint32_t n = 0; n < 6; n++) {
        regs_kernel();
        in.ax = 0;
        in.cx = 5000;
        f[7] = (uint8_t)(n * 3);
        run(f);
        result("a loop across pages", (uint32_t)trap.r.ax, 5000 * (1 + 3 * n));
    }
}

static unsigned fetch_faults;
static uint64_t good_pte;

static bool on_fetch(struct frame *f) {
    if ((read_cr2() & ~0xffful) != VA || f->ip != read_cr2())
        return false;
    fetch_faults++;
    digest_add(f->error);
    space_set(&s, VA, 1, good_pte);
    invlpg(VA);
    return true;
}

static void remapped(uint8_t *a, uint8_t *b) {
    emit_add(a, 1), emit_add(b, 1000);
    write_cr4(read_cr4() | X86_CR4_PGE);
    for (unsigned n = 0; n < 12; n++) {
        uint32_t heat = n % 3 ? 3 : HOT;
        uint64_t bits = RWU | (n & 4 ? X86_PTE_G : 0);
        space_set(&s, VA, 1, (ulong)b | bits);
        invlpg(VA);
        result("remapped", calls((void *)VA, heat), 1000 * heat);
        space_set(&s, VA, 1, (ulong)a | bits);
        (void)call((void *)VA, 0); /* either, before INVLPG */
        if (n & 1 && !(n & 4))     /* not global */
            write_cr3(read_cr3());
        else
            invlpg(VA);
        result("and back", calls((void *)VA, heat), heat);
    }
    write_cr4(read_cr4() & ~(ulong)X86_CR4_PGE);
    /* No longer mapped, and no longer executable, from one call to the next. */
    hooks[X86_PF] = on_fetch;
    good_pte = (ulong)a | RWU;
    for (unsigned n = 0; n < 8; n++) {
        uint32_t heat = n & 1 ? HOT : 2;
        uint64_t pte = n & 2 || !LONG_MODE ? 0 : good_pte | 1ull << 63;
        fetch_faults = 0;
        space_set(&s, VA, 1, pte);
        invlpg(VA);
        result("taken away", calls((void *)VA, heat), heat);
        check_eq("faults", fetch_faults, 1);
    }
    hooks[X86_PF] = NULL;
    /* What is taken away comes back with other code. */
    for (uint32_t n = 0; n < 40; n++) {
        emit_add(a, n);
        if (n & 1) {
            space_set(&s, VA, 1, 0);
            invlpg(VA);
            emit_add(a, n * 7);
            space_set(&s, VA, 1, good_pte);
        }
        result("away and back", call((void *)VA, 1), 1 + (n & 1 ? n * 7 : n));
    }
}

/* One page of code at two addresses: what it calls is what lies behind it there. */
static void two_places(uint8_t *a, uint8_t *b, uint8_t *c) {
    space_set(&s, VA, 1, (ulong)a | RWU);
    space_map(&s, VA + 4096, (ulong)b, RWU, 1);
    space_map(&s, OTHER, (ulong)a, RWU, 1);
    space_map(&s, OTHER + 4096, (ulong)c, RWU, 1);
    space_load(&s);
    memcpy(a, "\xe8\xfb\x0f\x00\x00\xe9\x06\x10\x00\x00",
           10); /* call +4096; jmp +4112+4 */
    emit_add(b, 1), emit_add(c, 100);
    emit_add(b + 16, 2), emit_add(c + 16, 200);
    for (uint32_t n = 1; n < 9; n++) {
        uint32_t heat = n & 1 ? HOT : 3;
        result("here", calls((void *)VA, heat), 3 * n * heat);
        result("there", calls((void *)OTHER, heat), 300 * n * heat);
        emit_add(b, n + 1), emit_add(c, 100 * (n + 1));
        emit_add(b + 16, 2 * (n + 1)), emit_add(c + 16, 200 * (n + 1));
        serialize();
    }
    /* A straight run from one page into the next. */
    memset(a + 4096 - 64, 0x90, 64);
    for (uint32_t n = 1; n < 5; n++) {
        result("into here", calls((void *)(VA + 4096 - 32), HOT), 9 * HOT);
        result("into there", calls((void *)(OTHER + 4096 - 32), HOT), 900 * HOT);
    }
}

#ifdef __x86_64__
/* Two address spaces under two PCIDs, which keep what they had. */
static void pcids(uint8_t *a, uint8_t *b) {
    static struct space t;
    ulong cr4 = read_cr4(), keep = 1ul << 63;
    bool ok = true;

    if (!cpu_has(1, REG_ECX, 17))
        return;
    space_new(&t, SPACE_LONG, RWU);
    space_map(&t, VA, (ulong)b, RWU, 1);
    space_set(&s, VA, 1, (ulong)a | RWU);
    space_load(&s);
    emit_add(a, 1), emit_add(b, 1000);
    write_cr4(cr4 | 1ul << 17);
    write_cr3(s.root | 1);
    write_cr3(t.root | 2);
    for (uint32_t n = 0; n < 3000; n++) {
        write_cr3(s.root | 1 | keep);
        ok &= call((void *)VA, n) == n + 1;
        write_cr3(t.root | 2 | keep);
        ok &= call((void *)VA, n) == n + 1000 + n / 1000;
        if (n % 1000 == 999)
            emit_add(b, 1000 + (n + 1) / 1000); /* by the identity map */
    }
    check(ok, "two PCIDs with other code at one address");
    write_cr3(s.root);
    write_cr4(cr4);
    space_load(&s);
}
#endif

/* The same bytes in each mode: 40 is INC EAX, or nothing but a prefix. */
static void views(uint8_t *a) {
    static const uint8_t code[] = {0x40, 0x83, 0xe9, 0x01, 0x75, 0xfa, 0xcd, DONE};
    /* 16-bit code branches within 64 KiB: its segment begins there. */
    gdt_set(FREE_SEL, seg_desc(VA, 0xffffffff,
                               X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_WRITE |
                                   X86_AR_ACCESSED | X86_AR_G));
    for (unsigned n = 0; n < 6; n++) {
        memcpy(a, code, sizeof(code));
        a[3] = (uint8_t)(1 + n);
        static const uint16_t cs[] = {KCS32, FREE_SEL, KCS};
        for (unsigned k = 0; k < 3; k++) {
            regs_kernel();
            in.cs = cs[k];
            in.ax = 0;
            in.cx = 5000 * (n + 1);
            run((void *)(k == 1 ? 0 : VA));
            result("by mode", (uint32_t)trap.r.ax, LONG_MODE && k == 2 ? 0 : 5000);
        }
    }
}

/* Rewritten by a device: REP INSB from the UART's scratch register. */
static void device(uint8_t *a) {
    uint8_t was = inb(0x3ff);
    space_set(&s, VA, 1, (ulong)a | RWU);
    invlpg(VA);
    emit_add(a, 0);
    for (uint32_t n = 1; n < 60; n++) {
        uint32_t count = 4, heat = n % 20 == 19 ? HOT : 2;
        void *to = a + 1;
        outb(0x3ff, (uint8_t)n);
        __asm__ volatile("cld; rep insb" : "+D"(to), "+c"(count) : "d"(0x3ff) : "memory");
        serialize();
        result("read from a port", calls((void *)VA, heat), n * 0x01010101 * heat);
    }
    outb(0x3ff, was);
}

/* Ring 3's hot loop, rewritten by ring 0 under another name. */
static void user(uint8_t *a) {
    static const uint8_t code[] = {0x83, 0xc0, 0x01, 0x83, 0xe9,
                                   0x01, 0x75, 0xf8, 0xcd, DONE};
    memcpy(a, code, sizeof(code));
    for (uint32_t n = 0; n < 10; n++) {
        a[2] = (uint8_t)n;
        regs_user();
        in.ax = 0;
        in.cx = n & 1 ? 9000 : 3;
        run((void *)VA);
        result("user code", (uint32_t)trap.r.ax, n * (n & 1 ? 9000 : 3));
    }
}

void guest_main(void) {
    uint8_t *a = page_alloc(), *b = page_alloc(), *c = page_alloc();

#ifndef __x86_64__
    write_cr4(read_cr4() | X86_CR4_PSE);
#endif
    space_new(&s, BITS(SPACE_32, SPACE_LONG), RWU);
    space_map(&s, VA, (ulong)a, RWU, 1);
    space_map(&s, ALIAS, (ulong)a, RWU, 1);
    space_load(&s);
    hooks[X86_BP] = on_int3;
    text_poke();
    jump_label();
    alternatives();
    tracing();
    integer_stores();
    vector_stores();
    walk();
    own_operand();
    data_beside();
    compiler(0x200);
    compiler(4096 - 40);
    crossing();
    remapped(a, b);
    two_places(a, b, c);
#ifdef __x86_64__
    pcids(a, b);
#endif
    views(a);
    device(a);
    user(a);
    digest_print();
}
