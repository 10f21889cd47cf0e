/*
 * The engines: a guest whose page tables map a case's pages where the host's child has
 * them, and whose every interrupt gate leads to a HLT at CPL 0. The descriptor table is
 * Linux's, as LAR and LSL show it, so that selectors mean the same.
 *
 * The case's pages lie scattered in RAM: none is a neighbour of another one, the first
 * and the last page of RAM are among them, and what lies between is filled with a pattern
 * that must not change and that no case may see. So an access that goes on behind its
 * page finds other bytes than the next page's, or leaves RAM.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "cpu/vec.h"
#include "fidelity.h"
#include "lib/guest.h"
#include "x86/desc.h"
#include "x86/pte.h"

enum {
    RAM = 4 << 20,
    TABLES = 0x100000,
    PML4 = TABLES,
    PDPT = TABLES + 0x1000,   /* the lowest 512 GiB */
    PDPT_K = TABLES + 0x2000, /* the highest */
    PD_0 = TABLES + 0x3000,
    PD_3 = TABLES + 0x4000,
    PD_4 = TABLES + 0x5000,
    PD_K = TABLES + 0x6000,
    PT_CODE = TABLES + 0x7000,
    PT_DATA = TABLES + 0x8000,
    PT_TOP = TABLES + 0x9000,
    PT_4G = TABLES + 0xa000,
    PT_K = TABLES + 0xb000,
    SYSTEM = TABLES + 0x10000, /* pages at SYSTEM_VA: GDT and TSS, IDT, handlers, stack */
    OWN_END = TABLES + 0x20000,
    STEPS = 200000,
    EMPTY = 0x1000, /* bytes of pattern beside a page that each case is asked about */
};
#define SYSTEM_VA 0xffffffff80000000ull
#define GDT_VA SYSTEM_VA
#define TSS_VA (SYSTEM_VA + 0x400)
#define IDT_VA (SYSTEM_VA + 0x1000)
#define HANDLERS (SYSTEM_VA + 0x2000)
#define EXC_STACK (SYSTEM_VA + 0x4000) /* top */
#define GDT_ENTRIES 16u

const struct fid_page fid_pages[FID_PAGES] = {
    {FID_DATA, true},           {FID_DATA + 0x1000, true}, {FID_DATA + 0x3000, true},
    {FID_DATA + 0x4000, false}, {FID_DATA + 0x6000, true}, {FID_TOP, true},
    {FID_TOP + 0x1000, true},
};

/* Where the case's pages lie: descending where the case's addresses ascend, so that going
 * on in the one direction is never right by chance in the other. */
static const uint32_t data_at[FID_PAGES] = {
    RAM - 0x1000, 0, 0x58000, 0x50000, 0x48000, 0x68000, 0x60000,
};
static const uint32_t code_at[FID_CODE_SIZE / 4096] = {0x78000, 0x70000};

static uint8_t pattern[RAM]; /* what RAM holds where no case has anything */

struct fid_guest {
    struct guest vm;
    struct bt_options opt;
    char name[64];
    uint32_t mxcsr_mask; /* the host's */
    unsigned code_len;   /* of the program in place */
    uint64_t code_at;
    unsigned dirty; /* pages that are not what the program begins with */
};

static void on_exit_hook(void *arg, struct vcpu *v, struct exit *e) {
    vec_park(v);
}

static int on_irq_ack(void *arg) {
    return -1;
}

static uint64_t on_tsc(void *arg) {
    return 1;
}

static const struct vcpu_hooks hooks = {
    .exit = on_exit_hook, .irq_ack = on_irq_ack, .tsc = on_tsc};

static uint64_t descriptor(unsigned n) {
    uint32_t sel = n * 8 + 3, ar = 0, limit = 0;
    uint8_t ok;

    __asm__("lar %2,%0\nsetz %1" : "+r"(ar), "=q"(ok) : "r"(sel) : "cc");
    if (!ok)
        return 0;
    __asm__("lsl %1,%0" : "+r"(limit) : "r"(sel) : "cc");
    if (ar & 0x800000)
        limit >>= 12;
    return (limit & 0xffff) | (uint64_t)(limit & 0xf0000) << 32 |
           (uint64_t)(ar & 0xf0ff00) << 32;
}

/* --- what lies beside the case's pages --- */

static void make_pattern(struct fid_guest *g) {
    for (unsigned at = 0; !pattern[RAM - 1] && at < RAM; at += 8) {
        uint64_t x = (at + 8) * 0x9e3779b97f4a7c15ull;

        x ^= x >> 29;
        memcpy(pattern + at, &x, 8);
    }
    pattern[RAM - 1] = 0xa5;
    memcpy(g->vm.ram, pattern, RAM);
    memset(g->vm.ram + TABLES, 0, OWN_END - TABLES);
}

/* FROM up to TO is as it was; puts it back if not. */
static bool untouched(struct fid_guest *g, uint32_t from, uint32_t to) {
    if (!memcmp(g->vm.ram + from, pattern + from, to - from))
        return true;
    memcpy(g->vm.ram + from, pattern + from, to - from);
    return false;
}

static bool beside_untouched(struct fid_guest *g, uint32_t page) {
    bool ok = true;

    if (page)
        ok &= untouched(g, page - EMPTY, page);
    if (page + 0x1000 < RAM)
        ok &= untouched(g, page + 0x1000, page + 0x1000 + EMPTY);
    return ok;
}

static bool all_beside_untouched(struct fid_guest *g) {
    bool ok = true;

    for (unsigned k = 0; k < FID_PAGES; k++)
        ok &= beside_untouched(g, data_at[k]);
    for (unsigned k = 0; k < ARRAY_SIZE(code_at); k++)
        ok &= beside_untouched(g, code_at[k]);
    return ok;
}

static bool is_pattern(uint32_t page) {
    for (unsigned k = 0; k < FID_PAGES; k++)
        if (page == data_at[k])
            return false;
    for (unsigned k = 0; k < ARRAY_SIZE(code_at); k++)
        if (page == code_at[k])
            return false;
    return page < TABLES || page >= OWN_END;
}

bool fid_guest_untouched(struct fid_guest *g) {
    bool ok = true;

    for (uint32_t page = 0; page < RAM; page += 0x1000)
        if (is_pattern(page))
            ok &= untouched(g, page, page + 0x1000);
    return ok;
}

static void make_tables(struct fid_guest *g) {
    static const uint64_t all = X86_PTE_P | X86_PTE_W | X86_PTE_U | X86_PTE_A;
    static const uint64_t nx = 1ull << 63, d = X86_PTE_D;

    guest_put64(&g->vm, PML4, PDPT | all);
    guest_put64(&g->vm, PML4 + 8 * 511, PDPT_K | all);
    guest_put64(&g->vm, PDPT, PD_0 | all);
    guest_put64(&g->vm, PDPT + 8 * 3, PD_3 | all);
    guest_put64(&g->vm, PDPT + 8 * 4, PD_4 | all);
    guest_put64(&g->vm, PDPT_K + 8 * 510, PD_K | all);
    guest_put64(&g->vm, PD_0 + 8 * (FID_CODE >> 21), PT_CODE | all);
    guest_put64(&g->vm, PD_0 + 8 * (FID_DATA >> 21), PT_DATA | all);
    guest_put64(&g->vm, PD_3 + 8 * 511, PT_TOP | all);
    guest_put64(&g->vm, PD_4, PT_4G | all);
    guest_put64(&g->vm, PD_K, PT_K | all);
    for (unsigned k = 0; k < 2; k++)
        guest_put64(&g->vm, PT_CODE + 8 * k, code_at[k] | (all & ~X86_PTE_W));
    for (unsigned k = 0; k < 4; k++)
        guest_put64(&g->vm, PT_K + 8 * k,
                    (SYSTEM + 0x1000 * k) | ((all | d) & ~(uint64_t)X86_PTE_U));
    for (unsigned k = 0; k < FID_PAGES; k++) {
        uint64_t at = fid_pages[k].at;
        uint64_t pt = at >= FID_TOP + 0x1000 ? PT_4G : at >= FID_TOP ? PT_TOP : PT_DATA;
        uint64_t flags = fid_pages[k].write ? all | d : all & ~X86_PTE_W;

        guest_put64(&g->vm, pt + 8 * (at >> 12 & 511), data_at[k] | flags | nx);
    }
}

static void make_system(struct fid_guest *g) {
    for (unsigned n = 0; n < GDT_ENTRIES; n++)
        guest_put64(&g->vm, SYSTEM + 8 * n, descriptor(n));
    /* For the gates: Linux's own code segment, which CPL 3 cannot see. */
    guest_put64(&g->vm, SYSTEM + 0x10, 0x00af9b000000ffff);
    guest_put64(&g->vm, SYSTEM + 0x18, 0x00cf93000000ffff);
    for (unsigned n = 0; n < 256; n++) {
        uint64_t to = HANDLERS + n, dpl = n == 3 || n == 4 ? 0x6000 : 0;

        guest_put64(&g->vm, SYSTEM + 0x1000 + 16 * n,
                    (to & 0xffff) | 0x10ull << 16 | (0x8e01ull | dpl) << 32 |
                        (to >> 16 & 0xffff) << 48);
        guest_put64(&g->vm, SYSTEM + 0x1000 + 16 * n + 8, to >> 32);
    }
    memset(g->vm.ram + SYSTEM + 0x2000, 0xf4, 256);
    guest_put64(&g->vm, SYSTEM + 0x400 + 36, EXC_STACK); /* IST1 */
    guest_put64(&g->vm, SYSTEM + 0x400 + 4, EXC_STACK);
    memset(g->vm.ram + SYSTEM + 0x400 + 102, 0xff, 2); /* no I/O permission map */
}

static void start_cpu(struct fid_guest *g) {
    struct vcpu *v = g->vm.v;

    make_pattern(g);
    make_tables(g);
    make_system(g);
    v->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP |
             X86_CR0_AM;
    v->cr4 = X86_CR4_PAE | X86_CR4_FSGSBASE | X86_CR4_DE | X86_CR4_OSFXSR |
             X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    v->cr4 &= cpuid_cr4_valid(v->cpuid);
    memcpy(&g->mxcsr_mask, v->vec + 28, 4);
    v->xcr0 = cpuid_xcr0_valid(v->cpuid);
    v->cr3 = PML4;
    v->efer = X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE | X86_EFER_SCE;
    v->gdtr = (struct desc_table){GDT_VA, GDT_ENTRIES * 8 - 1};
    v->idtr = (struct desc_table){IDT_VA, 0xfff};
    v->tr = (struct segment){.sel = 0x40, .ar = 0x8b, .limit = 0x67, .base = TSS_VA};
    v->ldtr = (struct segment){0};
    v->seg[SEG_CS].ar = 0xa0fb;
    vcpu_update_mode(v);
    mmu_mode_changed(v);
    mmu_flush_all(v);
}

int fid_guest_new(const char *options, struct fid_guest **out) {
    struct guest_config cfg = {.ram = RAM,
                               .policy = MMU_PCID,
                               .cpuid = {.model = "host"},
                               .hooks = &hooks,
                               .interp = true};
    struct fid_guest *g = calloc(1, sizeof(*g));
    char why[128];

    if (!g)
        return -ENOMEM;
    g->opt = bt_defaults();
    if (options && *options && bt_options_parse(&g->opt, options, why, sizeof(why))) {
        fprintf(stderr, "fidelity: %s\n", why);
        free(g);
        return -EINVAL;
    }
    cfg.bt = options ? &g->opt : NULL;
    guest_new(&g->vm, &cfg);
    start_cpu(g);
    snprintf(g->name, sizeof(g->name), "%s%s%s", options ? "bt" : "interp",
             options && *options ? " " : "", options ? options : "");
    *out = g;
    return 0;
}

void fid_guest_free(struct fid_guest *g) {
    guest_free(&g->vm);
    free(g);
}

const char *fid_guest_name(const struct fid_guest *g) {
    return g->name;
}

bool fid_guest_is_bt(const struct fid_guest *g) {
    return g->vm.bt;
}

bool fid_guest_live_flags(const struct fid_guest *g) {
    return g->vm.bt && g->opt.tr.liveness;
}

bool fid_guest_offers(const struct fid_guest *g, const struct insn *i) {
    return i->op != OP_invalid &&
           cpuid_has(g->vm.v->cpuid, (enum cpuid_feature)i->feature);
}

uint8_t *fid_guest_page(struct fid_guest *g, unsigned k) {
    return g->vm.ram + data_at[k];
}

/* The program's bytes, which may lie across the two pages of code. */
static void put_code(struct fid_guest *g, uint64_t at, const uint8_t *b, unsigned len) {
    while (len) {
        unsigned n = 4096 - (unsigned)(at & 4095);

        n = n < len ? n : len;
        mem_write(g->vm.v->mem, gpa(code_at[at >> 12] + (at & 4095)), b, n);
        at += n;
        b += n;
        len -= n;
    }
}

void fid_guest_program(struct fid_guest *g, const struct program *p) {
    uint8_t hlts[FID_CODE_MAX];

    g->dirty = ~0u;
    memset(hlts, 0xf4, sizeof(hlts));
    if (!g->code_len) { /* the first one: everything */
        for (unsigned k = 0; k < ARRAY_SIZE(code_at); k++)
            mem_fill(g->vm.ram + code_at[k], 0xf4, 4096);
    } else {
        put_code(g, g->code_at, hlts, g->code_len);
    }
    g->code_at = p->base - FID_CODE;
    g->code_len = p->len;
    put_code(g, g->code_at, p->code, p->len);
}

static void load(struct fid_guest *g, const struct program *p, const struct state *s,
                 const uint8_t *mem) {
    static const struct segment data = {.sel = 0x2b, .ar = 0xc0f3, .limit = 0xffffffff};
    struct vcpu *v = g->vm.v;

    for (unsigned k = 0; k < FID_PAGES; k++)
        if (g->dirty >> k & 1)
            memcpy(g->vm.ram + data_at[k], mem + 4096 * k, 4096);
    memset(g->vm.ram + SYSTEM + 0x3fc0, 0, 64);
    memcpy(v->gpr, s->gpr, 16 * 8);
    memcpy(v->vec, s->image, FID_IMAGE);
    memcpy(v->vec + 28, &g->mxcsr_mask, 4);
    v->rip = p->base;
    v->rflags = s->rflags | X86_FL_IF;
    for (unsigned n = 0; n < SEG_COUNT; n++)
        v->seg[n] = data;
    v->seg[SEG_FS].base = s->fs_base;
    v->seg[SEG_GS].base = s->gs_base;
    v->seg[SEG_CS].sel = p->mode == MODE_64 ? 0x33 : 0x23;
    v->seg[SEG_CS].ar = p->mode == MODE_64 ? 0xa0fb : 0xc0fb;
    v->cpl = 3;
    v->halted = v->irq_shadow = v->nmi_blocked = false;
    v->pending_db = 0;
    v->fault = (struct fault){0};
    v->dr[6] = 0xffff0ff0;
    v->cr2 = 0;
    memcpy(&v->fip, s->image + 8, 8);
    memcpy(&v->fdp, s->image + 16, 8);
    memcpy(&v->fop, s->image + 6, 2);
    v->fcs = v->fds = 0;
    vcpu_update_mode(v);
    mmu_context_changed(v);
}

static void take(struct fid_guest *g, const uint8_t *mem, struct outcome *o) {
    struct vcpu *v = g->vm.v;
    uint64_t sp = v->gpr[REG_RSP], h = 0, frame[6];
    unsigned size = (unsigned)(EXC_STACK - sp);

    memset(o, 0, sizeof(*o));
    memcpy(o->gpr, v->gpr, 16 * 8);
    o->vector = (uint8_t)(v->rip - 1 - HANDLERS);
    o->end = size == 40 || size == 48 ? FID_EXCEPTION : FID_SHUTDOWN;
    if (o->end == FID_EXCEPTION) {
        memcpy(frame, g->vm.ram + SYSTEM + 0x4000 - size, size);
        o->error = size == 48 ? frame[0] : 0;
        memmove(frame, frame + (size == 48), 40);
        o->rip = frame[0];
        o->sel[SEG_CS] = (uint16_t)frame[1];
        o->rflags = frame[2];
        o->gpr[REG_RSP] = frame[3];
        o->sel[SEG_SS] = (uint16_t)frame[4];
    }
    o->cr2 = o->vector == X86_PF ? v->cr2 : 0;
    for (unsigned n = 0; n < SEG_COUNT; n++)
        if (n != SEG_CS && n != SEG_SS)
            o->sel[n] = v->seg[n].sel;
    o->fs_base = v->seg[SEG_FS].base;
    o->gs_base = v->seg[SEG_GS].base;
    memcpy(o->image, v->vec, FID_IMAGE);
    memcpy(o->image + 6, &v->fop, 2);
    memcpy(o->image + 8, &v->fip, 8);
    memcpy(o->image + 16, &v->fdp, 8);
    g->dirty = 0;
    for (unsigned k = 0; k < FID_PAGES; k++)
        if (fid_page_changed(k, g->vm.ram + data_at[k], mem + 4096 * k, &h))
            g->dirty |= 1u << k;
    o->memory = h;
    o->beyond = !all_beside_untouched(g);
}

void fid_guest_run(struct fid_guest *g, const struct program *p, const struct state *s,
                   const uint8_t *mem, struct outcome *o) {
    enum exit_reason why;

    load(g, p, s, mem);
    why = g->vm.bt ? guest_run(&g->vm) : interp_step(g->vm.ip, STEPS);
    vec_park(g->vm.v);
    take(g, mem, o);
    if (why == EXIT_kick)
        o->end = FID_ENDLESS;
    else if (why != EXIT_halt)
        o->end = FID_SHUTDOWN;
    vcpu_clear(g->vm.v, ~0u);
}
