/*
 * The target description: which registers there are, in XML.
 *
 * GDB's manual, "Target Descriptions", "i386 Features". What gdb does not know by name is
 * in a feature of our own, and shown by `info registers system`.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "gdb/gdb_int.h"

struct xml {
    char *at;
    size_t len;
};

__attribute__((format(printf, 2, 3))) static void say(struct xml *x, const char *format,
                                                      ...) {
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(x->at + x->len, GDB_XML_MAX - x->len, format, args);
    va_end(args);
    if (n > 0 && (size_t)n < GDB_XML_MAX - x->len)
        x->len += (size_t)n;
}

static void flags(struct xml *x, const char *name, unsigned size,
                  const char *const *bits) {
    say(x, "<flags id=\"%s\" size=\"%u\">", name, size);
    for (unsigned n = 0; bits[n]; n++)
        if (*bits[n])
            say(x, "<field name=\"%s\" start=\"%u\" end=\"%u\"/>", bits[n], n, n);
    say(x, "</flags>\n");
}

static void core_types(struct xml *x) {
    static const char *const eflags[] = {"CF", "",   "PF", "",    "AF",  "",   "ZF", "SF",
                                         "TF", "IF", "DF", "OF",  "",    "",   "NT", "",
                                         "RF", "VM", "AC", "VIF", "VIP", "ID", NULL};

    flags(x, "flags", 4, eflags);
}

static void sse_types(struct xml *x) {
    static const struct {
        const char *id, *type;
        unsigned count;
    } vectors[] = {{"v4f", "ieee_single", 4}, {"v2d", "ieee_double", 2},
                   {"v16i8", "int8", 16},     {"v8i16", "int16", 8},
                   {"v4i32", "int32", 4},     {"v2i64", "int64", 2}};

    for (size_t n = 0; n < ARRAY_SIZE(vectors); n++)
        say(x, "<vector id=\"%s\" type=\"%s\" count=\"%u\"/>", vectors[n].id,
            vectors[n].type, vectors[n].count);
    say(x, "<union id=\"vec128\">"
           "<field name=\"v4_float\" type=\"v4f\"/>"
           "<field name=\"v2_double\" type=\"v2d\"/>"
           "<field name=\"v16_int8\" type=\"v16i8\"/>"
           "<field name=\"v8_int16\" type=\"v8i16\"/>"
           "<field name=\"v4_int32\" type=\"v4i32\"/>"
           "<field name=\"v2_int64\" type=\"v2i64\"/>"
           "<field name=\"uint128\" type=\"uint128\"/></union>\n");
}

static void system_types(struct xml *x) {
    static const char *const cr0[] = {"PE", "MP", "EM", "TS", "ET", "NE", "", "",   "",
                                      "",   "",   "",   "",   "",   "",   "", "WP", "",
                                      "AM", "",   "",   "",   "",   "",   "", "",   "",
                                      "",   "",   "NW", "CD", "PG", NULL};
    static const char *const cr4[] = {
        "VME",      "PVI",    "TSD",        "DE",   "PSE",  "PAE",  "MCE",  "PGE",
        "PCE",      "OSFXSR", "OSXMMEXCPT", "UMIP", "LA57", "VMXE", "SMXE", "",
        "FSGSBASE", "PCIDE",  "OSXSAVE",    "",     "SMEP", "SMAP", "PKE",  NULL};
    static const char *const efer[] = {"SCE", "",    "", "",    "",    "",  "",
                                       "",    "LME", "", "LMA", "NXE", NULL};

    flags(x, "cr0_flags", 8, cr0);
    flags(x, "cr4_flags", 8, cr4);
    flags(x, "efer_flags", 8, efer);
}

static void registers(struct xml *x, const struct gdb_regs *r, enum gdb_feature f) {
    for (unsigned n = 0; n < r->count; n++) {
        const struct gdb_reg *reg = &r->reg[n];
        const char *group = f == GDB_FEATURE_SYSTEM     ? " group=\"system\""
                            : !strcmp(reg->type, "int") ? " group=\"float\""
                                                        : "";

        if (reg->feature == f)
            say(x, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\" regnum=\"%u\"%s/>\n",
                reg->name, reg->bytes * 8, reg->type, n, group);
    }
}

static bool has(const struct gdb_regs *r, enum gdb_feature f) {
    for (unsigned n = 0; n < r->count; n++)
        if (r->reg[n].feature == f)
            return true;
    return false;
}

size_t gdb_describe(const struct gdb_regs *r, char out[GDB_XML_MAX]) {
    static const struct {
        const char *name;
        void (*types)(struct xml *x);
    } features[GDB_FEATURE_COUNT] = {
        [GDB_FEATURE_CORE] = {"org.gnu.gdb.i386.core", core_types},
        [GDB_FEATURE_SSE] = {"org.gnu.gdb.i386.sse", sse_types},
        [GDB_FEATURE_AVX] = {"org.gnu.gdb.i386.avx", NULL},
        [GDB_FEATURE_SEGMENTS] = {"org.gnu.gdb.i386.segments", NULL},
        [GDB_FEATURE_SYSTEM] = {"org.bivisor.i386.system", system_types},
    };
    static const char *const archs[] = {
        [GDB_ARCH_16] = "i8086", [GDB_ARCH_32] = "i386", [GDB_ARCH_64] = "i386:x86-64"};
    struct xml x = {out, 0};

    say(&x,
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
        "<target version=\"1.0\"><architecture>%s</architecture>\n",
        archs[r->arch]);
    for (unsigned f = 0; f < GDB_FEATURE_COUNT; f++) {
        if (!has(r, f))
            continue;
        say(&x, "<feature name=\"%s\">\n", features[f].name);
        if (features[f].types)
            features[f].types(&x);
        registers(&x, r, f);
        say(&x, "</feature>\n");
    }
    say(&x, "</target>\n");
    return x.len;
}
