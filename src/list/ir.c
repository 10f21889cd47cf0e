/* The instructions of a TU as text: bytes, guest code, IR, flags. (lint: no guest runs
 * here) */
#include <stdio.h>

#include "decode/decode.h"
#include "list/list_int.h"
#include "x86/cr.h"

/* "OSZAPC" with '-' for what is not in FLAGS; lower case for what is in WEAK. */
static const char *flag_text(unsigned flags, unsigned weak, char *buf) {
    static const struct {
        char name;
        unsigned bit;
    } order[] = {{'O', X86_FL_OF}, {'S', X86_FL_SF}, {'Z', X86_FL_ZF},
                 {'A', X86_FL_AF}, {'P', X86_FL_PF}, {'C', X86_FL_CF}};

    for (size_t k = 0; k < ARRAY_SIZE(order); k++)
        buf[k] = flags & order[k].bit  ? order[k].name
                 : weak & order[k].bit ? (char)(order[k].name + ('a' - 'A'))
                                       : '-';
    buf[ARRAY_SIZE(order)] = '\0';
    return (flags | weak) & X86_FL_STATUS ? buf : ".";
}

/* From the one byte of tu_insn. */
static unsigned unpack_flags(unsigned packed) {
    return (packed & ~2u) | (packed & 2 ? X86_FL_OF : 0);
}

static const char *access_text(unsigned access) {
    static const char *const names[] = {"", "r ", "w ", "rw "};

    return names[access & 3];
}

static int operand_text(const struct insn *i, const struct operand *o, char *buf,
                        size_t size) {
    static const char *const regs[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                       "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                       "r12", "r13", "r14", "r15", "0",   "rip"};
    static const char *const segs[] = {"es", "cs", "ss", "ds", "fs", "gs"};
    const char *acc = access_text(o->access);

    switch (o->kind) {
    case OPND_REG:
        return snprintf(buf, size, "%s%s%s.%u", acc, o->reg < 18 ? regs[o->reg] : "?",
                        o->off & 1 ? "+1" : "", o->size * 8u);
    case OPND_MEM:
        return snprintf(buf, size, "%s%s:mem.%u", acc,
                        i->mem.seg < SEG_COUNT ? segs[i->mem.seg] : "?",
                        i->mem.size * 8u);
    case OPND_IMM:
        return i->imm < 0 ? snprintf(buf, size, "-0x%llx", -(unsigned long long)i->imm)
                          : snprintf(buf, size, "0x%llx", (unsigned long long)i->imm);
    case OPND_SEG:
        return snprintf(buf, size, "%s%s", acc, o->reg < SEG_COUNT ? segs[o->reg] : "?");
    case OPND_CR:
        return snprintf(buf, size, "%scr%u", acc, o->reg);
    case OPND_DR:
        return snprintf(buf, size, "%sdr%u", acc, o->reg);
    case OPND_VEC:
        return snprintf(buf, size, "%svec%u.%u", acc, o->reg, o->size * 8u);
    default:
        return snprintf(buf, size, "?");
    }
}

bool list_branches(const struct insn *i) {
    return i->op == OP_jcc || i->op == OP_jcxz || i->op == OP_loop || i->op == OP_loope ||
           i->op == OP_loopne || ((i->op == OP_jmp || i->op == OP_call) && !i->nops);
}

static void ir_text(const struct insn *i, char *buf, size_t size) {
    int at = snprintf(buf, size, "%s", decode_op_name((enum op)i->op));

    if (i->rep)
        at += snprintf(buf + at, size - (size_t)at, " rep");
    if (i->flags & INSN_LOCK)
        at += snprintf(buf + at, size - (size_t)at, " lock");
    if (list_branches(i))
        at += snprintf(buf + at, size - (size_t)at, " %+lld", (long long)i->imm);
    for (unsigned k = 0; k < i->nops && (size_t)at + 40 < size; k++) {
        if (list_branches(i) && i->opnd[k].kind == OPND_IMM)
            continue;
        at += snprintf(buf + at, size - (size_t)at, k ? ", " : " ");
        at += operand_text(i, &i->opnd[k], buf + at, size - (size_t)at);
    }
}

static void bytes_text(const struct insn *i, char *buf) {
    for (unsigned k = 0; k < i->len && k < sizeof(i->bytes); k++)
        sprintf(buf + 2 * k, "%02x", i->bytes[k]);
}

void list_ir(const struct list *l, const struct list_unit *u) {
    int width = l->from > UINT32_MAX ? 18 : 10;

    list_line(l, "  %-*s %-20s %-32s %-32s %-6s %-6s %s", width, "guest", "bytes",
              "instruction", "IR", "reads", "writes", u->c ? "live" : "");
    for (unsigned k = 0; k < u->n; k++) {
        const struct insn *i = &u->insn[k].i;
        uint64_t va = u->insn[k].va;
        char bytes[40], text[96], ir[128], rd[8], wr[8], live[8];

        bytes_text(i, bytes);
        ir_text(i, ir, sizeof(ir));
        list_line(
            l, "  0x%-*llx %-20s %-32s %-32s %-6s %-6s %s", width - 2,
            (unsigned long long)va, bytes, list_guest_text(i, va, text, sizeof(text)), ir,
            flag_text(i->fl_read, 0, rd), flag_text(i->fl_written, i->fl_undefined, wr),
            !list_inside(l, va) ? "(behind the code)"
            : u->c              ? flag_text(unpack_flags(u->insn[k].live_out), 0, live)
                                : "");
    }
}
