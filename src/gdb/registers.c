/*
 * Which registers the client is told of, and where they are.
 *
 * The core ones are in the order that gdb has them. PC is the linear address of the next
 * instruction, as breakpoints are: in real mode it is CS's base and IP together, so that
 * what gdb disassembles, steps to and breaks at are the same bytes.
 *
 * What may be changed: what a program could have loaded, and what makes no state that no
 * CPU has. Segments only in real mode, where they are just numbers.
 */
#include <stdio.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/state.h"
#include "gdb/gdb_int.h"
#include "x86/cr.h"

#define LEGACY_ST 32u
#define LEGACY_XMM 160u
#define LEGACY_MXCSR 24u
#define XSTATE_BV 512u

#define FLAGS_WRITABLE                                                                   \
    (X86_FL_STATUS | X86_FL_TF | X86_FL_IF | X86_FL_DF | 0x3000u | X86_FL_NT |           \
     X86_FL_RF | X86_FL_AC | 0x200000u)
#define CR0_WRITABLE (X86_CR0_WP | X86_CR0_TS | X86_CR0_EM | X86_CR0_MP | X86_CR0_NE)
#define CR4_WRITABLE (X86_CR4_TSD | X86_CR4_DE | X86_CR4_PGE)

/* --- the table --- */

static struct gdb_reg *add(struct gdb_regs *r, const char *name, enum gdb_feature feature,
                           enum gdb_reg_kind kind, const char *type, unsigned bytes) {
    struct gdb_reg *reg = &r->reg[r->count++];

    *reg = (struct gdb_reg){.type = type,
                            .kind = (uint8_t)kind,
                            .feature = (uint8_t)feature,
                            .bytes = (uint8_t)bytes,
                            .size = (uint8_t)bytes};
    snprintf(reg->name, sizeof(reg->name), "%s", name);
    return reg;
}

static void add_number(struct gdb_regs *r, const char *name, enum gdb_feature feature,
                       const char *type, unsigned bytes, size_t off, unsigned size,
                       uint64_t writable) {
    struct gdb_reg *reg = add(r, name, feature, GDB_REG_NUMBER, type, bytes);

    reg->off = (uint16_t)off;
    reg->size = (uint8_t)size;
    reg->writable = writable;
}

static void add_image(struct gdb_regs *r, const char *name, enum gdb_feature feature,
                      const char *type, unsigned bytes, unsigned component,
                      unsigned off) {
    struct gdb_reg *reg = add(r, name, feature, GDB_REG_IMAGE, type, bytes);

    reg->off = (uint16_t)off;
    reg->index = (uint8_t)component;
}

static void add_general(struct gdb_regs *r) {
    static const uint8_t order64[] = {REG_RAX, REG_RBX, REG_RCX, REG_RDX,
                                      REG_RSI, REG_RDI, REG_RBP, REG_RSP};
    static const char *const names[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
    bool wide = r->arch == GDB_ARCH_64;

    for (unsigned n = 0; n < (wide ? 16 : 8); n++) {
        unsigned which = wide && n < 8 ? order64[n] : n;
        bool points = which == REG_RSP || which == REG_RBP;
        char name[12];

        if (which < 8)
            snprintf(name, sizeof(name), "%c%s", wide ? 'r' : 'e', names[which]);
        else
            snprintf(name, sizeof(name), "r%u", which);
        add_number(r, name, GDB_FEATURE_CORE,
                   points ? "data_ptr"
                   : wide ? "int64"
                          : "int32",
                   wide ? 8 : 4, offsetof(struct vcpu, gpr) + 8 * which, 8, ~0ull);
    }
}

static void add_segments(struct gdb_regs *r) {
    static const uint8_t order[] = {SEG_CS, SEG_SS, SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    static const char *const names[] = {"es", "cs", "ss", "ds", "fs", "gs"};

    for (unsigned n = 0; n < ARRAY_SIZE(order); n++)
        add(r, names[order[n]], GDB_FEATURE_CORE, GDB_REG_SEGMENT, "int32", 4)->index =
            order[n];
}

static void add_x87(struct gdb_regs *r) {
    char name[12];

    for (unsigned n = 0; n < 8; n++) {
        snprintf(name, sizeof(name), "st%u", n);
        add_image(r, name, GDB_FEATURE_CORE, "i387_ext", 10, 0, LEGACY_ST + 16 * n);
    }
    add_image(r, "fctrl", GDB_FEATURE_CORE, "int", 4, 0, 0);
    r->reg[r->count - 1].size = 2;
    add_image(r, "fstat", GDB_FEATURE_CORE, "int", 4, 0, 2);
    r->reg[r->count - 1].size = 2;
    add(r, "ftag", GDB_FEATURE_CORE, GDB_REG_FTAG, "int", 4);
    add_number(r, "fiseg", GDB_FEATURE_CORE, "int", 4, offsetof(struct vcpu, fcs), 2,
               0xffff);
    add_number(r, "fioff", GDB_FEATURE_CORE, "int", 4, offsetof(struct vcpu, fip), 8,
               UINT32_MAX);
    add_number(r, "foseg", GDB_FEATURE_CORE, "int", 4, offsetof(struct vcpu, fds), 2,
               0xffff);
    add_number(r, "fooff", GDB_FEATURE_CORE, "int", 4, offsetof(struct vcpu, fdp), 8,
               UINT32_MAX);
    add_number(r, "fop", GDB_FEATURE_CORE, "int", 4, offsetof(struct vcpu, fop), 2,
               0x7ff);
}

/* Where component COMPONENT of the image is; 0: the host's CPU has none. */
static unsigned component_at(unsigned component, unsigned size) {
    for (size_t n = 0; n < vcpu_part_count; n++)
        if (vcpu_parts[n].group == VCPU_GROUP_VECTOR &&
            vcpu_parts[n].component == component && vcpu_parts[n].size == size)
            return vcpu_part_offset(&vcpu_parts[n], 0);
    return 0;
}

static void add_vectors(struct gdb_regs *r, const struct vcpu *v) {
    unsigned count = r->arch == GDB_ARCH_64 ? 16 : 8, upper = component_at(2, 16);
    bool avx = v->cpuid && (cpuid_query(v, 1, 0).ecx & (1u << 28));
    char name[12];

    for (unsigned n = 0; n < count; n++) {
        snprintf(name, sizeof(name), "xmm%u", n);
        add_image(r, name, GDB_FEATURE_SSE, "vec128", 16, 1, LEGACY_XMM + 16 * n);
    }
    add_image(r, "mxcsr", GDB_FEATURE_SSE, "int", 4, 1, LEGACY_MXCSR);
    for (unsigned n = 0; avx && upper >= offsetof(struct vcpu, vec) && n < count; n++) {
        snprintf(name, sizeof(name), "ymm%uh", n);
        add_image(r, name, GDB_FEATURE_AVX, "uint128", 16, 2,
                  upper - (unsigned)offsetof(struct vcpu, vec) + 16 * n);
    }
}

#define SYSTEM(name, type, bytes, field, writable)                                       \
    {                                                                                    \
        name, type, bytes, offsetof(struct vcpu, field),                                 \
            sizeof(((struct vcpu *)NULL)->field), writable                               \
    }

static void add_system(struct gdb_regs *r) {
    static const struct {
        const char *name, *type;
        uint8_t bytes;
        size_t off;
        size_t size;
        uint64_t writable;
    } table[] = {
        SYSTEM("k_gs_base", "int64", 8, kernel_gs_base, ~0ull),
        SYSTEM("cr0", "cr0_flags", 8, cr0, CR0_WRITABLE),
        SYSTEM("cr2", "int64", 8, cr2, ~0ull),
        SYSTEM("cr3", "int64", 8, cr3, 0),
        SYSTEM("cr4", "cr4_flags", 8, cr4, CR4_WRITABLE),
        SYSTEM("efer", "efer_flags", 8, efer, X86_EFER_SCE),
        SYSTEM("xcr0", "int64", 8, xcr0, 0),
        SYSTEM("es_base", "int64", 8, seg[SEG_ES].base, 0),
        SYSTEM("cs_base", "int64", 8, seg[SEG_CS].base, 0),
        SYSTEM("ss_base", "int64", 8, seg[SEG_SS].base, 0),
        SYSTEM("ds_base", "int64", 8, seg[SEG_DS].base, 0),
        SYSTEM("gdt_base", "int64", 8, gdtr.base, 0),
        SYSTEM("gdt_limit", "int32", 4, gdtr.limit, 0),
        SYSTEM("idt_base", "int64", 8, idtr.base, 0),
        SYSTEM("idt_limit", "int32", 4, idtr.limit, 0),
        SYSTEM("ldt", "int32", 4, ldtr.sel, 0),
        SYSTEM("ldt_base", "int64", 8, ldtr.base, 0),
        SYSTEM("tr", "int32", 4, tr.sel, 0),
        SYSTEM("tr_base", "int64", 8, tr.base, 0),
        SYSTEM("dr0", "int64", 8, dr[0], 0),
        SYSTEM("dr1", "int64", 8, dr[1], 0),
        SYSTEM("dr2", "int64", 8, dr[2], 0),
        SYSTEM("dr3", "int64", 8, dr[3], 0),
        SYSTEM("dr6", "int64", 8, dr[6], 0),
        SYSTEM("dr7", "int64", 8, dr[7], 0),
    };
    enum gdb_feature bases =
        r->arch == GDB_ARCH_64 ? GDB_FEATURE_SEGMENTS : GDB_FEATURE_SYSTEM;

    add_number(r, "fs_base", bases, "int64", 8, offsetof(struct vcpu, seg[SEG_FS].base),
               8, r->arch == GDB_ARCH_64 ? ~0ull : 0);
    add_number(r, "gs_base", bases, "int64", 8, offsetof(struct vcpu, seg[SEG_GS].base),
               8, r->arch == GDB_ARCH_64 ? ~0ull : 0);
    for (size_t n = 0; n < ARRAY_SIZE(table); n++)
        add_number(r, table[n].name, GDB_FEATURE_SYSTEM, table[n].type, table[n].bytes,
                   table[n].off, (unsigned)table[n].size, table[n].writable);
    add(r, "cr8", GDB_FEATURE_SYSTEM, GDB_REG_CR8, "int64", 8);
}

void gdb_regs_make(struct gdb_regs *r, enum gdb_arch arch, const struct vcpu *v) {
    bool wide = arch == GDB_ARCH_64;

    r->arch = arch;
    r->count = 0;
    add_general(r);
    add(r, wide ? "rip" : "eip", GDB_FEATURE_CORE, GDB_REG_PC, "code_ptr", wide ? 8 : 4);
    add(r, "eflags", GDB_FEATURE_CORE, GDB_REG_FLAGS, "flags", 4);
    add_segments(r);
    add_x87(r);
    add_vectors(r, v);
    add_system(r);
}

/* --- reading --- */

/* Two bits for each physical register, where the image has one: AMD64 APM volume 2,
 * "FXSAVE Format for x87 Tag Word". */
static unsigned full_tags(const struct vcpu *v) {
    unsigned top = (unsigned)v->vec[3] >> 3 & 7, tags = 0;

    for (unsigned n = 0; n < 8; n++) {
        const uint8_t *st = v->vec + LEGACY_ST + 16 * ((n - top) & 7);
        unsigned exponent = (unsigned)(st[8] | st[9] << 8) & 0x7fff, tag = 0;
        uint64_t fraction;

        memcpy(&fraction, st, 8);
        if (!(v->vec[4] >> n & 1))
            tag = 3;
        else if (!exponent && !fraction)
            tag = 1;
        else if (!exponent || exponent == 0x7fff || !(fraction >> 63))
            tag = 2;
        tags |= tag << (2 * n);
    }
    return tags;
}

void gdb_reg_get(struct machine *m, unsigned cpu, const struct gdb_reg *r, uint8_t *out) {
    const struct vcpu *v = machine_debug_vcpu(m, cpu);
    uint64_t n = 0;

    switch (r->kind) {
    case GDB_REG_IMAGE:
        memset(out, 0, r->bytes);
        memcpy(out, v->vec + r->off, r->size);
        return;
    case GDB_REG_NUMBER:
        memcpy(&n, (const uint8_t *)v + r->off, r->size);
        break;
    case GDB_REG_PC:
        n = vcpu_linear_rip(v);
        break;
    case GDB_REG_FLAGS:
        n = v->rflags;
        break;
    case GDB_REG_SEGMENT:
        n = v->seg[r->index].sel;
        break;
    case GDB_REG_FTAG:
        n = full_tags(v);
        break;
    default:
        n = machine_debug_cr8(m, cpu);
    }
    memcpy(out, &n, r->bytes);
}

/* --- changing --- */

static bool set_number(struct machine *m, unsigned cpu, const struct gdb_reg *r,
                       uint64_t n) {
    struct vcpu *v = machine_debug_vcpu(m, cpu);
    uint8_t *at = (uint8_t *)v + r->off;
    uint64_t old = 0, mask = r->bytes == 8 ? ~0ull : (1ull << (r->bytes * 8)) - 1;

    memcpy(&old, at, r->size);
    if (((n ^ old) & mask) & ~r->writable)
        return false;
    n = (n & mask) | (old & ~mask & (r->feature == GDB_FEATURE_CORE ? 0 : ~0ull));
    if (n == old)
        return true;
    memcpy(at, &n, r->size);
    if (r->feature == GDB_FEATURE_SYSTEM || r->feature == GDB_FEATURE_SEGMENTS)
        machine_debug_changed(m, cpu);
    return true;
}

static void set_pc(struct vcpu *v, uint64_t linear) {
    v->rip =
        v->mode == MODE_64 ? linear : (uint32_t)(linear - (uint32_t)v->seg[SEG_CS].base);
    v->halted = false;
}

static void set_flags(struct machine *m, unsigned cpu, uint64_t n) {
    struct vcpu *v = machine_debug_vcpu(m, cpu);
    uint64_t old = v->rflags;

    v->rflags = (old & ~(uint64_t)FLAGS_WRITABLE) | (n & FLAGS_WRITABLE);
    if ((old ^ v->rflags) & X86_FL_AC)
        machine_debug_changed(m, cpu);
}

static bool set_segment(struct machine *m, unsigned cpu, unsigned seg, uint64_t n) {
    struct vcpu *v = machine_debug_vcpu(m, cpu);

    if (n == v->seg[seg].sel)
        return true;
    if (!vcpu_is_real(v) || n > 0xffff)
        return false;
    v->seg[seg].sel = (uint16_t)n;
    v->seg[seg].base = n << 4;
    machine_debug_changed(m, cpu);
    return true;
}

static void set_tags(struct vcpu *v, uint64_t tags) {
    v->vec[4] = 0;
    for (unsigned n = 0; n < 8; n++)
        if ((tags >> (2 * n) & 3) != 3)
            v->vec[4] |= (uint8_t)(1u << n);
    v->vec[XSTATE_BV] |= 1;
}

/* The upper halves of registers with their component out of use are zero already. */
static bool set_image(struct vcpu *v, const struct gdb_reg *r, const uint8_t *in) {
    uint32_t mxcsr;

    if (r->off == LEGACY_MXCSR && r->feature == GDB_FEATURE_SSE) {
        memcpy(&mxcsr, in, 4);
        if (mxcsr & ~0xffffu)
            return false;
    }
    if (r->index == 2 && !(v->xcr0 & 4))
        return false;
    memcpy(v->vec + r->off, in, r->size);
    v->vec[XSTATE_BV] |= (uint8_t)(1u << r->index);
    return true;
}

bool gdb_reg_set(struct machine *m, unsigned cpu, const struct gdb_reg *r,
                 const uint8_t *in) {
    struct vcpu *v = machine_debug_vcpu(m, cpu);
    uint8_t old[16];
    uint64_t n = 0;

    gdb_reg_get(m, cpu, r, old);
    if (!memcmp(old, in, r->bytes))
        return true;
    machine_debug_meddled(m);
    if (r->kind == GDB_REG_IMAGE)
        return set_image(v, r, in);
    memcpy(&n, in, r->bytes);
    switch (r->kind) {
    case GDB_REG_NUMBER:
        return set_number(m, cpu, r, n);
    case GDB_REG_PC:
        set_pc(v, n);
        return true;
    case GDB_REG_FLAGS:
        set_flags(m, cpu, n);
        return true;
    case GDB_REG_SEGMENT:
        return set_segment(m, cpu, r->index, n);
    case GDB_REG_FTAG:
        set_tags(v, n);
        return true;
    default:
        return false;
    }
}
