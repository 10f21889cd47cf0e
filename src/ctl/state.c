/* The architectural state of two machines, side by side; see state.h. */
#include "ctl/state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/vec.h"
#include "x86/cr.h"

struct field {
    const char *name;
    size_t off;
    size_t size;
};

#define FIELD(f)                                                                         \
    { #f, offsetof(struct vcpu, f), sizeof(((struct vcpu *)0)->f) }
#define GPR(n, r)                                                                        \
    { n, offsetof(struct vcpu, gpr) + 8 * (r), 8 }
#define SEGMENT(f) FIELD(f.sel), FIELD(f.ar), FIELD(f.limit), FIELD(f.base)

static const struct field fields[] = {
    GPR("rax", REG_RAX),  GPR("rcx", REG_RCX),
    GPR("rdx", REG_RDX),  GPR("rbx", REG_RBX),
    GPR("rsp", REG_RSP),  GPR("rbp", REG_RBP),
    GPR("rsi", REG_RSI),  GPR("rdi", REG_RDI),
    GPR("r8", REG_R8),    GPR("r9", REG_R9),
    GPR("r10", REG_R10),  GPR("r11", REG_R11),
    GPR("r12", REG_R12),  GPR("r13", REG_R13),
    GPR("r14", REG_R14),  GPR("r15", REG_R15),
    GPR("rip", REG_RIP),  SEGMENT(seg[SEG_ES]),
    SEGMENT(seg[SEG_CS]), SEGMENT(seg[SEG_SS]),
    SEGMENT(seg[SEG_DS]), SEGMENT(seg[SEG_FS]),
    SEGMENT(seg[SEG_GS]), SEGMENT(ldtr),
    SEGMENT(tr),          FIELD(gdtr.base),
    FIELD(gdtr.limit),    FIELD(idtr.base),
    FIELD(idtr.limit),    FIELD(cr0),
    FIELD(cr2),           FIELD(cr3),
    FIELD(cr4),           FIELD(efer),
    FIELD(xcr0),          FIELD(dr[0]),
    FIELD(dr[1]),         FIELD(dr[2]),
    FIELD(dr[3]),         FIELD(dr[6]),
    FIELD(dr[7]),         FIELD(star),
    FIELD(lstar),         FIELD(cstar),
    FIELD(sfmask),        FIELD(kernel_gs_base),
    FIELD(tsc_aux),       FIELD(sysenter_cs),
    FIELD(sysenter_esp),  FIELD(sysenter_eip),
    FIELD(pat),           FIELD(misc_enable),
    FIELD(spec_ctrl),     FIELD(tsc_adjust),
    FIELD(cpl),           FIELD(events),
    FIELD(halted),        FIELD(irq_shadow),
    FIELD(nmi_blocked),   FIELD(pending_db),
    FIELD(random),        FIELD(fip),
    FIELD(fop),
};

/* --- vector and x87 state, without what is not in use --- */

/* Registers of a kind: COUNT of SIZE bytes, STRIDE apart, from OFF of the image or, if
 * that is 0, from where the host's CPU has the component. */
static const struct vec_part {
    const char *name;
    uint8_t count, size, stride, component;
    uint16_t off;
} vec_parts[] = {
    {"x87 control, status and tags", 1, 5, 0, 0, 0},
    {"mxcsr", 1, 4, 0, 1, 24},
    {"st", 8, 10, 16, 0, 32},
    {"xmm", 16, 16, 16, 1, 160},
    {"upper half of ymm", 16, 16, 16, 2, 0},
    {"k", 8, 8, 8, 5, 0},
    {"upper half of zmm", 16, 32, 32, 6, 0},
    {"zmm16 + ", 16, 64, 64, 7, 0},
};

static unsigned vec_at(const struct vec_part *p, unsigned reg) {
    return (p->component < 2 ? p->off : vec_offset(p->component)) + p->stride * reg;
}

/* The host has it. */
static bool vec_there(const struct vec_part *p) {
    return p->component < 2 || vec_size(p->component);
}

/* A component that is not in use has its initial value, which is what the image holds
 * then (cpu/vec.c). */
static bool vec_same(const struct vcpu *a, const struct vcpu *b, const struct vec_part *p,
                     unsigned reg) {
    unsigned at = vec_at(p, reg);

    return !vec_there(p) || !memcmp(a->vec + at, b->vec + at, p->size);
}

/* --- one field --- */

static uint64_t value(const struct vcpu *v, const struct field *f) {
    uint64_t x = 0;

    memcpy(&x, (const char *)v + f->off, f->size);
    return x;
}

static uint64_t flags(const struct vcpu *v, unsigned how) {
    return how & STATE_LOOSE ? v->rflags & ~(uint64_t)X86_FL_STATUS : v->rflags;
}

bool state_same(const struct machine *a, const struct machine *b, unsigned how) {
    const struct vcpu *va = machine_vcpu(a, 0), *vb = machine_vcpu(b, 0);

    for (size_t n = 0; n < ARRAY_SIZE(fields); n++)
        if (value(va, &fields[n]) != value(vb, &fields[n]))
            return false;
    for (size_t n = 0; n < ARRAY_SIZE(vec_parts); n++)
        for (unsigned reg = 0; reg < vec_parts[n].count; reg++)
            if (!vec_same(va, vb, &vec_parts[n], reg))
                return false;
    return flags(va, how) == flags(vb, how) && machine_now_ns(a) == machine_now_ns(b) &&
           machine_insns(a) == machine_insns(b);
}

static void print_number(FILE *out, const char *what, const char *name_a, uint64_t a,
                         const char *name_b, uint64_t b) {
    if (a != b)
        fprintf(out, "  %-16s %-8s %016llx  %-8s %016llx\n", what, name_a,
                (unsigned long long)a, name_b, (unsigned long long)b);
}

static void print_bytes(FILE *out, const char *name, const uint8_t *p, size_t len) {
    fprintf(out, " %s ", name);
    while (len--)
        fprintf(out, "%02x", p[len]);
}

static void print_vec(FILE *out, const struct vec_part *p, unsigned reg,
                      const struct vcpu *a, const char *name_a, const struct vcpu *b,
                      const char *name_b) {
    unsigned at = vec_at(p, reg);

    if (p->count > 1)
        fprintf(out, "  %s%u", p->name, reg);
    else
        fprintf(out, "  %-16s", p->name);
    print_bytes(out, name_a, a->vec + at, p->size);
    print_bytes(out, name_b, b->vec + at, p->size);
    fputc('\n', out);
}

void state_print(const struct machine *a, const struct machine *b, const char *name_a,
                 const char *name_b, unsigned how, FILE *out) {
    const struct vcpu *va = machine_vcpu(a, 0), *vb = machine_vcpu(b, 0);

    print_number(out, "instructions", name_a, machine_insns(a), name_b, machine_insns(b));
    print_number(out, "virtual ns", name_a, machine_now_ns(a), name_b, machine_now_ns(b));
    for (size_t n = 0; n < ARRAY_SIZE(fields); n++)
        print_number(out, fields[n].name, name_a, value(va, &fields[n]), name_b,
                     value(vb, &fields[n]));
    print_number(out, "rflags", name_a, flags(va, how), name_b, flags(vb, how));
    for (size_t n = 0; n < ARRAY_SIZE(vec_parts); n++)
        for (unsigned reg = 0; reg < vec_parts[n].count; reg++)
            if (!vec_same(va, vb, &vec_parts[n], reg))
                print_vec(out, &vec_parts[n], reg, va, name_a, vb, name_b);
}

/* --- memory --- */

/* Which pages of RAM the host has given to M: the others are zero. NULL: no memory. */
static uint8_t *resident(const struct machine *m, size_t *pages) {
    uint64_t size;
    uint8_t *ram = machine_ram(m, &size);
    uint8_t *map = malloc(size >> 12);

    *pages = size >> 12;
    if (map && mincore(ram, size, map) < 0)
        memset(map, 1, *pages);
    return map;
}

size_t state_pages(const struct machine *a, const struct machine *b, uint64_t *pages,
                   size_t max) {
    size_t count, found = 0;
    uint8_t *in_a = resident(a, &count), *in_b = resident(b, &count);

    for (size_t n = 0; n < count && found < max; n++)
        if ((!in_a || !in_b || (in_a[n] & 1) || (in_b[n] & 1)) &&
            state_page_differs(a, b, n << 12))
            pages[found++] = n << 12;
    free(in_a);
    free(in_b);
    return found;
}

bool state_page_differs(const struct machine *a, const struct machine *b, uint64_t addr) {
    uint64_t size;

    return memcmp(machine_ram(a, &size) + addr, machine_ram(b, &size) + addr, 4096);
}

void state_print_page(const struct machine *a, const struct machine *b,
                      const char *name_a, const char *name_b, uint64_t addr, FILE *out) {
    uint64_t size;
    const uint8_t *pa = machine_ram(a, &size) + addr, *pb = machine_ram(b, &size) + addr;
    uint64_t wa, wb;

    for (unsigned at = 0; at < 4096; at += 8) {
        if (!memcmp(pa + at, pb + at, 8))
            continue;
        memcpy(&wa, pa + at, 8);
        memcpy(&wb, pb + at, 8);
        fprintf(out, "  RAM %08llx     %-8s %016llx  %-8s %016llx\n",
                (unsigned long long)addr + at, name_a, (unsigned long long)wa, name_b,
                (unsigned long long)wb);
        return;
    }
}

/* --- digest --- */

static uint64_t mix(uint64_t h, uint64_t word) {
    h = (h ^ word) * 0x9e3779b97f4a7c15ull;
    return h ^ h >> 29;
}

static uint64_t mix_page(uint64_t h, const uint8_t *page, size_t number) {
    uint64_t word, any = 0, was = h;

    h = mix(h, number);
    for (size_t at = 0; at < 4096; at += 8) {
        memcpy(&word, page + at, 8);
        any |= word;
        h = mix(h, word);
    }
    return any ? h : was;
}

uint64_t state_digest(const struct machine *m) {
    uint64_t size, h = 0;
    size_t count;
    const uint8_t *ram = machine_ram(m, &size);
    uint8_t *in = resident(m, &count);

    for (size_t n = 0; n < ARRAY_SIZE(fields); n++)
        h = mix(h, value(machine_vcpu(m, 0), &fields[n]));
    for (size_t n = 0; n < count; n++)
        if (!in || (in[n] & 1))
            h = mix_page(h, ram + (n << 12), n);
    free(in);
    return h;
}
