/*
 * Locked accesses that cross a cache line, in a cell.
 *
 * They are the host's own there. Many a host delays who makes them, by a fifth of a
 * millisecond or by many (Linux, Documentation/arch/x86/buslock.rst), and the other CPUs
 * with him; translated, they take microseconds (docs/bt.md, "Many vCPUs"). Nobody tells,
 * but a program that makes them is hardly anywhere else: a kick finds it in front of such
 * an instruction, or right behind it, where the delay is.
 */
#include "decode/decode.h"
#include "direct/direct_int.h"

#define LONGEST 15u /* an instruction */

/* There is neither a LOCK prefix nor an XCHG. */
static bool has_none(const uint8_t *code, unsigned from, unsigned to) {
    for (; from < to; from++)
        if (code[from] == 0xf0 || (code[from] & 0xfe) == 0x86)
            return false;
    return true;
}

static bool is_locked(const struct insn *i) {
    return i->mem.size && ((i->flags & INSN_LOCK) || i->op == OP_xchg);
}

/* I is at START. Registers are as they are at rip: none but its own result has changed.
 */
static bool crosses_line(const struct vcpu *v, const struct insn *i, uint64_t start) {
    const struct mem_operand *m = &i->mem;
    uint64_t at = v->gpr[m->base] + (v->gpr[m->index] << m->scale) + (uint64_t)m->disp;

    if (m->base == REG_RIP)
        at += start - v->rip;
    if (i->addrsize == 4)
        at = (uint32_t)at;
    return (at + v->segbase[m->seg]) % 64 + m->size > 64;
}

bool direct_at_split(struct vcpu *v) {
    unsigned at = v->rip & 4095, from = at > LONGEST ? at - LONGEST : 0;
    unsigned end = at < 4096 - LONGEST ? at + LONGEST : 4096;
    const uint8_t *code;
    struct gpa where;
    bool writable;

    if (!mmu_peek(v, gva(v->rip & ~4095ull), &where, &writable))
        return false;
    code = mem_host(v->mem, where, 4096);
    if (!code || has_none(code, from, end))
        return false;
    for (; from <= at; from++) {
        struct insn i;

        if (decode_insn(MODE_64, code + from, end - from, &i) == DECODE_OK &&
            (from == at || from + i.len == at) && is_locked(&i) &&
            crosses_line(v, &i, v->rip - (at - from)))
            return true;
    }
    return false;
}
