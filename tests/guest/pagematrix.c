/*
 * Page permissions with each restriction (no U, no W, NX) at each level of the tables,
 * for pages of every size; each access kind at CPL 0, 1 and 3, and the implicit accesses
 * of the processor to the GDT, IDT and TSS; WP, SMEP, SMAP and AC. Then each bit of the
 * entry at each level: reserved or not. Vector, error code, CR2, and accessed and dirty
 * bits at each level are compared with a model. (paging.c has the rest: invalidation,
 * PCIDs ...)
 *
 * The page under test begins at TVA. The page below it is good and holds the beginnings
 * of a GDT, an IDT and a TSS whose ends lie in the page under test.
 *
 * AMD64 APM volume 2, "Page-Protection Checks", "Page-Translation-Table Entry Fields";
 * Intel SDM volume 3, "Determination of Access Rights", "Page-Fault Exceptions".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

/* The first page of a top-level entry of its own (PAE: of a page-directory pointer). */
#define TVA BITS(0x40000000ul, 0x8000000000ul)
#define EXPLICIT (TVA + 0x800)
#define UCODE 0x30000000ul
#define USTACK 0x30001000ul
#define RET 0xc3
#define RING1 FREE_SEL /* code, data of level 1 */
#define MAP_TSS (FREE_SEL + 16)
#define TSS_HEAD 104u
#define FIRST_VECTOR 0xe0u /* of those whose gates lie in the page under test */
#define GATE BITS(8u, 16u)
#define FAR_SEL 0x1000u /* its descriptor is the first in the page */

enum access { READ, WRITE, EXEC, GDT_READ, GDT_WRITE, IDT_READ, MAP_READ, ACCESSES };

static const char *const access_name[] = {
    "read", "write", "fetch", "GDT read", "GDT write", "IDT read", "I/O bitmap read"};

static struct space s;
static const char *kind_name;
static int top, leaf_level; /* levels that have permissions: leaf_level to top */
static uint8_t *page, *below, *ucode;
static uint64_t entry[5];        /* by level, without restrictions */
static bool nxe, wp, smep, smap; /* as they are set */
static unsigned cases;

/* --- tables that reach into the page under test --- */

struct table_register {
    uint16_t limit;
    ulong base;
} __attribute__((packed));

static struct table_register own_gdt, own_idt;

static void tables_install(void) {
    struct table_register g = {8191, TVA - 4096},
                          i = {256 * GATE - 1, TVA - FIRST_VECTOR * GATE};
    uint64_t *copy = (uint64_t *)below;

    __asm__ volatile("sgdt %0" : "=m"(own_gdt));
    __asm__ volatile("sidt %0" : "=m"(own_idt));
    memcpy(below, gdt, sizeof(gdt));
    memcpy(below + 4096 - FIRST_VECTOR * GATE, idt, FIRST_VECTOR * GATE);
    memcpy(below + 4096 - TSS_HEAD, &tss, TSS_HEAD);
    *(uint16_t *)(below + 4094) = TSS_HEAD;
    copy[MAP_TSS / 8] =
        seg_desc((uint32_t)(TVA - TSS_HEAD), TSS_HEAD + 0x20, X86_AR_P | X86_DESC_TSS32);
    copy[MAP_TSS / 8 + 1] = (uint64_t)TVA >> 32;
    if (LONG_MODE) /* the base goes over 4 GiB, less 104 bytes */
        copy[MAP_TSS / 8 + 1] = (uint64_t)(TVA - TSS_HEAD) >> 32;
    __asm__ volatile("lgdt %0" ::"m"(g));
    __asm__ volatile("lidt %0" ::"m"(i));
    __asm__ volatile("ltr %w0" ::"r"(MAP_TSS));
}

static void tables_remove(void) {
    gdt[TSS_SEL >> 3] &= ~(2ull << 40);
    __asm__ volatile("lgdt %0" ::"m"(own_gdt));
    __asm__ volatile("lidt %0" ::"m"(own_idt));
    __asm__ volatile("ltr %w0" ::"r"(TSS_SEL));
}

/* What the page is filled with: a RET, two data descriptors of which one is accessed, a
 * gate, and a bitmap that allows port 0x80. */
static void page_fill(void) {
    const unsigned data =
        X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_DB | X86_AR_G | X86_AR_DPL;

    page[EXPLICIT & 0xfff] = RET;
    ((uint64_t *)page)[0] = seg_desc(0, ~0u, data | X86_AR_ACCESSED);
    ((uint64_t *)page)[1] = seg_desc(0, ~0u, data);
    page[0x10] = page[0x11] = 0;
    memcpy(page + 16 * GATE, &idt[0xf0], GATE);
}

/* --- one access --- */

static unsigned access(enum access a, unsigned cpl, bool ac) {
    static void *code[ACCESSES];

    code[READ] = CODE("mov al, [" BITS("ebx", "rbx") "]");
    code[WRITE] = CODE("mov [" BITS("ebx", "rbx") "], al");
    code[EXEC] = CODE("call " BITS("ebx", "rbx"));
    code[GDT_READ] = code[GDT_WRITE] = CODE("mov es, ecx");
    code[IDT_READ] = CODE("int 0xf0");
    code[MAP_READ] = CODE("in al, 0x80");
    page_fill();
    if (cpl == 3) {
        regs_user();
        in.sp = USTACK + 0x800;
        memcpy(ucode, code[a], CODE_LEN(code[a]));
        code[a] = (void *)UCODE;
    } else {
        regs_kernel();
        if (cpl == 1) {
            in.cs = RING1 + 1;
            in.ss = in.ds = in.es = RING1 + 8 + 1;
            in.sp = (ulong)user_stack + 4096;
        }
    }
    in.ax = RET;
    in.bx = EXPLICIT;
    in.cx = FAR_SEL + (a == GDT_WRITE ? 8 : 0);
    if (ac)
        in.flags |= X86_FL_AC;
    run(code[a]);
    return a == IDT_READ && trap.vector == 0xf0 ? DONE : trap.vector;
}

static bool implicit(enum access a) {
    return a >= GDT_READ;
}

static ulong address_of(enum access a) {
    switch (a) {
    case GDT_READ:
        return TVA;
    case GDT_WRITE:
        return TVA + 8;
    case IDT_READ:
        return TVA + 16 * GATE;
    case MAP_READ:
        return TVA + 0x10;
    default:
        return EXPLICIT;
    }
}

static ulong error_of(enum access a, unsigned cpl, ulong error) {
    if (a == WRITE)
        error |= X86_PF_W;
    if (a == EXEC && (nxe || smep))
        error |= X86_PF_I;
    if (cpl == 3 && !implicit(a))
        error |= X86_PF_U;
    return error;
}

/* The processor may report a write that starts at any byte of what it touches. */
static bool cr2_good(enum access a, ulong cr2) {
    ulong at = address_of(a);

    if (a == GDT_WRITE && (trap.error & X86_PF_W))
        return cr2 >= at && cr2 < at + 8;
    return cr2 == at;
}

/* --- permissions --- */

struct rights {
    int no_user, no_write, nx; /* the level that restricts, or 0 */
};

static void entries_set(const struct rights *r) {
    for (int l = top; l >= leaf_level; l--) { /* down: entries lead to each other */
        uint64_t e = entry[l];

        if (r->no_user == l)
            e &= ~X86_PTE_U;
        if (r->no_write == l)
            e &= ~X86_PTE_W;
        if (r->nx == l)
            e |= X86_PTE_NX;
        space_set(&s, TVA, l, e);
    }
    invlpg(TVA);
}

/* A at each level and D at the last, if the access went well. */
static bool bits_good(bool good, bool written) {
    for (int l = leaf_level; l <= top; l++) {
        uint64_t e = space_get(&s, TVA, l);

        if (good && !(e & X86_PTE_A))
            return false;
        if (l == leaf_level ? !(e & X86_PTE_D) == (good && written)
                            : (e & X86_PTE_D) != 0)
            return false;
    }
    return true;
}

static void rights_case(const struct rights *r, enum access a, unsigned cpl, bool ac) {
    bool user = !r->no_user, super = cpl != 3 || implicit(a), good = true;
    bool writes = a == WRITE || a == GDT_WRITE;
    ulong error = error_of(a, cpl, X86_PF_P);
    unsigned v;
    bool ok;

    if (a == EXEC) {
        good = !r->nx && (super ? !(smep && user) : user);
    } else if (!super) {
        good = user && (a == READ || !r->no_write);
    } else if (smap && user && !(ac && !implicit(a))) {
        good = false;
    } else if (writes && r->no_write && wp) {
        good = false;
        error |= X86_PF_W;
    }
    entries_set(r);
    v = access(a, cpl, ac);
    ok = good ? v == DONE
              : v == X86_PF && trap.error == error && cr2_good(a, trap.cr2) &&
                    (a == EXEC ? trap.r.ip == EXPLICIT : trap.r.ip == in.ip);
    ok = ok && bits_good(good, writes);
    cases++;
    digest_add(v);
    digest_add(trap.error);
    check(
        ok,
        "%s leaf %d, %s, CPL %u, no U at %d, no W at %d, NX at %d, WP %u SMEP %u SMAP %u "
        "AC %u: vector %u error 0x%lx cr2 0x%lx leaf 0x%llx, want %s 0x%lx",
        kind_name, leaf_level, access_name[a], cpl, r->no_user, r->no_write, r->nx, wp,
        smep, smap, ac, v, trap.error, trap.cr2,
        (unsigned long long)space_get(&s, TVA, leaf_level), good ? "none" : "#PF", error);
}

static void rights_each(const struct rights *r) {
    static const uint8_t cpls[] = {0, 1, 3};

    for (unsigned c = 0; c < COUNT(cpls); c++)
        for (unsigned ac = 0; ac < 2; ac++)
            for (unsigned a = 0; a < ACCESSES; a++) {
                if (implicit((enum access)a) && (r->nx || cpls[c] == 1))
                    continue;
                if (a == MAP_READ && cpls[c] == 0)
                    continue; /* looks at no bitmap */
                if (cpu_is_tcg() && smap && ac && implicit((enum access)a))
                    continue; /* TCG asks AC here too */
                rights_case(r, (enum access)a, cpls[c], ac);
            }
}

static void rights_all(void) {
    ulong cr0 = read_cr0(), cr4 = read_cr4();

    for (unsigned mode = 0; mode < 8; mode++) {
        wp = mode & 1;
        smep = mode & 2;
        smap = mode & 4;
        if ((smep && !cpu_has(7, REG_EBX, 7)) || (smap && !cpu_has(7, REG_EBX, 20)))
            continue;
        write_cr0(wp ? cr0 | X86_CR0_WP : cr0 & ~(ulong)X86_CR0_WP);
        write_cr4(cr4 | (smep ? X86_CR4_SMEP : 0) | (smap ? X86_CR4_SMAP : 0));
        for (int u = leaf_level - 1; u <= top; u++)
            for (int w = leaf_level - 1; w <= top; w++)
                for (int x = leaf_level - 1; x <= (nxe ? top : leaf_level - 1); x++) {
                    struct rights r = {u < leaf_level ? 0 : u, w < leaf_level ? 0 : w,
                                       x < leaf_level ? 0 : x};
                    rights_each(&r);
                }
    }
    write_cr0(cr0);
    write_cr4(cr4);
    smep = smap = false;
    wp = cr0 & X86_CR0_WP;
}

/* --- each bit of each entry --- */

static unsigned phys_bits(void) {
    uint32_t r[4];

    cpuid(0x80000008, 0, r);
    return r[0] & 0xff;
}

enum bit_kind { IGNORED, RESERVED, ADDRESS };

static enum bit_kind bit_kind(int level, unsigned bit) {
    bool leaf = level == leaf_level, pae = s.kind != SPACE_32;
    unsigned phys = phys_bits(),
             size = s.kind == SPACE_32 ? 22 : 12 + 9 * (unsigned)(level - 1);

    if (bit == 63)
        return nxe ? IGNORED : RESERVED; /* for a read */
    if (s.kind == SPACE_PAE && bit >= 52)
        return RESERVED;
    if (pae && bit >= phys && bit < 52)
        return RESERVED;
    if (bit == 7 && s.kind == SPACE_LONG && level == 4)
        return RESERVED;
    if (bit == 8 && s.kind == SPACE_LONG && level >= 3 && !leaf)
        return cpu_is_amd() && !cpu_is_tcg() ? RESERVED : IGNORED;
    if (leaf && level > 1 && !pae) /* PSE-36: address bits from 32 on lie at 13 */
        return bit < 13                                          ? IGNORED
               : bit < 22 && bit >= (phys < 40 ? phys : 40) - 19 ? RESERVED
                                                                 : ADDRESS;
    if (leaf && level > 1 && bit > 12 && bit < size)
        return RESERVED;
    if (bit < 12 || (leaf && level > 1 && bit == 12) || bit >= 52)
        return IGNORED;
    return ADDRESS;
}

static void bit_case(int level, uint64_t e, bool reserved, enum access a, unsigned cpl,
                     const char *what, unsigned bit) {
    struct rights none = {0, 0, 0};
    /* TCG's error code has no P. */
    ulong error = error_of(a, cpl, (cpu_is_tcg() ? 0 : X86_PF_P) | X86_PF_RSVD);
    unsigned v;
    bool ok;

    entries_set(&none);
    space_set(&s, TVA, level, e);
    invlpg(TVA);
    v = access(a, cpl, true);
    ok = reserved ? v == X86_PF && trap.error == error && trap.cr2 == address_of(a)
                  : v == DONE;
    cases++;
    digest_add(v);
    digest_add(trap.error);
    check(ok,
          "%s leaf %d, level %d, %s %u (0x%llx), %s at CPL %u: vector %u error 0x%lx, "
          "want %s",
          kind_name, leaf_level, level, what, bit, (unsigned long long)e, access_name[a],
          cpl, v, trap.error, reserved ? "RSVD" : "none");
    entries_set(&none);
}

static void bits_of(int level) {
    for (unsigned bit = 3; bit < (s.kind == SPACE_32 ? 32 : 64); bit++) {
        enum bit_kind kind = bit_kind(level, bit);
        uint64_t e = entry[level] | 1ull << bit;

        /* PS is what makes a leaf; at level 1 it is the PAT's. */
        if (kind == ADDRESS ||
            (bit == 7 && level > 1 && !(s.kind == SPACE_LONG && level == 4)))
            continue;
        for (unsigned a = 0; a < ACCESSES; a++) {
            bool reserved = kind == RESERVED;

            if (a == EXEC && bit == 63 && nxe)
                continue;
            bit_case(level, e, reserved, (enum access)a, 3, "bit", bit);
            if (!implicit((enum access)a))
                bit_case(level, e, reserved, (enum access)a, 0, "bit", bit);
        }
    }
}

/* Which of two defects at two levels is told: the upper one, but a reserved bit wins over
 * rights, which are looked at last. */
static void order(int upper, int lower) {
    uint64_t bad = s.kind == SPACE_32 ? 0 : 1ull << phys_bits();
    struct rights none = {0, 0, 0};
    unsigned v;

    if (!bad || cpu_is_tcg())
        return;
    for (unsigned k = 0; k < 3; k++) {
        ulong error = X86_PF_U | X86_PF_W | (k == 0 ? 0 : X86_PF_P | X86_PF_RSVD);
        uint64_t high = k == 0   ? entry[upper] & ~X86_PTE_P
                        : k == 1 ? entry[upper] | bad
                                 : entry[upper] & ~(X86_PTE_U | X86_PTE_W);
        uint64_t low = k == 1 ? entry[lower] & ~X86_PTE_P : entry[lower] | bad;

        entries_set(&none);
        space_set(&s, TVA, lower, low);
        space_set(&s, TVA, upper, high);
        invlpg(TVA);
        v = access(WRITE, 3, false);
        cases++;
        check(v == X86_PF && trap.error == error,
              "%s: defects %u at levels %d and %d: vector %u error 0x%lx, want 0x%lx",
              kind_name, k, upper, lower, v, trap.error, error);
    }
    entries_set(&none);
}

/* Not present, with everything else that an entry could have set: nothing reserved. */
static void absent(int level) {
    struct rights none = {0, 0, 0};

    for (unsigned a = 0; a < ACCESSES; a++)
        for (unsigned cpl = implicit((enum access)a) ? 3 : 0; cpl < 4; cpl += 3)
            for (unsigned k = 0; k < 2; k++) {
                ulong error = error_of((enum access)a, cpl, 0);
                unsigned v;

                entries_set(&none);
                space_set(&s, TVA, level, k ? ~1ull : entry[level] & ~X86_PTE_P);
                invlpg(TVA);
                v = access((enum access)a, cpl, false);
                cases++;
                check(v == X86_PF && trap.error == error &&
                          trap.cr2 == address_of((enum access)a),
                      "%s level %d absent, %s at CPL %u: vector %u error 0x%lx cr2 0x%lx",
                      kind_name, level, access_name[a], cpl, v, trap.error, trap.cr2);
            }
    entries_set(&none);
}

/* --- all of it, for one kind of tables and size of page --- */

static void all(enum space_kind kind, int leaf, const char *name) {
    ulong phys;

    kind_name = name;
    leaf_level = leaf;
    nxe = kind != SPACE_32;
    space_new(&s, kind, RW);
    top = kind == SPACE_LONG ? 4 : 2;
    page = leaf == 1 ? page_alloc() : leaf == 2 ? (uint8_t *)0x3000000 : (uint8_t *)0;
    phys = (ulong)page;
    below = page_alloc();
    ucode = page_alloc();
    space_map(&s, TVA, phys, RWU, leaf);
    space_map(&s, TVA - 4096, (ulong)below, RW, 1);
    space_map(&s, UCODE, (ulong)ucode, RWU, 1);
    space_map(&s, USTACK, (ulong)page_alloc(), RWU, 1);
    for (int l = leaf; l <= top; l++)
        entry[l] = space_get(&s, TVA, l);
    space_load(&s);
    tables_install();
    rights_all();
    for (int l = leaf; l <= top; l++) {
        bits_of(l);
        absent(l);
        for (int u = l + 1; u <= top; u++)
            order(u, l);
    }
    if (nxe) {
        uint64_t efer = rdmsr(X86_MSR_EFER);

        wrmsr(X86_MSR_EFER, efer & ~(uint64_t)X86_EFER_NXE);
        nxe = false;
        for (int l = leaf; l <= top; l++)
            bits_of(l);
        wrmsr(X86_MSR_EFER, efer);
    }
    tables_remove();
}

void guest_main(void) {
    const unsigned data = X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED |
                          X86_AR_DB | X86_AR_G | 1u << 5;
    unsigned code = LONG_MODE ? (data & ~X86_AR_DB) | X86_AR_L : data;

    gdt_set(RING1, seg_desc(0, ~0u, code | X86_AR_CODE));
    gdt_set(RING1 + 8, seg_desc(0, ~0u, data));
    wrmsr(X86_MSR_EFER, rdmsr(X86_MSR_EFER) | X86_EFER_NXE);
#ifdef __x86_64__
    all(SPACE_LONG, 1, "long");
    all(SPACE_LONG, 2, "long");
    if (cpu_has(0x80000001, REG_EDX, 26))
        all(SPACE_LONG, 3, "long");
#else
    all(SPACE_32, 1, "32-bit");
    paging_off();
    all(SPACE_32, 2, "32-bit");
    paging_off();
    all(SPACE_PAE, 1, "PAE");
    paging_off();
    all(SPACE_PAE, 2, "PAE");
    paging_off();
#endif
    printf("%u cases\n", cases);
    digest_print();
}
