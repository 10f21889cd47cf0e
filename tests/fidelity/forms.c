/*
 * Every encoding that Zydis knows and that code at CPL 3 may try: prefixes, maps,
 * opcodes, register and memory forms, by enumeration; and what the harness does with
 * each.
 */
#include "fidelity.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct form *forms;
static unsigned nforms, left_out[MODE_64 + 1];
/* Forms of a mode and class ordered by mnemonic, and where each mnemonic begins. */
static struct by_kind {
    unsigned *form, nforms;
    unsigned *first, nkinds;
} by_kind[MODE_64 + 1][2];

/* The model does not offer these (docs/cpu.md), whatever the host has. All other
 * instruction sets are the host's and the guest's alike. */
static bool is_hidden(ZydisISASet set) {
    static const char *const names[] = {
        "AVX512PF", "AMX",     "RTM", "PKU",        "WAITPKG", "SERIALIZE", "MOVDIR",
        "ENQCMD",   "UINTR",   "SGX", "HRESET",     "PT",      "AVX512ER",  "RDPRU",
        "MCOMMIT",  "XOP",     "TBM", "FMA4",       "LWP",     "KEYLOCKER", "TSX_LDTRK",
        "MONITORX", "TDX",     "SNP", "AMD3DNOW",   "PADLOCK", "KNC",       "VMFUNC",
        "XSAVES",   "PCONFIG", "SMX", "AMD_INVLPGB"};
    const char *s = ZydisISASetGetString(set);

    for (size_t k = 0; k < ARRAY_SIZE(names); k++)
        if (!strncmp(s, names[k], strlen(names[k])) && strcmp(s, "PTWRITE"))
            return true;
    return false;
}

/* What these give is the machine's own: identification, time, chance, descriptor tables
 * that the kernel may hide; or they enter the operating system. */
static bool is_unlike(ZydisMnemonic m, const uint8_t *imm) {
    switch (m) {
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_RDPMC:
    case ZYDIS_MNEMONIC_SGDT:
    case ZYDIS_MNEMONIC_SIDT:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_SMSW:
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_VMCALL:
    case ZYDIS_MNEMONIC_VMMCALL:
        return true;
    case ZYDIS_MNEMONIC_INT:
        return *imm == 0x80;
    default:
        return false;
    }
}

/* Offered by some CPUs, among those that run this. */
static bool is_optional(ZydisISASet set) {
    const char *s = ZydisISASetGetString(set);

    return !strncmp(s, "AVX512", 6) || !strcmp(s, "AVX_VNNI");
}

static ZydisDecoder decoder(enum cpu_mode mode) {
    ZydisDecoder d;

    ZydisDecoderInit(
        &d, mode == MODE_64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LEGACY_32,
        mode == MODE_64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_AMD_BRANCHES,
                           __builtin_cpu_is("amd") != 0);
    return d;
}

enum fid_class fid_class_of(enum cpu_mode mode, const uint8_t *bytes, unsigned len,
                            unsigned *kind) {
    ZydisDecoder d = decoder(mode);
    ZydisDecodedInstruction zi;
    uint8_t imm;

    *kind = 0;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&d, NULL, bytes, len, &zi)))
        return FID_COMPARE;
    *kind = (unsigned)zi.mnemonic;
    imm = (uint8_t)zi.raw.imm[0].value.u;
    if (is_unlike(zi.mnemonic, &imm))
        return FID_UNLIKE;
    if (is_hidden(zi.meta.isa_set) ||
        (is_optional(zi.meta.isa_set) && !fid_offered(mode, bytes, len)))
        return FID_HIDDEN;
    return FID_COMPARE;
}

static unsigned put_vex(const struct form *f, uint8_t *b, unsigned rxb, unsigned vvvv) {
    unsigned n = 0, p1 = (~rxb & 7) << 5;

    if (f->vex == 2) {
        b[n++] = 0x62;
        b[n++] = (uint8_t)(p1 | 0x10 | f->map);
        b[n++] = (uint8_t)(f->w << 7 | (~vvvv & 15) << 3 | 4 | f->vpp);
        b[n++] = (uint8_t)(f->vl << 5 | 8);
    } else {
        b[n++] = f->vex == 3 ? 0x8f : 0xc4;
        b[n++] = (uint8_t)(p1 | f->map);
        b[n++] = (uint8_t)(f->w << 7 | (~vvvv & 15) << 3 | f->vl << 2 | f->vpp);
    }
    b[n++] = f->opcode;
    return n;
}

unsigned fid_form_put(const struct form *f, uint8_t *b, unsigned rxb, unsigned vvvv) {
    static const uint8_t rep[] = {0, 0xf3, 0xf2};
    unsigned n = 0, rex = 0x40u | (unsigned)f->w << 3 | rxb;

    if (f->vex)
        return put_vex(f, b, f->mode == MODE_64 ? rxb : rxb & ~6u, vvvv);
    if (f->p66)
        b[n++] = 0x66;
    if (f->rep)
        b[n++] = rep[f->rep];
    if (f->mode == MODE_64 && rex != 0x40)
        b[n++] = (uint8_t)rex;
    if (f->map)
        b[n++] = 0x0f;
    if (f->map >= 2)
        b[n++] = f->map == 2 ? 0x38 : 0x3a;
    b[n++] = f->opcode;
    return n;
}

static void try_form(struct form f) {
    uint8_t b[24] = {0};
    unsigned n = fid_form_put(&f, b, 0, f.v15 ? 0 : 5), kind;
    enum fid_class c;

    b[n] = (uint8_t)(f.reg << 3 | (f.mem ? 3 : 0xc0 | (f.rm & 7)));
    c = fid_class_of((enum cpu_mode)f.mode, b, 15, &kind);
    if (c == FID_UNLIKE)
        left_out[f.mode]++;
    if (c == FID_UNLIKE || !kind)
        return;
    f.cls = c;
    f.kind = (uint16_t)kind;
    if (!(nforms & (nforms - 1)))
        forms = realloc(forms, (nforms ? nforms * 2 : 1) * sizeof(f));
    forms[nforms++] = f;
}

static void scan_opcodes(struct form f, unsigned maps, unsigned first_map) {
    for (unsigned m = 0; m < maps * 256 * 16; m++) {
        bool x87;

        f.map = (uint8_t)(first_map + (m >> 12));
        f.opcode = (uint8_t)(m >> 4);
        f.reg = m & 7;
        f.mem = m >> 3 & 1;
        f.rm = 1;
        x87 = !f.vex &&
              ((!f.map && (f.opcode & 0xf8) == 0xd8) || (f.map == 1 && f.opcode == 1));
        if (x87 && !f.mem)
            for (f.rm = 0; f.rm < 8; f.rm++)
                try_form(f);
        else
            try_form(f);
    }
}

static int compare_kinds(const void *a, const void *b) {
    const struct form *x = &forms[*(const unsigned *)a],
                      *y = &forms[*(const unsigned *)b];

    return x->kind != y->kind
               ? (int)x->kind - (int)y->kind
               : (int)(*(const unsigned *)a > *(const unsigned *)b) * 2 - 1;
}

static int order(enum cpu_mode mode, bool hidden) {
    struct by_kind *k = &by_kind[mode][hidden];

    k->form = calloc(nforms + 1, sizeof(*k->form));
    k->first = calloc(nforms + 2, sizeof(*k->first));
    if (!k->form || !k->first)
        return -ENOMEM;
    for (unsigned n = 0; n < nforms; n++)
        if (forms[n].mode == mode && (forms[n].cls == FID_HIDDEN) == hidden)
            k->form[k->nforms++] = n;
    qsort(k->form, k->nforms, sizeof(*k->form), compare_kinds);
    for (unsigned n = 0; n < k->nforms; n++)
        if (!n || forms[k->form[n]].kind != forms[k->form[n - 1]].kind)
            k->first[k->nkinds++] = n;
    k->first[k->nkinds] = k->nforms;
    return 0;
}

int fid_forms_scan(void) {
    struct form f = {0};
    int rc = 0;

    for (unsigned k = 0; k < 2 * 2 * 2 * 3; k++) {
        f = (struct form){.mode = k & 1 ? MODE_32 : MODE_64,
                          .p66 = k >> 1 & 1,
                          .w = k >> 2 & 1,
                          .rep = (uint8_t)(k >> 3)};
        if (!f.w || f.mode == MODE_64)
            scan_opcodes(f, 4, 0);
    }
    for (unsigned k = 0; k < 2 * 2 * 4 * 2 * 2; k++) {
        f = (struct form){.mode = k & 1 ? MODE_32 : MODE_64,
                          .w = k >> 1 & 1,
                          .vpp = k >> 2 & 3,
                          .vl = k >> 4 & 1,
                          .v15 = k >> 5,
                          .vex = 1};
        scan_opcodes(f, 3, 1);
        if (f.v15) {
            f.vex = 2;
            scan_opcodes(f, 3, 1);
            scan_opcodes(f, 2, 5);
            f.vex = 3;
            scan_opcodes(f, 3, 8);
        }
    }
    for (unsigned k = 0; k < 4 && !rc; k++)
        rc = order(k & 1 ? MODE_32 : MODE_64, k >> 1);
    return rc;
}

unsigned fid_forms_count(void) {
    return nforms;
}

unsigned fid_forms_left_out(enum cpu_mode mode) {
    return left_out[mode];
}

const char *fid_form_name(const struct form *f) {
    return ZydisMnemonicGetString((ZydisMnemonic)f->kind);
}

const struct form *fid_form(unsigned n) {
    return &forms[n];
}

const struct form *fid_form_pick(enum cpu_mode mode) {
    const struct by_kind *k = &by_kind[mode][fid_one_in(48)];
    unsigned kind = fid_pick(k->nkinds);
    unsigned n = k->first[kind] + fid_pick(k->first[kind + 1] - k->first[kind]);

    return &forms[k->form[n]];
}
