/*
 * Instructions whose effect depends on the mode they run in: real, virtual-8086,
 * protected at level 0 and 3, 64-bit. Encodings go through decode, sem and the MMU.
 *
 * Expectations are written from the manuals: AMD64 APM volume 3 and Intel SDM volume 2,
 * the page of each instruction.
 */
#include "decode/decode.h"
#include "lib/exec.h"
#include "lib/unit.h"
#include "sem/sem_int.h"
#include "x86/pte.h"

enum {
    GDT = 0x1000,
    LDT = 0x1800,
    TSS = 0x2000,
    DATA = 0x3000,
    STACK = 0x9000,
    PML4 = 0x10000,  /* two more tables follow */
    HOLE = 0x200000, /* not mapped in 64-bit mode */
    /* selectors */
    CODE0 = 0x08,
    DATA0 = 0x10,
    CODE3 = 0x18,
    DATA3 = 0x20,
    SMALL3 = 0x28, /* 16-bit data, DPL 3, base 0x4000, limit 0xff */
    SEL_TSS = 0x30,
    SEL_LDT = 0x40,
    CODE64 = 0x50,
    CODE64_3 = 0x58,
    GDT_LIMIT = 0x5f,
    LOCAL = 0x0f, /* LDT, entry 1, RPL 3 */
};

static struct vcpu V;
static struct guest G;
static unsigned io_count;

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    io_count += e->reason == EXIT_io;
    if (e->reason == EXIT_io && !e->write)
        e->data = 0x44332211;
}

static const struct vcpu_hooks hooks = {.exit = on_exit_hook};

/* Everything afresh, in protected mode at level CPL, no paging. */
static void protected(unsigned cpl) {
    vcpu_reset(&V);
    memset(G.ram, 0, 0x20000);
    exec_flat_gdt(&G, GDT, GDT_LIMIT);
    guest_put(&G, GDT + SMALL3, 0x0000f300400000ff, 8);
    guest_put(&G, GDT + SEL_TSS, 0x0000890020000067, 8);
    guest_put(&G, GDT + SEL_LDT, 0x000082001800001f, 8);
    guest_put(&G, GDT + CODE64, 0x00af9b000000ffff, 8);
    guest_put(&G, GDT + CODE64_3, 0x00affb000000ffff, 8);
    guest_put(&G, LDT + 8, 0x0040f20050000fff,
              8); /* data, DPL 3, base 0x5000, limit 0xfff */
    V.cr0 = X86_CR0_PE | X86_CR0_ET;
    V.gpr[REG_RSP] = STACK;
    V.gpr[REG_RBX] = DATA;
    io_count = 0;
    if (cpl)
        exec_enter(&G, CODE3, DATA3, 3);
    else
        exec_enter(&G, CODE0, DATA0, 0);
}

static void real_mode(void) {
    protected(0);
    V.cr0 = X86_CR0_ET;
    for (unsigned s = 0; s < SEG_COUNT; s++)
        V.seg[s] = (struct segment){.ar = s == SEG_CS ? 0x9b : 0x93, .limit = 0xffff};
    vcpu_update_mode(&V);
    mmu_mode_changed(&V);
}

static void v86(unsigned iopl) {
    protected(0);
    V.rflags |= X86_FL_VM | iopl << X86_FL_IOPL_SHIFT;
    for (unsigned s = 0; s < SEG_COUNT; s++)
        V.seg[s] = (struct segment){.ar = 0xf3, .limit = 0xffff};
    V.cpl = 3;
    vcpu_update_mode(&V);
    mmu_mode_changed(&V);
}

/* Identity map of 2 MiB, for all levels. */
static void long_mode(unsigned cpl) {
    protected(0);
    guest_put(&G, PML4, (PML4 + 0x1000) | 7, 8);
    guest_put(&G, PML4 + 0x1000, (PML4 + 0x2000) | 7, 8);
    guest_put(&G, PML4 + 0x2000, X86_PTE_PS | 7, 8);
    V.cr0 |= X86_CR0_PG | X86_CR0_WP;
    V.cr4 = X86_CR4_PAE;
    V.cr3 = PML4;
    V.efer = X86_EFER_LME | X86_EFER_LMA;
    vcpu_update_mode(&V);
    mmu_cr3_loaded(&V, PML4);
    exec_enter(&G, cpl ? CODE64_3 : CODE64, cpl ? DATA3 : DATA0, cpl);
}

static int setup(void **state) {
    const struct guest_config cfg = {.vcpu = &V, .hooks = &hooks};

    guest_new(&G, &cfg);
    return 0;
}

static int teardown(void **state) {
    guest_free(&G);
    return 0;
}

#define RUN(s) EXEC(&V, s)
#define OK(s) assert_in_range(RUN(s), SEM_NEXT, SEM_BRANCH)

/* The instruction faults and leaves registers alone. */
static void check_fault(const char *bytes, size_t len, unsigned vector, uint32_t error) {
    uint64_t gpr[16], flags = V.rflags;
    memcpy(gpr, V.gpr, sizeof(gpr));
    assert_int_equal(exec_bytes(&V, bytes, len), SEM_FAULT);
    assert_int_equal(V.fault.vector, vector);
    assert_int_equal(V.fault.has_error ? V.fault.error : 0, error);
    assert_memory_equal(gpr, V.gpr, sizeof(gpr));
    assert_int_equal(V.rflags, flags);
}
#define FAULTS(s, vector, error) check_fault(s, sizeof(s) - 1, vector, error)

/* --- virtual-8086 mode --- */

static void test_v86_loads(void **state) {
    v86(0);
    V.gpr[REG_RAX] = 0x1234;
    OK("\x8e\xd8"); /* mov ds, ax */
    assert_int_equal(V.seg[SEG_DS].base, 0x12340);
    assert_int_equal(V.segbase[SEG_DS], 0x12340);
    assert_int_equal(V.seg[SEG_DS].limit, 0xffff);
    OK("\x8e\xd0"); /* mov ss, ax: no level to match */
    assert_int_equal(V.segbase[SEG_SS], 0x12340);
    V.gpr[REG_RAX] = 0; /* a null selector is a segment like any other */
    OK("\x8e\xc0");
    OK("\x8e\xd8");
    guest_put(&G, DATA, 0x56781234, 4);
    OK("\xc5\x07"); /* lds ax, [bx] */
    assert_int_equal(V.gpr[REG_RAX], 0x1234);
    assert_int_equal(V.segbase[SEG_DS], 0x56780);
    FAULTS("\x0f\x00\xd0", X86_UD, 0); /* lldt */
    FAULTS("\x0f\x02\xc1", X86_UD, 0); /* lar */
    FAULTS("\x63\xc1", X86_UD, 0);     /* arpl */
    FAULTS("\x0f\x20\xc0", X86_GP, 0); /* mov eax, cr0 */
    FAULTS("\x0f\x01\x10", X86_GP, 0); /* lgdt */
    FAULTS("\xf4", X86_GP, 0);         /* hlt */
}

static void test_v86_flags(void **state) {
    static const unsigned levels[] = {0, 1, 2};
    for (unsigned k = 0; k < ARRAY_SIZE(levels); k++) {
        v86(levels[k]);
        V.gpr[REG_RSP] = 0x8000;
        FAULTS("\x9c", X86_GP, 0);     /* pushf */
        FAULTS("\x66\x9c", X86_GP, 0); /* pushfd */
        FAULTS("\x9d", X86_GP, 0);     /* popf */
        FAULTS("\xfa", X86_GP, 0);     /* cli */
        FAULTS("\xfb", X86_GP, 0);     /* sti */
        FAULTS("\xcd\x21", X86_GP, 0); /* int 0x21 */
        FAULTS("\xcf", X86_GP, 0);     /* iret */
    }
    v86(3);
    V.gpr[REG_RSP] = 0x8000;
    V.rflags |= X86_FL_IF | X86_FL_RF;
    OK("\x66\x9c");
    assert_int_equal(guest_get(&G, 0x7ffc, 4), X86_FL_ONE | X86_FL_IF | X86_FL_IOPL);
    guest_put(&G, 0x7ffc, 0, 4); /* IOPL, VM stay */
    OK("\x66\x9d");
    assert_int_equal(V.rflags, X86_FL_ONE | X86_FL_VM | X86_FL_IOPL);
    assert_int_equal(V.gpr[REG_RSP], 0x8000);
    OK("\xfb");
    assert_true(V.rflags & X86_FL_IF);
    /* IRET pops three words and changes IF, not IOPL. */
    guest_put(&G, 0x8000, 0x45, 2);
    guest_put(&G, 0x8002, 0x123, 2);
    guest_put(&G, 0x8004, 0, 2);
    OK("\xcf");
    assert_int_equal(V.rip, 0x45);
    assert_int_equal(V.seg[SEG_CS].base, 0x1230);
    assert_int_equal(V.rflags, X86_FL_ONE | X86_FL_VM | X86_FL_IOPL);
    assert_int_equal(V.gpr[REG_RSP], 0x8006);
}

/* IN and OUT do not look at IOPL, but at the map. */
static void test_v86_ports(void **state) {
    v86(3);
    sem_unpack_desc(&V.tr, SEL_TSS, 0x00008b0020000088);
    guest_put(&G, TSS + 102, 104, 2);
    guest_put(&G, TSS + 104, 0xfffffffffffffffd, 8); /* port 1 alone */
    V.gpr[REG_RDX] = 1;
    OK("\xec");
    assert_int_equal(io_count, 1);
    FAULTS("\xed", X86_GP, 0); /* two ports */
    V.gpr[REG_RDX] = 0;
    FAULTS("\xec", X86_GP, 0);
    /* The limit: both bytes that are read must lie within. */
    V.gpr[REG_RDX] = 1;
    V.tr.limit = 104;
    FAULTS("\xec", X86_GP, 0);
    V.tr.limit = 105;
    OK("\xec");
    V.tr.limit = 102;
    FAULTS("\xec", X86_GP, 0);
    /* A 16-bit TSS has no map. */
    V.tr.limit = 200;
    V.tr.ar = 0x83;
    FAULTS("\xec", X86_GP, 0);
}

/* --- wrapping --- */

static void test_real_limits(void **state) {
    real_mode();
    guest_put(&G, 0xfffe, 0xbeef, 2);
    OK("\xa1\xfe\xff"); /* mov ax, [0xfffe] */
    assert_int_equal(V.gpr[REG_RAX], 0xbeef);
    FAULTS("\xa1\xff\xff", X86_GP, 0);
    FAULTS("\x66\xa1\xfd\xff", X86_GP, 0);
    FAULTS("\xa3\xff\xff", X86_GP, 0);
    /* The address wraps before the check: [bx+si] with bx = 0xfff0, si = 0x3010. */
    V.gpr[REG_RBX] = 0xfff0;
    V.gpr[REG_RSI] = 0x3010;
    guest_put(&G, 0x3000, 0x1234, 2);
    OK("\x8b\x00");
    assert_int_equal(V.gpr[REG_RAX], 0x1234);
    /* With an address-size prefix it does not. */
    V.gpr[REG_RBX] = 0x10000;
    FAULTS("\x67\x8b\x03", X86_GP, 0);
    /* Beyond 1 MiB. */
    V.gpr[REG_RAX] = 0xffff;
    OK("\x8e\xd8");
    guest_put(&G, 0x10ffee, 0x77, 1);
    OK("\xa0\xfe\xff");
    assert_int_equal(V.gpr[REG_RAX] & 0xff, 0x77);
}

static void test_stack16(void **state) {
    real_mode();
    V.gpr[REG_RAX] = 0x1111;
    V.gpr[REG_RSP] = 0xabcd0000; /* the upper half stays */
    OK("\x50");
    assert_int_equal(V.gpr[REG_RSP], 0xabcdfffe);
    assert_int_equal(guest_get(&G, 0xfffe, 2), 0x1111);
    OK("\x59"); /* pop cx */
    assert_int_equal(V.gpr[REG_RSP], 0xabcd0000);
    assert_int_equal(V.gpr[REG_RCX], 0x1111);
    V.gpr[REG_RSP] = 1;
    FAULTS("\x50", X86_SS, 0);
    FAULTS("\x66\x50", X86_SS, 0);
    V.gpr[REG_RSP] = 2;
    FAULTS("\x66\x50", X86_SS, 0);
    V.gpr[REG_RSP] = 0xffff;
    FAULTS("\x58", X86_SS, 0);
    FAULTS("\xc3", X86_SS, 0);
    FAULTS("\x9d", X86_SS, 0);
    V.gpr[REG_RSP] = 1;
    FAULTS("\xe8\x00\x00", X86_SS, 0);
    /* PUSHA wraps between its words. */
    V.gpr[REG_RSP] = 4;
    OK("\x60");
    assert_int_equal(V.gpr[REG_RSP], 0xfff4);
    assert_int_equal(guest_get(&G, 2, 2), 0x1111);              /* ax */
    assert_int_equal(guest_get(&G, 0xfffc, 2), V.gpr[REG_RBX]); /* the fourth */
    assert_int_equal(guest_get(&G, 0xfffa, 2), 4);              /* sp as it was */
    V.gpr[REG_RAX] = 0;
    OK("\x61");
    assert_int_equal(V.gpr[REG_RSP], 4);
    assert_int_equal(V.gpr[REG_RAX], 0x1111);
    /* A 16-bit stack under 32-bit code. */
    protected(3);
    V.gpr[REG_RAX] = SMALL3 | 3;
    OK("\x8e\xd0");
    V.gpr[REG_RSP] = 0x12340010;
    OK("\x50");
    assert_int_equal(V.gpr[REG_RSP], 0x1234000c);
    assert_int_equal(guest_get(&G, 0x400c, 4), SMALL3 | 3);
    V.gpr[REG_RSP] = 0x12340000;
    FAULTS("\x50", X86_SS, 0); /* 0xfffc is beyond the limit */
    V.gpr[REG_RBP] = 0x56780008;
    OK("\xc9"); /* leave */
    assert_int_equal(V.gpr[REG_RSP], 0x1234000c);
    assert_int_equal(V.gpr[REG_RBP], 0);
}

/* --- segment registers --- */

static void test_pop_seg(void **state) {
    protected(3);
    guest_put(&G, STACK, 0xffff0000 | DATA3 | 3, 4);
    OK("\x1f"); /* pop ds */
    assert_int_equal(V.gpr[REG_RSP], STACK + 4);
    assert_int_equal(V.seg[SEG_DS].sel, DATA3 | 3);
    V.gpr[REG_RSP] = STACK;
    OK("\x66\x1f");
    assert_int_equal(V.gpr[REG_RSP], STACK + 2);
    guest_put(&G, STACK + 2, DATA0, 4);
    FAULTS("\x1f", X86_GP, DATA0);
    assert_int_equal(V.seg[SEG_DS].sel, DATA3 | 3);
    /* pop ss: the new stack's width counts from the next instruction on */
    guest_put(&G, STACK + 2, SMALL3 | 3, 4);
    OK("\x17");
    assert_int_equal(V.gpr[REG_RSP], STACK + 6);
    assert_true(V.irq_shadow);
    assert_false(V.stack32);
    /* 64-bit mode pops eight bytes. */
    long_mode(0);
    guest_put(&G, STACK, DATA0, 8);
    OK("\x0f\xa1"); /* pop fs */
    assert_int_equal(V.gpr[REG_RSP], STACK + 8);
    V.gpr[REG_RSP] = 0x0000800000000000;
    FAULTS("\x0f\xa1", X86_SS, 0);
    V.gpr[REG_RSP] = HOLE;
    FAULTS("\x0f\xa1", X86_PF, 0);
    assert_int_equal(V.fault.addr, HOLE);
}

static void test_load_far_pointers(void **state) {
    protected(3);
    guest_put(&G, DATA, 0x11223344, 4);
    guest_put(&G, DATA + 4, DATA3, 2);
    OK("\xc5\x03"); /* lds eax, [ebx] */
    assert_int_equal(V.gpr[REG_RAX], 0x11223344);
    assert_int_equal(V.seg[SEG_DS].sel, DATA3);
    guest_put(&G, DATA + 4, DATA0, 2);
    FAULTS("\xc4\x03", X86_GP, DATA0);
    assert_int_equal(V.seg[SEG_ES].sel, DATA3 | 3);
    guest_put(&G, DATA + 4, 0, 2); /* null is for all but SS */
    OK("\xc4\x03");
    FAULTS("\x26\x8b\x03", X86_GP, 0);
    FAULTS("\x0f\xb2\x03", X86_GP, 0); /* lss */
    guest_put(&G, DATA + 2, SMALL3 | 3, 2);
    OK("\x66\x0f\xb4\x03"); /* lfs ax, [ebx] */
    assert_int_equal(V.seg[SEG_FS].base, 0x4000);
    assert_int_equal(V.gpr[REG_RAX], 0x11223344);
    /* LSS casts no shadow. */
    guest_put(&G, DATA + 4, DATA3 | 3, 2);
    OK("\x0f\xb2\x23"); /* lss esp, [ebx] */
    assert_false(V.irq_shadow);
}

static void test_ldt(void **state) {
    protected(3);
    V.gpr[REG_RAX] = LOCAL;
    V.ldtr = (struct segment){0};
    FAULTS("\x8e\xd8", X86_GP, LOCAL & ~3);
    FAULTS("\x0f\x00\xd0", X86_GP, 0); /* lldt at level 3 */
    exec_enter(&G, CODE0, DATA0, 0);
    V.gpr[REG_RCX] = SEL_LDT;
    OK("\x0f\x00\xd1");
    assert_int_equal(V.ldtr.base, LDT);
    assert_int_equal(V.ldtr.limit, 0x1f);
    OK("\x8e\xd8");
    assert_int_equal(V.seg[SEG_DS].base, 0x5000);
    assert_int_equal(guest_get(&G, LDT + 8 + 5, 1), 0xf3); /* accessed */
    V.gpr[REG_RAX] = 0x27;
    FAULTS("\x8e\xd8", X86_GP, 0x24); /* beyond its limit */
    V.gpr[REG_RAX] = 0x04;            /* entry 0 of the LDT is not the null selector */
    FAULTS("\x8e\xd8", X86_GP, 0x04);
    V.gpr[REG_RCX] = DATA0;
    FAULTS("\x0f\x00\xd1", X86_GP, DATA0);
    V.gpr[REG_RCX] = LOCAL;
    FAULTS("\x0f\x00\xd1", X86_GP, LOCAL & ~3);
    V.gpr[REG_RCX] = 3; /* null */
    OK("\x0f\x00\xd1");
    FAULTS("\x8e\xd8", X86_GP, 4);
    OK("\x0f\x00\xc1"); /* sldt ecx */
    assert_int_equal(V.gpr[REG_RCX], 3);
}

static void test_ltr_lldt_64(void **state) {
    long_mode(0);
    guest_put(&G, GDT + SEL_TSS, 0x12008934567800ab, 8);
    guest_put(&G, GDT + SEL_TSS + 8, 0xffffff80, 8);
    V.gpr[REG_RAX] = SEL_TSS;
    OK("\x0f\x00\xd8"); /* ltr ax */
    assert_int_equal(V.tr.base, 0xffffff8012345678);
    assert_int_equal(V.tr.limit, 0xab);
    assert_int_equal(V.tr.ar & 15, X86_DESC_TSS32_BUSY);
    assert_int_equal(guest_get(&G, GDT + SEL_TSS + 5, 1), 0x8b);
    FAULTS("\x0f\x00\xd8", X86_GP, SEL_TSS); /* busy */
    guest_put(&G, GDT + SEL_TSS, 0x12008934567800ab, 8);
    guest_put(&G, GDT + SEL_TSS + 8, 0x00008000, 8); /* not canonical */
    FAULTS("\x0f\x00\xd8", X86_GP, SEL_TSS);
    guest_put(&G, GDT + SEL_TSS + 8, 0x0000010000000000,
              8); /* a type in the upper half */
    FAULTS("\x0f\x00\xd8", X86_GP, SEL_TSS);
    guest_put(&G, GDT + SEL_TSS, 0x12000934567800ab, 8);
    guest_put(&G, GDT + SEL_TSS + 8, 0, 8);
    FAULTS("\x0f\x00\xd8", X86_NP, SEL_TSS);
    guest_put(&G, GDT + SEL_TSS, 0x12008134567800ab, 8); /* 16-bit */
    FAULTS("\x0f\x00\xd8", X86_GP, SEL_TSS);
    V.gpr[REG_RAX] = 0;
    FAULTS("\x0f\x00\xd8", X86_GP, 0);
    guest_put(&G, GDT + SEL_LDT + 8, 0x12, 8);
    V.gpr[REG_RAX] = SEL_LDT;
    OK("\x0f\x00\xd0");
    assert_int_equal(V.ldtr.base, 0x1200001800);
    V.gdtr.limit = SEL_LDT + 14; /* its last byte is cut off */
    FAULTS("\x0f\x00\xd0", X86_GP, SEL_LDT);
}

static void test_bases(void **state) {
    long_mode(0);
    FAULTS("\xf3\x0f\xae\xc0", X86_UD, 0); /* rdfsbase without CR4.FSGSBASE */
    V.cr4 |= X86_CR4_FSGSBASE;
    V.gpr[REG_RAX] = 0xffffffff80001000;
    OK("\xf3\x48\x0f\xae\xd8"); /* wrgsbase rax */
    assert_int_equal(V.segbase[SEG_GS], 0xffffffff80001000);
    OK("\xf3\x0f\xae\xd0"); /* wrfsbase eax: 32 bits */
    assert_int_equal(V.segbase[SEG_FS], 0x80001000);
    V.gpr[REG_RCX] = ~0ull;
    OK("\xf3\x0f\xae\xc9"); /* rdgsbase ecx */
    assert_int_equal(V.gpr[REG_RCX], 0x80001000);
    OK("\xf3\x48\x0f\xae\xc9");
    assert_int_equal(V.gpr[REG_RCX], 0xffffffff80001000);
    V.gpr[REG_RAX] = 1ull << 47;
    FAULTS("\xf3\x48\x0f\xae\xd8", X86_GP, 0);
    /* SWAPGS exchanges with the MSR; ring 0 and 64-bit mode only. */
    V.kernel_gs_base = 0x4000;
    OK("\x0f\x01\xf8");
    assert_int_equal(V.segbase[SEG_GS], 0x4000);
    assert_int_equal(V.kernel_gs_base, 0xffffffff80001000);
    guest_put(&G, 0x4008, 0x99, 8);
    OK("\x65\x48\x8b\x04\x25\x08\x00\x00\x00"); /* mov rax, gs:8 */
    assert_int_equal(V.gpr[REG_RAX], 0x99);
    long_mode(3);
    FAULTS("\x0f\x01\xf8", X86_GP, 0);
    protected(0);
    FAULTS("\x0f\x01\xf8", X86_UD, 0);
    V.cr4 |= X86_CR4_FSGSBASE;
    FAULTS("\xf3\x0f\xae\xc0", X86_UD, 0);
}

static void test_invpcid(void **state) {
    const char *invpcid = "\x66\x0f\x38\x82\x03"; /* invpcid rax, [rbx] */
    long_mode(0);
    guest_put(&G, DATA, 0, 8);
    guest_put(&G, DATA + 8, 1ull << 47, 8);
    for (V.gpr[REG_RAX] = 1; V.gpr[REG_RAX] < 4; V.gpr[REG_RAX]++)
        assert_int_equal(exec_bytes(&V, invpcid, 5), SEM_STOP);
    check_fault(invpcid, 5, X86_GP, 0); /* type 4 */
    V.gpr[REG_RAX] = 0;
    check_fault(invpcid, 5, X86_GP, 0); /* not canonical */
    guest_put(&G, DATA + 8, 0x1000, 8);
    assert_int_equal(exec_bytes(&V, invpcid, 5), SEM_STOP);
    guest_put(&G, DATA, 1, 8);
    check_fault(invpcid, 5, X86_GP, 0); /* a PCID without CR4.PCIDE */
    V.cr4 |= X86_CR4_PCIDE;
    mmu_mode_changed(&V);
    assert_int_equal(exec_bytes(&V, invpcid, 5), SEM_STOP);
    guest_put(&G, DATA, 1 << 12, 8);
    check_fault(invpcid, 5, X86_GP, 0);
    V.gpr[REG_RBX] = HOLE - 8;
    check_fault(invpcid, 5, X86_PF, 0);
    long_mode(3);
    check_fault(invpcid, 5, X86_GP, 0);
}

/* --- memory operands of two parts --- */

static void test_bound(void **state) {
    static const struct {
        int32_t index;
        bool inside;
    } t[] = {{-5, true}, {-6, false}, {0, true}, {7, true}, {8, false}};
    for (unsigned k = 0; k < ARRAY_SIZE(t); k++) {
        protected(3);
        guest_put(&G, DATA, (uint32_t)-5 | 7ull << 32, 8);
        V.gpr[REG_RAX] = (uint32_t)t[k].index;
        if (t[k].inside)
            OK("\x62\x03");
        else
            FAULTS("\x62\x03", X86_BR, 0);
        guest_put(&G, DATA, 0x0007fffb, 4);
        if (t[k].inside)
            OK("\x66\x62\x03");
        else
            FAULTS("\x66\x62\x03", X86_BR, 0);
    }
    real_mode();
    V.gpr[REG_RBX] = 0xfffe;
    FAULTS("\x62\x07", X86_GP, 0);
}

static void test_cmpxchg16b(void **state) {
    long_mode(3);
    guest_put(&G, DATA, 0x1111, 8);
    guest_put(&G, DATA + 8, 0x2222, 8);
    V.gpr[REG_RBX] = 0x3333;
    V.gpr[REG_RCX] = 0x4444;
    V.gpr[REG_RSI] = DATA;
    V.gpr[REG_RAX] = 0x1111;
    V.gpr[REG_RDX] = 0x2221;
    V.rflags |= X86_FL_ZF | X86_FL_CF;
    OK("\xf0\x48\x0f\xc7\x0e");
    assert_int_equal(V.gpr[REG_RDX], 0x2222);
    assert_int_equal(guest_get(&G, DATA, 8), 0x1111);
    assert_int_equal(V.rflags, X86_FL_ONE | X86_FL_CF);
    OK("\xf0\x48\x0f\xc7\x0e");
    assert_int_equal(guest_get(&G, DATA, 8), 0x3333);
    assert_int_equal(guest_get(&G, DATA + 8, 8), 0x4444);
    assert_int_equal(V.rflags, X86_FL_ONE | X86_FL_CF | X86_FL_ZF);
    V.gpr[REG_RSI] = DATA + 8;
    FAULTS("\xf0\x48\x0f\xc7\x0e", X86_GP, 0);
    V.gpr[REG_RSI] = HOLE; /* a mismatch is a write as well */
    FAULTS("\xf0\x48\x0f\xc7\x0e", X86_PF, X86_PF_U | X86_PF_W);
}

/* A port is not read when there is nowhere to put the data. */
static void test_string_io_faults(void **state) {
    long_mode(0);
    V.gpr[REG_RDI] = HOLE - 2;
    V.gpr[REG_RCX] = 2;
    FAULTS("\x6d", X86_PF, X86_PF_W); /* insd */
    assert_int_equal(V.fault.addr, HOLE);
    assert_int_equal(io_count, 0);
    assert_int_equal(RUN("\xf3\x6c"), SEM_REPEAT);
    assert_int_equal(RUN("\xf3\x6c"), SEM_STOP); /* the second of two */
    assert_int_equal(io_count, 2);
    assert_int_equal(guest_get(&G, HOLE - 2, 2), 0x1111);
    V.gpr[REG_RCX] = 1;
    FAULTS("\xf3\x6c", X86_PF, X86_PF_W);
    assert_int_equal(io_count, 2);
    V.gpr[REG_RSI] = HOLE;
    FAULTS("\x6e", X86_PF, 0);
    assert_int_equal(io_count, 2);
    V.gpr[REG_RCX] = 0; /* nothing to do: nothing to fault */
    assert_in_range(RUN("\xf3\x6e"), SEM_NEXT, SEM_STOP);
    assert_int_equal(io_count, 2);
}

/* --- what the levels may do --- */

static void test_level3(void **state) {
    protected(3);
    FAULTS("\xf4", X86_GP, 0);         /* hlt */
    FAULTS("\xfa", X86_GP, 0);         /* cli */
    FAULTS("\x0f\x06", X86_GP, 0);     /* clts */
    FAULTS("\x0f\x08", X86_GP, 0);     /* invd */
    FAULTS("\x0f\x30", X86_GP, 0);     /* wrmsr */
    FAULTS("\x0f\x01\x3b", X86_GP, 0); /* invlpg */
    FAULTS("\x0f\x01\xcb", X86_UD, 0); /* stac: #UD, not #GP */
    FAULTS("\x0f\x22\xc8", X86_UD, 0); /* mov cr1: does not exist */
    FAULTS("\x0f\x22\xc0", X86_GP, 0);
    V.rflags |= X86_FL_IOPL;
    OK("\xfa");
    OK("\xec");
    /* POPF: IOPL stays; IF follows it. */
    guest_put(&G, STACK, X86_FL_IF, 4);
    OK("\x9d");
    assert_int_equal(V.rflags, X86_FL_ONE | X86_FL_IOPL | X86_FL_IF);
    V.rflags &= ~(uint64_t)X86_FL_IOPL;
    guest_put(&G, STACK, X86_FL_IOPL | X86_FL_CF, 4);
    V.gpr[REG_RSP] = STACK;
    OK("\x9d"); /* silently */
    assert_int_equal(V.rflags, X86_FL_ONE | X86_FL_IF | X86_FL_CF);
}

/* A far transfer or interrupt from 64-bit code to an address that is none. */
static void test_not_canonical(void **state) {
    long_mode(0);
    V.rip = 0x1000;
    V.gpr[REG_RAX] = 1ull << 47;
    FAULTS("\xff\xe0", X86_GP, 0); /* jmp rax */
    FAULTS("\xff\xd0", X86_GP, 0); /* call rax */
    guest_put(&G, STACK, 1ull << 47, 8);
    FAULTS("\xc3", X86_GP, 0);
    guest_put(&G, STACK + 8, CODE64, 8);
    guest_put(&G, STACK + 16, X86_FL_ONE, 8);
    guest_put(&G, STACK + 24, STACK, 8);
    guest_put(&G, STACK + 32, DATA0, 8);
    FAULTS("\x48\xcf", X86_GP, 0); /* iretq: the fault is its own */
    assert_int_equal(V.rip, 0x1000);
    V.gpr[REG_RBX] = 1ull << 47;
    FAULTS("\x48\x8b\x03", X86_GP, 0);
    V.gpr[REG_RBP] = 1ull << 47;
    FAULTS("\x48\x8b\x45\x00", X86_SS, 0);
    V.gpr[REG_RBX] = (1ull << 47) - 4;
    FAULTS("\x48\x8b\x03", X86_GP, 0); /* half of it */
    V.gpr[REG_RSP] = (1ull << 47) + 8;
    FAULTS("\x50", X86_SS, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v86_loads),
        cmocka_unit_test(test_v86_flags),
        cmocka_unit_test(test_v86_ports),
        cmocka_unit_test(test_real_limits),
        cmocka_unit_test(test_stack16),
        cmocka_unit_test(test_pop_seg),
        cmocka_unit_test(test_load_far_pointers),
        cmocka_unit_test(test_ldt),
        cmocka_unit_test(test_ltr_lldt_64),
        cmocka_unit_test(test_bases),
        cmocka_unit_test(test_invpcid),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_cmpxchg16b),
        cmocka_unit_test(test_string_io_faults),
        cmocka_unit_test(test_level3),
        cmocka_unit_test(test_not_canonical),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
