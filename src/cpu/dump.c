/*
 * The vCPU in words, by cpu/state.def. Beside general registers and segments, what is 0
 * is left out; vector registers always are. lint: no guest runs here.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cpu/state.h"
#include "x86/cr.h"
#include "x86/desc.h"

#define WIDTH 90 /* of a line */

struct text {
    char *at;
    size_t left;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt,
                                                      ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->at, t->left, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    size_t used = (size_t)n < t->left ? (size_t)n : t->left ? t->left - 1 : 0;
    t->at += used;
    t->left -= used;
}

static void dump_flags(const struct vcpu *v, struct text *t) {
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {
        {X86_FL_CF, "CF"}, {X86_FL_PF, "PF"},   {X86_FL_AF, "AF"},   {X86_FL_ZF, "ZF"},
        {X86_FL_SF, "SF"}, {X86_FL_TF, "TF"},   {X86_FL_IF, "IF"},   {X86_FL_DF, "DF"},
        {X86_FL_OF, "OF"}, {X86_FL_NT, "NT"},   {X86_FL_RF, "RF"},   {X86_FL_VM, "VM"},
        {X86_FL_AC, "AC"}, {X86_FL_VIF, "VIF"}, {X86_FL_VIP, "VIP"}, {X86_FL_ID, "ID"}};
    put(t, "flags");
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (v->rflags & names[i].bit)
            put(t, " %s", names[i].name);
    }
    put(t, " iopl=%u\n", (unsigned)(v->rflags & X86_FL_IOPL) >> X86_FL_IOPL_SHIFT);
}

static void dump_segment(struct text *t, const char *name, const struct segment *s) {
    static const char *const data[] = {"ro", "rw", "ro down", "rw down"};
    static const char *const code[] = {"x", "rx", "x conf", "rx conf"};
    const char *const *kinds = s->ar & X86_AR_CODE ? code : data;
    put(t, "%-4s %04x base %016llx limit %08x ar %04x", name, s->sel,
        (unsigned long long)s->base, s->limit, s->ar);
    if (!(s->ar & X86_AR_P))
        put(t, " unusable\n");
    else if (!(s->ar & X86_AR_S))
        put(t, " system type %u\n", s->ar & X86_AR_TYPE);
    else
        put(t, " dpl %u %s%s%s\n", (s->ar & X86_AR_DPL) >> X86_AR_DPL_SHIFT,
            kinds[(s->ar >> 1) & 3], s->ar & X86_AR_DB ? " 32" : "",
            s->ar & X86_AR_L ? " 64" : "");
}

static void dump_table(struct text *t, const char *name, const struct desc_table *d) {
    put(t, "%s base %016llx limit %04x\n", name, (unsigned long long)d->base, d->limit);
}

static void dump_segments(const struct vcpu *v, struct text *t) {
#define SEGMENT(name, field) dump_segment(t, name, &v->field);
#define TABLE(name, field) dump_table(t, name, &v->field);
#include "cpu/state.def"
}

static void dump_mode(const struct vcpu *v, struct text *t) {
    static const char *const modes[] = {"16-bit", "32-bit", "64-bit"};

    put(t, "%s code, %s\n", modes[v->mode <= MODE_64 ? v->mode : MODE_64],
        vcpu_is_real(v)         ? "real mode"
        : v->long_mode          ? "long mode"
        : v->rflags & X86_FL_VM ? "virtual-8086 mode"
                                : "protected mode");
}

/* The registers of a group, as many in a line as it takes; ALL: with those that are 0,
 * and in columns. */
static void dump_group(const struct vcpu *v, struct text *t, enum vcpu_part_group group,
                       bool all) {
    int column = 0;

    for (size_t n = 0; n < vcpu_part_count; n++) {
        const struct vcpu_part *p = &vcpu_parts[n];
        char word[64];
        int len;

        if (p->group != group || (!all && !vcpu_part_number(v, p)))
            continue;
        len = snprintf(word, sizeof(word), all ? "%-3s %0*llx" : "%s %0*llx", p->name,
                       all ? 2 * p->size : 1, (unsigned long long)vcpu_part_number(v, p));
        if (column && column + 2 + len > WIDTH) {
            put(t, "\n");
            column = 0;
        }
        put(t, "%s%s", column ? "  " : "", word);
        column += (column ? 2 : 0) + len;
    }
    if (column)
        put(t, "\n");
}

void vcpu_dump(const struct vcpu *v, char *buf, size_t size) {
    struct text t = {buf, size};

    dump_group(v, &t, VCPU_GROUP_GENERAL, true);
    dump_flags(v, &t);
    dump_mode(v, &t);
    dump_segments(v, &t);
    dump_group(v, &t, VCPU_GROUP_CONTROL, false);
    dump_group(v, &t, VCPU_GROUP_DEBUG, false);
    dump_group(v, &t, VCPU_GROUP_PENDING, false);
    dump_group(v, &t, VCPU_GROUP_SYSTEM, false);
    dump_group(v, &t, VCPU_GROUP_TYPES, false);
    dump_group(v, &t, VCPU_GROUP_X87, false);
    put(&t, "last fault: vector %u error %x address %016llx\n", v->fault.vector,
        v->fault.has_error ? v->fault.error : 0, (unsigned long long)v->fault.addr);
}
