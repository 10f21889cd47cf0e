/*
 * Self-modifying and cross-modifying code: whatever writes to an instruction, and by
 * whatever name its page goes, the new bytes run. On one processor that holds from the
 * next instruction on when the write and the fetch use the same linear address; through
 * an alias it holds after a serializing instruction, which these checks then use.
 * AMD64 APM volume 2, "Self-Modifying Code".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

static uint8_t area[4 * 4096] __attribute__((aligned(4096)));
static struct space s;

static uint32_t call(const void *p) {
    uint32_t v;
    __asm__ volatile("call *%1"
                     : "=a"(v)
                     : "r"(p)
                     : "memory", "cc", BITS("ecx", "rcx"), BITS("edx", "rdx"));
    return v;
}

static void serialize(void) {
    uint32_t r[4];
    cpuid(0, 0, r);
}

/* mov eax, v; ret */
static uint8_t *emit_ret(uint8_t *p, uint32_t v) {
    p[0] = 0xb8;
    memcpy(p + 1, &v, 4);
    p[5] = 0xc3;
    return p;
}

static void same_page(void) {
    uint8_t *f = emit_ret(area + 0x100, 0);
    bool ok = true;
    for (uint32_t i = 0; i < 300; i++) {
        emit_ret(f, i * 0x01010101u);
        ok &= call(f) == i * 0x01010101u;
    }
    check(ok, "a function rewritten before every call");
    ok = true;
    for (uint32_t i = 0; i < 300; i++) {
        f[2] = (uint8_t)i; /* one byte in the middle of the immediate */
        ok &= (call(f) >> 8 & 0xff) == (i & 0xff);
    }
    check(ok, "one byte of an immediate");
    /* The opcode turns from mov eax, imm32 into and eax, imm32 and back. */
    ok = true;
    for (int i = 0; i < 50; i++) {
        emit_ret(f, 7);
        ok &= call(f) == 7;
        emit_ret(f, 0);
        f[0] = 0x25;
        ok &= call(f) == 0;
    }
    check(ok, "opcode changed");
    memcpy(f, "\x31\xc0\xc3", 3);
    check_eq("shorter code", call(f), 0);
}

static void next_instruction(void) {
    /* The store changes the immediate of the instruction right behind it. */
    for (uint32_t i = 1; i < 4; i++) {
        regs_kernel();
        in.dx = i;
        RUN("mov [1f + 1], dl\n1: mov eax, 0");
        expect("store, then the changed instruction", DONE, 0, ANY);
        check_eq("new immediate", trap.r.ax, i);
    }
    TRY0("xor eax, eax\nmov byte ptr [1f], 0xf9\nnop\n1: clc\nadc eax, 0");
    check_eq("opcode of a later instruction", trap.r.ax, 1);
    /* In a loop: each round reads what the last one wrote. */
    TRY0("mov ecx, 100\nxor edx, edx\n"
         "2: inc edx\nmov [1f + 1], edx\n1: mov eax, 0\ncmp eax, edx\njne 3f\nloop 2b\n"
         "mov ebx, 1\n3:");
    check_eq("rewritten in a loop of 100", trap.r.bx, 1);
    /* An instruction that changes its own immediate counts for the next round. */
    TRY0("xor eax, eax\nmov ecx, 10\n1: add eax, 1\ninc byte ptr [1b + 2]\nloop 1b");
    check_eq("1 + 2 + ... + 10", trap.r.ax, 55);
    /* An instruction that overwrites itself runs to its end. */
    TRY0("mov al, 0x90\n1: mov byte ptr [1b], al\nmov ebx, 3");
    check_eq("an instruction that overwrites itself", trap.r.bx, 3);
    /* rep stos over the instruction behind it. */
    TRY0("cld\nlea edi, [1f]\nmov ecx, 3\nmov al, 0x90\nxor edx, edx\nrep stosb\n"
         "1: mov dl, 7\nnop");
    expect("rep stosb of nops over the next instruction", DONE, 0, ANY);
    check_eq("it is gone", trap.r.dx, 0);
    TRY0("cld\nlea esi, [2f]\nlea edi, [1f]\nmov ecx, 5\nrep movsb\n"
         "1: mov eax, 1\njmp 3f\n2: mov eax, 0x12345678\n3:");
    check_eq("rep movsb over the next instruction", trap.r.ax, 0x12345678);
    TRY0("cld\nlea esi, [2f]\nlea edi, [1f]\nmovsd\nmovsb\n"
         "1: mov eax, 1\njmp 3f\n2: mov eax, 0x12345679\n3:");
    check_eq("movsd over the next instruction", trap.r.ax, 0x12345679);
    /* A backward store into code that has run. */
    TRY0("xor ecx, ecx\n1: mov eax, 5\ntest ecx, ecx\njnz 2f\ninc ecx\n"
         "mov dword ptr [1b + 1], 9\njmp 1b\n2:");
    check_eq("backward", trap.r.ax, 9);
    /* A conditional jump changed into its opposite just before it. */
    TRY0("xor eax, eax\nmov byte ptr [1f], 0x75\ncmp eax, eax\n1: je 2f\nmov eax, 4\n2:");
    check_eq("je turned jne", trap.r.ax, 4);
    /* A jump's displacement. */
    TRY0("xor eax, eax\nmov byte ptr [1f + 1], 2\n1: jmp 2f\nmov al, 1\nmov ah, 2\n2:");
    check_eq("displacement", trap.r.ax, 0x200);
}

/* Every kind of store, onto the immediate of the mov behind it. */
static void store_kinds(void) {
    write_cr0((read_cr0() | X86_CR0_MP) & ~(ulong)(X86_CR0_EM | X86_CR0_TS));
    write_cr4(read_cr4() | X86_CR4_OSFXSR);
    TRY0("mov ecx, 0x77\nxchg [1f + 1], ecx\n1: mov eax, 0");
    check_eq("xchg", trap.r.ax, 0x77);
    TRY0("mov ecx, 0x78\nlock xadd [1f + 1], ecx\n1: mov eax, 1");
    check_eq("xadd", trap.r.ax, 0x79);
    TRY0("mov eax, 1\nmov ecx, 0x7a\nlock cmpxchg [1f + 1], ecx\n1: mov eax, 1");
    check_eq("cmpxchg", trap.r.ax, 0x7a);
    TRY0("mov eax, 1\nmov ebx, 0x7b\n"
         "mov edx, [1f + 5]\nmov ecx, edx\nlock cmpxchg8b [1f + 1]\n1: mov eax, 1\n"
         "nop\nnop\nnop\nnop");
    check_eq("cmpxchg8b", trap.r.ax, 0x7b);
    TRY0("lock inc dword ptr [1f + 1]\n1: mov eax, 0x7b");
    check_eq("lock inc", trap.r.ax, 0x7c);
    TRY0("neg dword ptr [1f + 1]\n1: mov eax, 1");
    check_eq("neg", (uint32_t)trap.r.ax, 0xffffffff);
    TRY0("lock bts dword ptr [1f + 1], 9\n1: mov eax, 1");
    check_eq("bts", trap.r.ax, 0x201);
    TRY0("cmp eax, eax\nsetz byte ptr [1f + 2]\n1: mov eax, 0");
    check_eq("setz", trap.r.ax, 0x100);
    TRY0("mov edx, 0x7d\nmovd xmm0, edx\nmovd [1f + 1], xmm0\n1: mov eax, 0");
    check_eq("movd", trap.r.ax, 0x7d);
    TRY0("movups xmm0, [2f]\nmovups [1f], xmm0\n1: mov eax, 0\njmp 3f\n"
         "nop\nnop\nnop\nnop\nnop\nnop\nnop\nnop\nnop\nnop\n"
         "2: mov eax, 0x7e\nnop\nnop\nnop\nnop\nnop\nnop\nnop\nnop\nnop\nnop\nnop\n3:");
    check_eq("movups", trap.r.ax, 0x7e);
    TRY0("fninit\nfld1\nfistp dword ptr [1f + 1]\n1: mov eax, 0");
    check_eq("fistp", trap.r.ax, 1);
    TRY0("fninit\nfnstcw word ptr [1f + 1]\n1: mov eax, 0");
    check_eq("fnstcw", trap.r.ax, 0x37f);
    TRY0("mov edx, esp\nmov esp, offset 1f + " BITS(
        "5", "10") "\npush 0x7f\n"
                   "1: " BITS("mov eax, 0", "movabs rax, 0") "\nmov esp, edx");
    check_eq("push", trap.r.ax, 0x7f);
    TRY0("stmxcsr [1f + 1]\n1: mov eax, 0");
    check_eq("stmxcsr", trap.r.ax & 0x1f80, 0x1f80);
}

static void across_pages(void) {
    /* mov eax, imm32 with its opcode on one page and the immediate on the next. */
    for (int split = 1; split < 5; split++) {
        uint8_t *f = emit_ret(area + 4096 - split, 0x11111111);
        bool ok = call(f) == 0x11111111;
        for (uint32_t i = 0; i < 20; i++) {
            area[4096] = (uint8_t)i; /* only the second page is written */
            uint32_t want = 0x11111111;
            ((uint8_t *)&want)[split - 1] = (uint8_t)i;
            ok &= call(f) == want;
        }
        area[4096] = 0x11;
        ok &= call(f) == 0x11111111;
        check(ok, "an instruction %u bytes before the end of a page", (unsigned)split);
    }
    /* A store that begins on a data page and ends on a code page. */
    uint8_t *g = emit_ret(area + 2 * 4096 - 1, 0);
    (void)call(g);
    memset(area + 4096 + 0xff0, 0x90, 0xf);
    emit_ret(area + 2 * 4096, 5);
    check_eq("before", call(area + 2 * 4096), 5);
    *(volatile uint32_t *)(area + 2 * 4096 - 2) = 0x06b89090; /* nop nop mov eax, 6.. */
    check_eq("a store across into code", call(area + 2 * 4096), 6);
    /* Code running over a page's end, the second page rewritten. */
    memset(area + 4096 - 16, 0x90, 16);
    bool ok = true;
    for (uint32_t i = 0; i < 20; i++) {
        emit_ret(area + 4096, i);
        ok &= call(area + 4096 - 16) == i;
    }
    check(ok, "code that runs into a rewritten page");
}

static void data_on_code_page(void) {
    /* A counter beside the loop that counts it. */
    TRY0("mov ecx, 5000\n1: inc dword ptr [2f]\nloop 1b\nmov eax, [2f]\njmp 3f\n"
         ".balign 4\n2: .long 0\n3:");
    check_eq("counter on the code's page", trap.r.ax, 5000);
    /* The stack on the code's page. */
    uint8_t *f = emit_ret(area + 0x10, 0x55);
    regs_kernel();
    in.sp = (ulong)area + 0x800;
    in.bx = (ulong)f;
    RUN("mov ecx, 1000\n1: call " BITS("ebx", "rbx") "\nadd edx, eax\nloop 1b");
    check_eq("stack on the code's page", trap.r.dx, 0x55 * 1000);
}

#define VA 0x40000000ul
#define ALIAS 0x48000000ul

static void mappings(void) {
    uint8_t *a = page_alloc(), *b = page_alloc();
    space_new(&s, BITS(SPACE_32, SPACE_LONG), RWU);
    space_map(&s, VA, (ulong)a, RWU, 1);
    space_map(&s, ALIAS, (ulong)a, RWU, 1);
    space_load(&s);
    emit_ret(a, 1);
    emit_ret(b, 2);
    check_eq("by the mapping", call((void *)VA), 1);
    bool ok = true;
    for (uint32_t i = 0; i < 50; i++) {
        emit_ret((uint8_t *)ALIAS, i);
        serialize();
        ok &= call((void *)VA) == i;
        emit_ret((uint8_t *)VA, i + 1000);
        serialize();
        ok &= call((void *)ALIAS) == i + 1000;
        emit_ret(a, i + 2000); /* the identity map is a third name */
        serialize();
        ok &= call((void *)ALIAS) == i + 2000 && call((void *)VA) == i + 2000;
    }
    check(ok, "written by one name, run by another");
    ok = true;
    emit_ret(a, 1);
    for (uint32_t i = 0; i < 50; i++) {
        space_set(&s, VA, 1, (ulong)b | RWU);
        invlpg(VA);
        ok &= call((void *)VA) == 2;
        space_set(&s, VA, 1, (ulong)a | RWU);
        if (i & 1)
            write_cr3(read_cr3());
        else
            invlpg(VA);
        ok &= call((void *)VA) == 1;
    }
    check(ok, "the page remapped to other code");
    /* Changed while it is not mapped there. */
    space_set(&s, VA, 1, (ulong)b | RWU);
    invlpg(VA);
    (void)call((void *)VA);
    emit_ret(a, 77);
    space_set(&s, VA, 1, (ulong)a | RWU);
    invlpg(VA);
    check_eq("changed behind the mapping", call((void *)VA), 77);
    /* Two consecutive pages of code, the second one remapped: straddling instruction. */
    uint8_t *c = page_alloc();
    space_map(&s, VA + 4096, (ulong)b, RWU, 1);
    invlpg(VA + 4096);
    a[4095] = 0xb8;
    uint32_t one = 0x01010101, two = 0x02020202;
    memcpy(b, &one, 4);
    memcpy(c, &two, 4);
    b[4] = c[4] = 0xc3;
    check_eq("straddling", call((void *)(VA + 4095)), one);
    space_set(&s, VA + 4096, 1, (ulong)c | RWU);
    invlpg(VA + 4096);
    check_eq("straddling, second page remapped", call((void *)(VA + 4095)), two);
    space_set(&s, VA + 4096, 1, 0);
    invlpg(VA + 4096);
    regs_kernel();
    run((void *)(VA + 4095));
    check(trap.vector == X86_PF && trap.cr2 == VA + 4096,
          "straddling, second page gone: %u 0x%lx", trap.vector, trap.cr2);
    /* Code that takes its own page's mapping away faults at the next fetch. */
    uint8_t *d = a + 0x200;
#ifdef __x86_64__
    memcpy(d, "\x48\x89\x03\x0f\x01\x39\x90\x90", 8); /* mov [rbx],rax; invlpg [rcx] */
#else
    memcpy(d, "\x89\x03\x90\x0f\x01\x39\x90\x90", 8);
#endif
    /* The PTE lives in an identity-mapped table: find it through a change of bits. */
    regs_kernel();
    uint64_t pte = space_get(&s, VA, 1);
    static ulong *slot;
    for (ulong *q = (ulong *)0x1000000; q < (ulong *)0x1100000; q++) {
        if (*q == (ulong)pte && !slot)
            slot = q;
    }
    if (check(slot != NULL, "PTE found")) {
        in.bx = (ulong)slot;
        in.cx = VA;
        in.ax = 0;
        run((void *)(VA + 0x200));
        check(trap.vector == X86_PF && trap.r.ip == VA + 0x206 && trap.cr2 == VA + 0x206,
              "own mapping taken away: %u ip 0x%lx cr2 0x%lx", trap.vector, trap.r.ip,
              trap.cr2);
        *slot = (ulong)pte;
        invlpg(VA);
    }
    /* The same physical page run as ring 0 and ring 3 code, rewritten in between. */
    for (uint32_t i = 0; i < 5; i++) {
        a[0] = 0xb8;
        memcpy(a + 1, &i, 4);
        a[5] = 0xcd, a[6] = DONE;
        regs_kernel();
        run((void *)VA);
        check_eq("ring 0", trap.r.ax, i);
        a[1] = (uint8_t)(i + 1);
        regs_user();
        run((void *)VA);
        check_eq("ring 3", trap.r.ax, i + 1);
    }
    /* The same bytes as 32-bit and as 16-bit code: one page, two meanings. */
    memcpy(a, "\xb8\x34\x12\xcd\x81\x90\xcd\x81", 8);
    gdt_set(FREE_SEL, seg_desc(0, 0xffffffff,
                               X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_WRITE |
                                   X86_AR_ACCESSED | X86_AR_G));
    for (int i = 0; i < 4; i++) {
        regs_kernel();
        in.cs = KCS32;
        run((void *)VA);
        check_eq("as 32-bit code", trap.r.ax, 0x81cd1234);
        regs_kernel();
        in.cs = FREE_SEL;
        run((void *)VA);
        check_eq("as 16-bit code", trap.r.ax, 0x1234);
    }
}

void guest_main(void) {
    same_page();
    next_instruction();
    store_kinds();
    across_pages();
    data_on_code_page();
    mappings();
}
