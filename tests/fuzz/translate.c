/*
 * The decoder and the translator, without running what it makes: a header (mode,
 * segments, switches), then code.
 *
 * The decoder gets the bytes from every offset, in a buffer that ends where they do. The
 * translator gets them as a guest's code at the end of a page, and lists what it makes of
 * them.
 */
#include <errno.h>

#include "cpu/vec.h"
#include "decode/decode.h"
#include "fuzz/cpu.h"
#include "fuzz/fuzz.h"
#include "sem/sem.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/pte.h"

enum { TABLES = 0x1000, CODE = 0x10000, CODE_MAX = 1024 };

static struct guest vms[3];

static void set_up(void) {
    static const char *const options[3] = {"cache=1", "tu=64,no-groups,cache=1",
                                           "no-chain,no-liveness,count,tu=3,cache=1"};

    for (unsigned k = 0; k < 3 && !vms[k].v; k++) {
        struct bt_options opt = bt_defaults();
        char why[128];

        HOLDS(!bt_options_parse(&opt, options[k], why, sizeof(why)));
        cpu_guest_new(&vms[k], MMU_FLUSH, &opt);
    }
}

static void check_operand(const struct insn *i, const struct operand *o) {
    HOLDS(o->kind <= OPND_VEC);
    HOLDS(o->kind != OPND_REG || (o->reg < REG_ZERO && o->off + o->size <= 16 * 8));
    HOLDS(o->kind != OPND_SEG || o->reg < SEG_COUNT);
    HOLDS(o->kind != OPND_MEM || i->mem.seg < SEG_COUNT);
    HOLDS(o->kind != OPND_MEM || i->mem.base < REG_COUNT);
    HOLDS((o->kind != OPND_CR && o->kind != OPND_DR) || o->reg < 16);
}

static void check_insn(const struct insn *i, enum cpu_mode mode, size_t room) {
    HOLDS(i->len >= 1 && i->len <= 15 && i->len <= room);
    HOLDS(i->op < OP_COUNT && i->mode == mode && i->nops <= ARRAY_SIZE(i->opnd));
    HOLDS(i->off_modrm < i->len && i->off_opcode < i->len && i->imm_len <= i->len);
    for (unsigned k = 0; k < i->nops; k++)
        check_operand(i, &i->opnd[k]);
}

static void decode_all(struct vcpu *v, const struct fuzz_in *in) {
    static const enum cpu_mode modes[] = {MODE_16, MODE_32, MODE_64};
    size_t left = in->left < 64 ? in->left : 64;
    char text[96];

    for (size_t at = 0; at < left; at++) {
        size_t room = in->left - at < 15 ? in->left - at : 15;
        uint8_t *bytes = malloc(room);

        memcpy(bytes, in->p + at, room);
        for (unsigned m = 0; m < ARRAY_SIZE(modes); m++) {
            struct insn i;
            enum decode_result r = decode_insn(modes[m], bytes, room, &i);

            HOLDS(r == DECODE_OK || r == DECODE_TOO_LONG || room < 15);
            if (r != DECODE_OK)
                continue;
            check_insn(&i, modes[m], room);
            sem_bind(v, &i);
            HOLDS(i.exec);
            decode_format(&i, at, text, sizeof(text));
        }
        free(bytes);
    }
}

static void put64(struct guest *vm, uint32_t at, uint64_t v) {
    memcpy(vm->ram + at, &v, 8);
}

/* Identity for 2 MiB, whatever the mode; the page behind the code is there or not. */
static void map(struct guest *vm, enum cpu_mode mode, bool next) {
    for (uint32_t k = 0; k < 512; k++) {
        uint64_t e =
            k << 12 | X86_PTE_P | X86_PTE_W | X86_PTE_U | (k & 1 ? X86_PTE_G : 0);

        if (k << 12 == CODE + 4096 && !next)
            e = 0;
        if (mode == MODE_64)
            put64(vm, TABLES + 0x3000 + k * 8, e);
        else
            memcpy(vm->ram + TABLES + 0x1000 + k * 4, &e, 4);
    }
    put64(vm, TABLES, (TABLES + 0x1000) | 7);
    if (mode != MODE_64)
        return;
    put64(vm, TABLES + 0x1000, (TABLES + 0x2000) | 7);
    put64(vm, TABLES + 0x2000, (TABLES + 0x3000) | 7);
}

static void set_mode(struct vcpu *v, enum cpu_mode mode, unsigned how, uint32_t odd) {
    unsigned dpl = how & 1 ? 3 : 0;
    uint16_t dpl_ar = (uint16_t)(dpl << X86_AR_DPL_SHIFT);

    if (mode != MODE_16) {
        v->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_WP | X86_CR0_ET;
        v->cr3 = TABLES;
    }
    v->cr4 = how & 2 ? X86_CR4_OSFXSR | X86_CR4_OSXSAVE : 0;
    v->xcr0 = how & 4 ? vec_supported() : X86_XCR0_X87;
    if (how & 8)
        v->cr0 |= X86_CR0_TS;
    v->tsc_host = how & 16;
    v->cr4 |= mode == MODE_64 ? X86_CR4_PAE | X86_CR4_PGE : 0;
    v->efer = mode == MODE_64 ? X86_EFER_LME | X86_EFER_LMA : 0;
    for (unsigned s = 0; s < SEG_COUNT && mode != MODE_16; s++) {
        /* Two bits of ODD for each: flat, with a base, with a limit, read-only or 16-bit.
         */
        unsigned what = odd >> (2 * s) & 3;
        uint16_t ar = s == SEG_CS ? (mode == MODE_64 ? 0xa09b : 0xc09b) : 0xc093;

        if (what == 3 && s != SEG_CS)
            ar = s == SEG_SS ? 0x0093 : 0xc091;
        v->seg[s] = (struct segment){.sel = (uint16_t)(8 * s + 8 + dpl),
                                     .ar = ar | dpl_ar,
                                     .limit = what == 2 ? 0xffff : UINT32_MAX,
                                     .base = what == 1 && s != SEG_CS ? 0x1234 : 0};
    }
    v->cpl = mode == MODE_16 ? 0 : (uint8_t)dpl;
}

static void count_line(void *arg, const char *text) {
    *(size_t *)arg += strlen(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};
    enum cpu_mode mode = (enum cpu_mode)(fuzz_get(&in, 1) % 3);
    unsigned how = (unsigned)fuzz_get(&in, 1);
    uint32_t odd = (uint32_t)fuzz_get(&in, 2), at;
    size_t written = 0;
    struct bt_listing out = {.line = count_line, .arg = &written};
    struct guest *vm;
    uint32_t len;
    int rc;

    set_up();
    vm = &vms[how >> 6 & 1 ? 1 : how >> 7 & 1 ? 2 : 0];
    guest_reset(vm);
    decode_all(vm->v, &in);
    len = (uint32_t)(in.left < CODE_MAX ? in.left : CODE_MAX);
    if (!len)
        return 0;
    map(vm, mode, how & 32);
    /* An end that is a page's, or a little behind it. */
    at = CODE + 4096 - len + (odd >> 12 & 15);
    memcpy(vm->ram + at, in.p, len);
    set_mode(vm->v, mode, how, odd);
    vm->v->rip = at;
    if (mode == MODE_16)
        vm->v->seg[SEG_CS] = (struct segment){.ar = 0x9b, .limit = 0xffff};
    guest_state_changed(vm);
    rc = bt_list(vm->bt, at, len, &out);
    /* Every byte may begin a fragment, and a cache of 1 MiB be too small for them all. */
    HOLDS(!rc || rc == -ENOSPC);
    guest_check(vm);
    return 0;
}
