/*
 * Instructions that were decoded before, by their bytes. Code repeats itself, and
 * decoding takes several times as long as looking.
 *
 * A displacement, of memory or of a branch, is no part of what is looked for: it is read
 * from the bytes each time, so that all calls are one entry, and all loads of a register
 * off another.
 *
 * How long an instruction is, and where its displacement, is guessed from its first
 * bytes: as with the last one that began with them. The guess cannot be wrong in what is
 * found: bytes that were decoded to an instruction of that length are one whatever
 * follows them, and with whatever displacement.
 */
#include "decode/memo.h"

#include <stdlib.h>
#include <string.h>

#define HINT_BITS 14
#define ENTRY_BITS 13
#define LEN_MAX 8u

/* Of an instruction: its bytes, and those of its displacement. */
struct shape {
    uint8_t len;   /* 0: none */
    uint8_t at, n; /* N is 0, 1 or 4 */
};

struct entry {
    uint64_t bytes; /* behind its end, and where the displacement is: 0 */
    struct shape shape;
    struct insn insn;
};

/* Entries lie in the order in which their slots were used first, so that few take little
 * memory. */
struct decode_memo {
    struct shape hint[1u << HINT_BITS];
    uint16_t at[1u << ENTRY_BITS]; /* of each slot: its entry's number; 0: it has none */
    uint16_t used;                 /* numbers, from 1 on */
    struct entry entry[(1u << ENTRY_BITS) + 1];
};

struct decode_memo *decode_memo_new(void) {
    return calloc(1, sizeof(struct decode_memo));
}

void decode_memo_free(struct decode_memo *m) {
    free(m);
}

static unsigned hash(uint64_t bytes, unsigned bits) {
    return (unsigned)(bytes * 0x9e3779b97f4a7c15ull >> (64 - bits));
}

/* The first N of them; N is 1 to 8. */
static uint64_t first(uint64_t bytes, unsigned n) {
    return bytes & ~0ull >> (64 - 8 * n);
}

static uint64_t key_of(uint64_t ahead, struct shape s) {
    uint64_t hole = s.n ? first(~0ull, s.n) << (8 * s.at) : 0;

    return first(ahead, s.len) & ~hole;
}

/* Entry 0, which is empty: the slot has none. */
static struct entry *entry_of(struct decode_memo *m, uint64_t key) {
    return &m->entry[m->at[hash(key, ENTRY_BITS)]];
}

static struct entry *new_entry(struct decode_memo *m, uint64_t key) {
    uint16_t *at = &m->at[hash(key, ENTRY_BITS)];

    if (!*at)
        *at = ++m->used;
    return &m->entry[*at];
}

/* --- guessing --- */

static bool is_prefix(uint8_t b) {
    return b == 0x66 || b == 0xf2 || b == 0xf3 || (b & 0xf0) == 0x40;
}

/* PUSH, POP, Jcc, MOV of a constant, CALL and JMP, RET, LEAVE, NOP. */
static bool has_no_modrm(uint8_t op) {
    return (op & 0xf0) == 0x50 || (op & 0xf0) == 0x70 || (op & 0xf0) == 0xb0 ||
           (op & 0xfe) == 0xe8 || op == 0xeb || op == 0xc3 || op == 0xc9 || op == 0x90;
}

/* How many of the first bytes tell: up to the opcode, and ModRM and SIB if they are there
 * (AMD64 APM volume 3, "Instruction Encoding"). */
static unsigned telling(uint64_t ahead) {
    unsigned n = is_prefix((uint8_t)ahead);
    uint8_t op = (uint8_t)(ahead >> 8 * n), next = (uint8_t)(ahead >> (8 * n + 8));

    if (op == 0x0f)
        return n + ((next & 0xf0) == 0x80 ? 2 : 3);
    if (n && is_prefix(op))
        return 4;
    if (has_no_modrm(op))
        return n + 1;
    return n + (next < 0xc0 && (next & 7) == 4 ? 3 : 2);
}

/* --- displacements --- */

static int64_t displacement(uint64_t ahead, struct shape s) {
    uint64_t bytes = ahead >> (8 * s.at);

    return s.n == 1 ? (int8_t)bytes : (int32_t)bytes;
}

static bool is_branch(const struct insn *i) {
    return (i->op == OP_jcc || i->op == OP_jmp || i->op == OP_call) && !i->nops;
}

static bool has_mem(const struct insn *i) {
    for (unsigned n = 0; n < i->nops; n++)
        if (i->opnd[n].kind == OPND_MEM)
            return true;
    return false;
}

/* Where ModRM's displacement is; an EVEX prefix has it multiplied. */
static struct shape shape_of_mem(const struct insn *i) {
    uint8_t modrm = i->bytes[i->off_modrm], mod = modrm >> 6, base = modrm & 7;
    struct shape s = {.len = i->len, .at = (uint8_t)(i->off_modrm + 1)};

    if (base == 4)
        base = i->bytes[s.at++] & 7;
    if (mod == 1)
        s.n = 1;
    else if (mod == 2 || (mod == 0 && base == 5))
        s.n = 4;
    return s;
}

static struct shape shape_of(const struct insn *i) {
    if (is_branch(i) && (i->imm_len == 1 || i->imm_len == 4) &&
        i->off_imm + i->imm_len == i->len)
        return (struct shape){i->len, i->off_imm, i->imm_len};
    if (i->off_modrm && has_mem(i) && i->addrsize > 2 && i->vex_len < 4 &&
        !(i->flags & INSN_NO_MODRM_MEM))
        return shape_of_mem(i);
    return (struct shape){.len = i->len};
}

static void set_displacement(struct insn *i, uint64_t ahead, struct shape s) {
    int64_t disp = displacement(ahead, s);

    memcpy(i->bytes + s.at, (uint8_t *)&ahead + s.at, s.n);
    if (is_branch(i))
        i->imm = disp;
    else
        i->mem.disp = disp + (i->mem.base == REG_RIP ? i->len : 0);
}

enum decode_result decode_memo_insn(struct decode_memo *m, enum cpu_mode mode,
                                    const uint8_t *bytes, size_t len, struct insn *i) {
    enum decode_result r;
    uint64_t ahead, key;
    struct shape *hint;
    struct entry *e;

    if (len < LEN_MAX)
        return decode_insn(mode, bytes, len, i);
    memcpy(&ahead, bytes, sizeof(ahead));
    hint = &m->hint[hash(first(ahead, telling(ahead)), HINT_BITS)];
    if (hint->len) {
        key = key_of(ahead, *hint);
        e = entry_of(m, key);
        if (e->bytes == key && !memcmp(&e->shape, hint, sizeof(*hint)) &&
            e->insn.mode == mode) {
            *i = e->insn;
            if (hint->n)
                set_displacement(i, ahead, *hint);
            return DECODE_OK;
        }
    }
    r = decode_insn(mode, bytes, len, i);
    if (r != DECODE_OK || i->len > LEN_MAX)
        return r;
    *hint = shape_of(i);
    key = key_of(ahead, *hint);
    e = new_entry(m, key);
    e->bytes = key;
    e->shape = *hint;
    e->insn = *i;
    return r;
}
