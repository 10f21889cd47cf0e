/*
 * Paging: the matrix of permissions for every access kind and ring, error codes and CR2,
 * accessed and dirty bits, large pages, reserved bits, page-crossing accesses, and what
 * INVLPG, CR3 loads, PCIDs and INVPCID promise. In 32-bit guests for two-level and for
 * PAE tables. AMD64 APM volume 2, "Page Translation and Protection".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define TVA 0x40000000ul   /* the page under test */
#define UCODE 0x50000000ul /* user code, stack */
#define USTACK 0x50002000ul
#define RETS 0xc3 /* what the page under test is filled with */

static struct space s;
static const char *kind_name;
static uint8_t *page, *page2, *ucode;
static bool nxe, has_smep, has_smap;

static void *user_copy(const void *code) {
    memcpy(ucode, code, CODE_LEN(code));
    return (void *)UCODE;
}

static void at_user(void) {
    regs_user();
    in.sp = USTACK + 0x800;
}

enum access { READ, WRITE, EXEC };

/* One access to `va` by a ring; returns the vector. */
static unsigned access(enum access a, bool user, ulong va, ulong flags) {
    void *code = a == READ    ? CODE("mov al, [" BITS("ebx", "rbx") "]")
                 : a == WRITE ? CODE("mov [" BITS("ebx", "rbx") "], al")
                              : CODE("call " BITS("ebx", "rbx"));
    if (user) {
        at_user();
        code = user_copy(code);
    } else {
        regs_kernel();
    }
    in.ax = RETS;
    in.bx = va;
    in.flags |= flags;
    return run(code);
}

static ulong error_of(enum access a, bool user, ulong extra, bool smep) {
    return extra | (a == WRITE ? X86_PF_W : 0) | (user ? X86_PF_U : 0) |
           (a == EXEC && (nxe || smep) ? X86_PF_I : 0);
}

static void expect_fault(const char *what, enum access a, bool user, ulong va,
                         ulong error) {
    check(trap.vector == X86_PF && trap.error == error && trap.cr2 == va &&
              (a != EXEC || trap.r.ip == va),
          "%s %s (%s, ring %u): vector %u error 0x%lx cr2 0x%lx, want error 0x%lx",
          kind_name, what,
          a == READ    ? "read"
          : a == WRITE ? "write"
                       : "fetch",
          user ? 3 : 0, trap.vector, trap.error, trap.cr2, error);
}

static void leaf(uint64_t flags) {
    space_set(&s, TVA, 1, (ulong)page | flags);
    invlpg(TVA);
}

static void matrix_row(unsigned bits, bool wp, bool smep, bool smap) {
    bool pde_u = bits & 1, pde_w = bits & 2, pte_u = bits & 4, pte_w = bits & 8;
    bool nx = bits & 16, up_page = pde_u && pte_u, writable = pde_w && pte_w;
    uint64_t pde = space_get(&s, TVA, 2) & ~(X86_PTE_U | X86_PTE_W);
    space_set(&s, TVA, 2, pde | (pde_u ? X86_PTE_U : 0) | (pde_w ? X86_PTE_W : 0));
    uint64_t pte = X86_PTE_P | (pte_u ? X86_PTE_U : 0) | (pte_w ? X86_PTE_W : 0) |
                   (nx ? X86_PTE_NX : 0);
    for (int i = 0; i < 12; i++) {
        enum access a = (enum access)(i % 3);
        bool user = i / 3 & 1, ac = i / 6;
        bool bad = user ? !up_page : smap && up_page && !ac && a != EXEC;
        if (a == WRITE && !writable && (user || wp))
            bad = true;
        if (a == EXEC && (nx || (!user && smep && up_page)))
            bad = true;
        leaf(pte);
        page[0] = RETS;
        unsigned v = access(a, user, TVA, ac ? X86_FL_AC : 0);
        uint64_t after = space_get(&s, TVA, 1);
        bool ok;
        if (bad)
            ok = v == X86_PF && trap.error == error_of(a, user, X86_PF_P, smep) &&
                 trap.cr2 == TVA && !(after & X86_PTE_D);
        else
            ok = v == DONE && (after & X86_PTE_A) && !(after & X86_PTE_D) == (a != WRITE);
        check(ok,
              "%s pde %s%s pte %s%s%s WP %u SMEP %u SMAP %u AC %u ring %u %s: vector %u "
              "error 0x%lx cr2 0x%lx pte 0x%llx, want %s",
              kind_name, pde_u ? "U" : "", pde_w ? "W" : "", pte_u ? "U" : "",
              pte_w ? "W" : "", nx ? "NX" : "", wp, smep, smap, ac, user ? 3 : 0,
              a == READ    ? "read"
              : a == WRITE ? "write"
                           : "fetch",
              v, trap.error, trap.cr2, (unsigned long long)after, bad ? "#PF" : "none");
    }
}

static void matrix(void) {
    ulong cr0 = read_cr0(), cr4 = read_cr4();
    for (unsigned mode = 0; mode < 8; mode++) {
        bool wp = mode & 1, smep = mode & 2, smap = mode & 4;
        if ((smep && !has_smep) || (smap && !has_smap))
            continue;
        write_cr0(wp ? cr0 | X86_CR0_WP : cr0 & ~(ulong)X86_CR0_WP);
        write_cr4(cr4 | (smep ? X86_CR4_SMEP : 0) | (smap ? X86_CR4_SMAP : 0));
        for (unsigned bits = 0; bits < (nxe ? 32 : 16); bits++)
            matrix_row(bits, wp, smep, smap);
    }
    write_cr0(cr0);
    write_cr4(cr4);
    space_set(&s, TVA, 2, space_get(&s, TVA, 2) | X86_PTE_U | X86_PTE_W);
    leaf(RWU);
}

static void not_present(void) {
    int top = s.kind == SPACE_LONG ? 4 : 2; /* a PAE PDPTE is loaded with CR3 only */
    for (int level = 1; level <= top; level++) {
        uint64_t old = space_get(&s, TVA, level);
        if (level == 4)
            continue; /* the guest itself lives below the same PML4 entry */
        for (int i = 0; i < 6; i++) {
            enum access a = (enum access)(i % 3);
            bool user = i / 3;
            space_set(&s, TVA, level, old & ~X86_PTE_P);
            invlpg(TVA);
            access(a, user, TVA + 0x123, 0);
            expect_fault("not present", a, user, TVA + 0x123,
                         error_of(a, user, 0, false));
            space_set(&s, TVA, level, 0);
            invlpg(TVA);
            access(a, user, TVA, 0);
            expect_fault("entry 0", a, user, TVA, error_of(a, user, 0, false));
            space_set(&s, TVA, level, old);
            invlpg(TVA);
        }
        page[0] = RETS;
        check(access(EXEC, true, TVA, 0) == DONE, "%s present again at level %u",
              kind_name, (unsigned)level);
    }
}

static void expect_reserved(const char *what) {
    for (int i = 0; i < 6; i++) {
        access((enum access)(i % 3), i / 3, TVA, 0);
        expect_fault(
            what, (enum access)(i % 3), i / 3, TVA,
            error_of((enum access)(i % 3), i / 3, X86_PF_P | X86_PF_RSVD, false));
    }
}

static void reserved(void) {
    uint32_t r[4] = {0x80000008};
    cpuid(0x80000008, 0, r);
    unsigned phys = r[0] & 0xff;
    uint64_t pte = space_get(&s, TVA, 1), pde = space_get(&s, TVA, 2);
    if (s.kind != SPACE_32) {
        for (unsigned bit = phys; bit < 52; bit++) {
            if (bit != phys && bit != 51)
                continue;
            space_set(&s, TVA, 1, pte | 1ull << bit);
            invlpg(TVA);
            expect_reserved("physical address bit beyond the CPU's in a PTE");
            space_set(&s, TVA, 1, pte);
            space_set(&s, TVA, 2, pde | 1ull << bit);
            invlpg(TVA);
            expect_reserved("physical address bit beyond the CPU's in a PDE");
            space_set(&s, TVA, 2, pde);
        }
        if (s.kind == SPACE_PAE && !cpu_is_amd()) {
            space_set(&s, TVA, 1, pte | 1ull << 62);
            invlpg(TVA);
            expect_reserved("PAE bit 62");
            space_set(&s, TVA, 1, pte);
        }
        /* NX is reserved while EFER.NXE is clear. */
        uint64_t efer = rdmsr(X86_MSR_EFER);
        wrmsr(X86_MSR_EFER, efer & ~(uint64_t)X86_EFER_NXE);
        nxe = false;
        space_set(&s, TVA, 1, pte | X86_PTE_NX);
        invlpg(TVA);
        expect_reserved("NX without NXE");
        space_set(&s, TVA, 1, pte);
        wrmsr(X86_MSR_EFER, efer);
        nxe = true;
        invlpg(TVA);
    }
    /* Address bits of a large page below its size. */
    uint64_t bit = s.kind == SPACE_32 ? 1 << 21 : 1 << 13;
    space_set(&s, TVA, 2, (pde & 0xfffull) | X86_PTE_PS | bit);
    invlpg(TVA);
    expect_reserved("reserved bit of a large page");
    space_set(&s, TVA, 2, pde);
    invlpg(TVA);
#ifdef __x86_64__
    if (cpu_has(0x80000001, REG_EDX, 26)) {
        uint64_t pdpte = space_get(&s, TVA, 3);
        space_set(&s, TVA, 3, (pdpte & 0xfff) | X86_PTE_PS | 1 << 13);
        invlpg(TVA);
        expect_reserved("reserved bit of a 1 GiB page");
        space_set(&s, TVA, 3, pdpte);
        invlpg(TVA);
    }
#endif
    check(access(WRITE, true, TVA, 0) == DONE, "%s after the reserved bits", kind_name);
}

static void accessed_dirty(void) {
    volatile uint8_t *p = (volatile uint8_t *)TVA;
    leaf(RWU);
    check_eq("fresh", space_get(&s, TVA, 1) & (X86_PTE_A | X86_PTE_D), 0);
    (void)*p;
    check_eq("read sets A", space_get(&s, TVA, 1) & (X86_PTE_A | X86_PTE_D), X86_PTE_A);
    *p = RETS;
    check_eq("a write after a read sets D", space_get(&s, TVA, 1) & X86_PTE_D, X86_PTE_D);
    leaf(RWU);
    *p = RETS;
    check_eq("a write sets both", space_get(&s, TVA, 1) & (X86_PTE_A | X86_PTE_D),
             X86_PTE_A | X86_PTE_D);
    leaf(RWU | X86_PTE_A);
    (void)*p;
    *p = RETS;
    check_eq("D after A was set by hand", space_get(&s, TVA, 1) & X86_PTE_D, X86_PTE_D);
    /* Read-modify-write and locked forms; cmpxchg writes even when it fails. */
    leaf(RWU);
    __asm__ volatile("addb $0, %0" : "+m"(*p));
    check_eq("rmw sets D", space_get(&s, TVA, 1) & X86_PTE_D, X86_PTE_D);
    leaf(RWU);
    __asm__ volatile("lock cmpxchgb %1, %0" : "+m"(*p) : "r"((uint8_t)1), "a"(7) : "cc");
    check_eq("failing cmpxchg sets D", space_get(&s, TVA, 1) & X86_PTE_D, X86_PTE_D);
    leaf(RWU);
    __asm__ volatile("cmpb $0, %0" ::"m"(*p));
    check_eq("cmp sets no D", space_get(&s, TVA, 1) & X86_PTE_D, 0);
    /* The levels above get A and never D. */
    int top = s.kind == SPACE_LONG ? 3 : 2;
    for (int level = 2; level <= top; level++) {
        space_set(&s, TVA, level, space_get(&s, TVA, level) & ~X86_PTE_A);
        invlpg(TVA);
        *p = RETS;
        check_eq("A of an upper level",
                 space_get(&s, TVA, level) & (X86_PTE_A | X86_PTE_D), X86_PTE_A);
    }
    /* A fetch sets A alone; writes that fault set no D. */
    leaf(RWU);
    access(EXEC, true, TVA, 0);
    check_eq("fetch sets A", space_get(&s, TVA, 1) & (X86_PTE_A | X86_PTE_D), X86_PTE_A);
    leaf(X86_PTE_P | X86_PTE_U);
    access(WRITE, true, TVA, 0);
    check_eq("faulting write sets no D", space_get(&s, TVA, 1) & X86_PTE_D, 0);
    /* Clearing D by hand (with invlpg) is seen by the next write. */
    leaf(RWU);
    *p = RETS;
    space_set(&s, TVA, 1, space_get(&s, TVA, 1) & ~X86_PTE_D);
    invlpg(TVA);
    *p = RETS;
    check_eq("D again", space_get(&s, TVA, 1) & X86_PTE_D, X86_PTE_D);
    /* The same through a CR3 load. */
    space_set(&s, TVA, 1, space_get(&s, TVA, 1) & ~(X86_PTE_D | X86_PTE_A));
    write_cr3(read_cr3());
    *p = RETS;
    check_eq("A and D after a CR3 load", space_get(&s, TVA, 1) & (X86_PTE_D | X86_PTE_A),
             X86_PTE_D | X86_PTE_A);
}

static void large(void) {
    ulong lva = 0x60000000;
    ulong size = s.kind == SPACE_32 ? 0x400000 : 0x200000;
    uint32_t *phys = (uint32_t *)0x3000000;
    space_map(&s, lva, (ulong)phys, RWU, 2);
    invlpg(lva);
    phys[0x1230 / 4] = 0x11223344;
    phys[(size - 4) / 4] = 0x55667788;
    check_eq("large page", *(volatile uint32_t *)(lva + 0x1230), 0x11223344);
    check_eq("end of a large page", *(volatile uint32_t *)(lva + size - 4), 0x55667788);
    check_eq("A of a large page", space_get(&s, lva, 2) & (X86_PTE_A | X86_PTE_D),
             X86_PTE_A);
    *(volatile uint32_t *)(lva + 0x2000) = 1;
    check_eq("D of a large page", space_get(&s, lva, 2) & X86_PTE_D, X86_PTE_D);
    space_map(&s, lva, (ulong)phys, X86_PTE_P | X86_PTE_U, 2);
    invlpg(lva + 0x5000);
    access(WRITE, true, lva + 0x2345, 0);
    expect_fault("read-only large page", WRITE, true, lva + 0x2345,
                 X86_PF_P | X86_PF_W | X86_PF_U);
    space_set(&s, lva, 2, 0);
    invlpg(lva + 0x7000); /* any address in it drops all of it */
    access(READ, false, lva + 0x1230, 0);
    expect_fault("dropped large page", READ, false, lva + 0x1230, 0);
    if (s.kind == SPACE_32) {
        /* PSE-36: the PDE's bits 13..20 are address bits 32..39; bit 12 is PAT. */
        space_map(&s, lva, (ulong)phys | 1 << 12, RWU, 2);
        invlpg(lva);
        check_eq("PAT bit of a large page", *(volatile uint32_t *)(lva + 0x1230),
                 0x11223344);
        /* Without CR4.PSE the PS bit means nothing: the PDE points to a table. That
         * cannot be tried here, the guest runs on large pages itself. */
    }
#ifdef __x86_64__
    if (cpu_has(0x80000001, REG_EDX, 26)) {
        ulong gva = 0x80000000ul * 4;
        space_map(&s, gva, 0, RWU, 3);
        invlpg(gva);
        check_eq("1 GiB page", *(volatile uint32_t *)(gva + (ulong)phys + 0x1230),
                 0x11223344);
        check_eq("A of a 1 GiB page", space_get(&s, gva, 3) & (X86_PTE_A | X86_PTE_D),
                 X86_PTE_A);
        *(volatile uint32_t *)(gva + (ulong)phys + 0x1230) = 5;
        check_eq("D of a 1 GiB page", space_get(&s, gva, 3) & X86_PTE_D, X86_PTE_D);
        check_eq("written through", phys[0x1230 / 4], 5);
    }
#endif
}

static void crossing(void) {
    /* TVA present, the next page not: what falls on the second faults there. */
    ulong next = TVA + 4096;
    space_map(&s, TVA, (ulong)page, RWU, 1);
    space_map(&s, next, 0, 0, 1);
    invlpg(TVA);
    invlpg(next);
    memset(page, 0xaa, 4096);
    regs_kernel();
    in.bx = next - 2;
    in.ax = 0x12345678;
    RUN("mov [ebx], eax");
    check(trap.vector == X86_PF && trap.error == X86_PF_W && trap.cr2 == next,
          "%s store across: %u 0x%lx cr2 0x%lx", kind_name, trap.vector, trap.error,
          trap.cr2);
    check_eq("nothing of it was written", page[4094], 0xaa);
    RUN("mov eax, [ebx]");
    check(trap.vector == X86_PF && trap.error == 0 && trap.cr2 == next,
          "%s load across: %u 0x%lx cr2 0x%lx", kind_name, trap.vector, trap.error,
          trap.cr2);
    check_eq("and eax is unchanged", trap.r.ax, 0x12345678);
    RUN("lock add [ebx], eax");
    check(trap.vector == X86_PF && trap.error == X86_PF_W && trap.cr2 == next,
          "%s locked rmw across: %u 0x%lx cr2 0x%lx", kind_name, trap.vector, trap.error,
          trap.cr2);
    /* Second page read-only. */
    ulong cr0 = read_cr0();
    write_cr0(cr0 | X86_CR0_WP);
    space_map(&s, next, (ulong)page2, X86_PTE_P | X86_PTE_U, 1);
    invlpg(next);
    RUN("mov [ebx], eax");
    check(trap.vector == X86_PF && trap.error == (X86_PF_W | X86_PF_P) &&
              trap.cr2 == next,
          "%s store across to read-only: %u 0x%lx cr2 0x%lx", kind_name, trap.vector,
          trap.error, trap.cr2);
    check_eq("nothing of it was written", page[4095], 0xaa);
    /* First page read-only, second missing: the first decides. */
    space_map(&s, TVA, (ulong)page, X86_PTE_P | X86_PTE_U, 1);
    space_map(&s, next, 0, 0, 1);
    invlpg(TVA);
    invlpg(next);
    RUN("mov [ebx], eax");
    check(trap.vector == X86_PF && trap.cr2 == in.bx && trap.error == 3,
          "%s store across, both bad: %u 0x%lx cr2 0x%lx", kind_name, trap.vector,
          trap.error, trap.cr2);
    write_cr0(cr0);
    /* Instruction fetch across: the whole instruction faults, CR2 is the second page. */
    space_map(&s, TVA, (ulong)page, RWU, 1);
    invlpg(TVA);
    page[4094] = 0xb8; /* mov eax, imm32 */
    regs_kernel();
    in.ax = 77;
    run((void *)(next - 2));
    check(trap.vector == X86_PF && trap.cr2 == next && trap.r.ip == next - 2 &&
              trap.r.ax == 77,
          "%s fetch across: %u cr2 0x%lx ip 0x%lx", kind_name, trap.vector, trap.cr2,
          trap.r.ip);
    /* Crossing into a page that is somewhere else. */
    space_map(&s, next, (ulong)page2, RWU, 1);
    invlpg(next);
    page[4095] = 0x11;
    page2[0] = 0x22, page2[1] = 0x33, page2[2] = 0x44;
    page2[3] = 0xcd, page2[4] = DONE;
    run((void *)(next - 2));
    check(trap.vector == DONE && trap.r.ax == 0x44332211, "%s code across: %u eax 0x%lx",
          kind_name, trap.vector, trap.r.ax);
    page[4092] = 1, page[4093] = 2, page[4094] = 3, page[4095] = 4;
    page2[0] = 5, page2[1] = 6, page2[2] = 7, page2[3] = 8;
    for (unsigned i = 1; i < 4; i++)
        check_eq("load across", *(volatile uint32_t *)(next - i),
                 0x08070605u << 8 * i | 0x04030201u >> (32 - 8 * i));
    for (unsigned i = 1; i < 4; i++) {
        *(volatile uint32_t *)(next - i) = 0xd4c3b2a1;
        uint32_t lo, hi;
        memcpy(&lo, page + 4092, 4);
        memcpy(&hi, page2, 4);
        check_eq("store across, low", lo >> (32 - 8 * i),
                 0xd4c3b2a1u & ((1u << 8 * i) - 1));
        check_eq("store across, high", hi & ((1u << (32 - 8 * i)) - 1),
                 0xd4c3b2a1u >> 8 * i);
    }
    check(space_get(&s, next, 1) & X86_PTE_D, "%s D of the second page", kind_name);
    space_map(&s, next, 0, 0, 1);
    invlpg(next);
}

static void invalidation(void) {
    volatile uint32_t *p = (volatile uint32_t *)TVA;
    *(uint32_t *)page = 1;
    *(uint32_t *)page2 = 2;
    leaf(RWU);
    check_eq("page 1", *p, 1);
    space_set(&s, TVA, 1, (ulong)page2 | RWU);
    invlpg(TVA);
    check_eq("page 2 after invlpg", *p, 2);
    space_set(&s, TVA, 1, (ulong)page | RWU);
    write_cr3(read_cr3());
    check_eq("page 1 after a CR3 load", *p, 1);
    write_cr4(read_cr4() | X86_CR4_PGE);
    space_set(&s, TVA, 1, (ulong)page2 | RWU | X86_PTE_G);
    invlpg(TVA);
    check_eq("global page 2", *p, 2);
    space_set(&s, TVA, 1, (ulong)page | RWU | X86_PTE_G);
    invlpg(TVA);
    check_eq("invlpg drops a global page", *p, 1);
    space_set(&s, TVA, 1, (ulong)page2 | RWU | X86_PTE_G);
    write_cr4(read_cr4() & ~(ulong)X86_CR4_PGE);
    check_eq("clearing PGE drops global pages", *p, 2);
    space_set(&s, TVA, 1, (ulong)page | RWU);
    write_cr4(read_cr4() | X86_CR4_PGE);
    check_eq("setting PGE drops all", *p, 1);
    write_cr4(read_cr4() & ~(ulong)X86_CR4_PGE);
    /* More rights need no invalidation: a fault's walk reads the tables anew. */
    leaf(X86_PTE_P | X86_PTE_U);
    (void)*p;
    space_set(&s, TVA, 1, (ulong)page | RWU);
    check(access(WRITE, true, TVA, 0) == DONE, "%s rights added without invlpg",
          kind_name);
    leaf(0);
    access(READ, true, TVA, 0);
    space_set(&s, TVA, 1, (ulong)page | RWU);
    check(access(READ, true, TVA, 0) == DONE,
          "%s made present without invlpg (no entry of absence is kept)", kind_name);
    check(access(WRITE, true, TVA, 0) == DONE, "%s and written", kind_name);
    /* A page taken away at an upper level. */
    (void)*p;
    uint64_t pde = space_get(&s, TVA, 2);
    space_set(&s, TVA, 2, 0);
    invlpg(TVA);
    check(access(READ, false, TVA, 0) == X86_PF, "%s table taken away", kind_name);
    space_set(&s, TVA, 2, pde);
    /* Tables edited through the very mapping that they make. */
    check_eq("back", *p, *(uint32_t *)page);
}

#ifdef __x86_64__
static void invpcid(ulong type, uint64_t pcid, uint64_t address) {
    uint64_t d[2] = {pcid, address};
    __asm__ volatile("invpcid %0, %1" ::"m"(d), "r"(type) : "memory");
}

static void pcids(void) {
    if (!cpu_has(1, REG_ECX, 17))
        return;
    bool has_invpcid = cpu_has(7, REG_EBX, 10);
    static uint64_t d[2];
    volatile uint32_t *p = (volatile uint32_t *)TVA;
    struct space b;
    ulong cr4 = read_cr4();
    space_new(&b, SPACE_LONG, RW);
    space_map(&b, UCODE, (ulong)ucode, RWU, 1);
    space_map(&b, TVA, (ulong)page2, RWU, 1);
    leaf(RWU);
    *(uint32_t *)page = 1;
    *(uint32_t *)page2 = 2;
    regs_kernel();
    in.ax = cr4 | X86_CR4_PCIDE;
    write_cr3(s.root | 8);
    RUN("mov cr4, rax");
    expect("PCIDE with a PCID in CR3", X86_GP, 0, 0);
    write_cr3(s.root);
    write_cr4(cr4 | X86_CR4_PCIDE);
    write_cr3(s.root | 1);
    check_eq("space 1", *p, 1);
    write_cr3(b.root | 2);
    check_eq("space 2", *p, 2);
    for (int i = 0; i < 3; i++) {
        write_cr3(s.root | 1 | X86_CR3_NOFLUSH);
        check_eq("space 1 without flush", *p, 1);
        check_eq("bit 63 does not stay", read_cr3(), s.root | 1);
        write_cr3(b.root | 2 | X86_CR3_NOFLUSH);
        check_eq("space 2 without flush", *p, 2);
    }
    /* A flushing load of a PCID drops that PCID's entries. */
    space_set(&s, TVA, 1, (ulong)page2 | RWU);
    write_cr3(s.root | 1);
    check_eq("flushing load", *p, 2);
    if (has_invpcid) {
        for (ulong type = 0; type < 4; type++) {
            leaf(RWU);
            check_eq("before invpcid", *p, 1);
            write_cr3(b.root | 2 | X86_CR3_NOFLUSH);
            check_eq("other", *p, 2);
            space_set(&s, TVA, 1, (ulong)page2 | RWU);
            invpcid(type, type < 2 ? 1 : 0, type ? 0 : TVA);
            write_cr3(s.root | 1 | X86_CR3_NOFLUSH);
            check(*p == 2, "invpcid type %u drops another PCID's entry", (unsigned)type);
        }
        regs_kernel();
        in.bx = (ulong)d;
        in.ax = 4;
        RUN("invpcid rax, [rbx]");
        expect("invpcid type 4", X86_GP, 0, 0);
        in.ax = 1;
        d[0] = 0x1000;
        RUN("invpcid rax, [rbx]");
        expect("invpcid reserved bits", X86_GP, 0, 0);
        in.ax = 0;
        d[0] = 1, d[1] = 1ul << 47;
        RUN("invpcid rax, [rbx]");
        expect("invpcid non-canonical", X86_GP, 0, 0);
        d[0] = d[1] = 0;
        at_user();
        in.bx = UCODE;
        run(user_copy(CODE("invpcid rax, [rbx]")));
        check(trap.vector == X86_GP, "invpcid at ring 3: %u", trap.vector);
    }
    /* A PCID used for another root: the flushing load makes it safe. */
    leaf(RWU);
    write_cr3(b.root | 1);
    check_eq("PCID 1 now names space 2", *p, 2);
    write_cr3(s.root);
    write_cr4(cr4);
    check_eq("PCIDE cleared", *p, 1);
}
#else
static void paging_toggle(void) {
    /* Off and on again: addresses are physical in between. */
    volatile uint32_t *p = (volatile uint32_t *)TVA;
    leaf(RWU);
    *p = 0x1234;
    paging_off();
    check_eq("physical", *(uint32_t *)page, 0x1234);
    space_set(&s, TVA, 1, (ulong)page2 | RWU);
    *(uint32_t *)page2 = 0x4321;
    space_load(&s);
    check_eq("paging on drops what was cached", *p, 0x4321);
    leaf(RWU);
    if (s.kind != SPACE_PAE)
        return;
    /* PDPTEs are read when CR3 is loaded, and checked. */
    volatile uint64_t *pdpt = (volatile uint64_t *)s.root;
    uint64_t old = pdpt[2];
    pdpt[2] = X86_PTE_P | X86_PTE_W; /* reserved in a PDPTE */
    regs_kernel();
    in.ax = s.root;
    RUN("mov cr3, eax");
    expect("CR3 load with a bad PDPTE", X86_GP, 0, 0);
    pdpt[2] = old;
    write_cr3(s.root);
    uint64_t one = pdpt[1];
    pdpt[1] = 0;
    write_cr3(s.root);
    access(READ, false, TVA, 0);
    expect_fault("PDPTE not present", READ, false, TVA, 0);
    pdpt[1] = one;
    write_cr3(s.root);
    check_eq("back", *p, *(uint32_t *)page);
}
#endif

static void implicit(void) {
    /* Descriptor and TSS reads are supervisor accesses even at ring 3; a fault while an
     * exception is being delivered has U clear and, on #PF for #PF, becomes #DF. */
    space_set(&s, UCODE + 0x1000, 1, 0);
    invlpg(UCODE + 0x1000);
    at_user();
    in.sp = UCODE + 0x1800; /* a user stack that is not there */
    run(user_copy(CODE("push " BITS("eax", "rax"))));
    check(trap.vector == X86_PF && trap.error == (X86_PF_U | X86_PF_W) &&
              trap.cr2 == UCODE + 0x1800 - sizeof(ulong) && trap.r.sp == in.sp,
          "%s push to no page: %u 0x%lx cr2 0x%lx", kind_name, trap.vector, trap.error,
          trap.cr2);
    run(user_copy(CODE("int 0x42")));
    check(trap.vector == 0x42, "%s int with a bad user stack: %u", kind_name,
          trap.vector);
    /* The ring-0 stack missing: #PF at delivery, then #DF; on IST or a task it could be
     * served. Here only the long-mode guest has an IST. */
#ifdef __x86_64__
    tss.rsp[0] = UCODE + 0x1800;
    idt[X86_DF].ist = 1;
    idt[X86_PF].ist = 1;
    run(user_copy(CODE("int 0x42")));
    check(
        trap.vector == X86_PF && trap.error == X86_PF_W && trap.cr2 == UCODE + 0x1800 - 8,
        "int to a missing stack: %u 0x%lx cr2 0x%lx", trap.vector, trap.error, trap.cr2);
    idt[X86_PF].ist = 0;
    run(user_copy(CODE("int 0x42")));
    check(trap.vector == X86_DF && trap.error == 0, "#PF on #PF: %u", trap.vector);
    idt_reset(X86_DF);
    tss.rsp[0] = (ulong)trap_stack + sizeof(trap_stack);
#endif
}

static void all(enum space_kind kind, const char *name) {
    kind_name = name;
    space_new(&s, kind, RW);
    nxe = kind != SPACE_32;
    page = page_alloc();
    page2 = page_alloc();
    ucode = page_alloc();
    space_map(&s, TVA, (ulong)page, RWU, 1);
    space_map(&s, UCODE, (ulong)ucode, RWU, 1);
    space_map(&s, UCODE + 0x1000, 0, 0, 1);
    space_map(&s, USTACK, (ulong)page_alloc(), RWU, 1);
    space_load(&s);
    matrix();
    not_present();
    reserved();
    accessed_dirty();
    large();
    crossing();
    invalidation();
#ifdef __x86_64__
    pcids();
#else
    paging_toggle();
#endif
    implicit();
}

void guest_main(void) {
    has_smep = cpu_has(7, REG_EBX, 7);
    has_smap = cpu_has(7, REG_EBX, 20);
#ifdef __x86_64__
    all(SPACE_LONG, "long");
#else
    wrmsr(X86_MSR_EFER, X86_EFER_NXE);
    all(SPACE_32, "32-bit");
    paging_off();
    all(SPACE_PAE, "PAE");
    paging_off();
#endif
}
