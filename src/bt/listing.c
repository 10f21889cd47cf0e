/*
 * Listings: guest code, IR and host code of everything that direct branches reach in a
 * piece of guest code, made by the translator itself.
 *
 * A list is worked off: each address gets a TU through bt_translate(), whose targets and
 * successor join the list. Then all exits are chained as the dispatcher would chain
 * them, and the units are printed by address. 16-bit code, which is the interpreter's,
 * gets guest code and IR alone.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/vec.h"
#include "decode/decode.h"
#include "list/list_int.h"

void list_line(const struct list *l, const char *fmt, ...) {
    char text[LIST_LINE];
    size_t end;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    end = strlen(text);
    while (end && text[end - 1] == ' ')
        text[--end] = '\0';
    l->out->line(l->out->arg, text);
}

bool list_inside(const struct list *l, uint64_t va) {
    return va - l->from < l->len;
}

char *list_guest_text(const struct insn *i, uint64_t va, char *buf, size_t size) {
    char *number = strstr(decode_format(i, va, buf, size), "0x00");

    if (number) {
        char *digit = number + 2;

        while (*digit == '0' && digit[1] && strchr("0123456789ABCDEF", digit[1]))
            digit++;
        memmove(number + 2, digit, strlen(digit) + 1);
    }
    return buf;
}

/* --- the IR --- */

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
    return (flags | weak) & FLAGS_ALL ? buf : ".";
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

static bool branch_offset(const struct insn *i) {
    return i->op == OP_jcc || i->op == OP_jcxz || i->op == OP_loop || i->op == OP_loope ||
           i->op == OP_loopne || ((i->op == OP_jmp || i->op == OP_call) && !i->nops);
}

static void ir_text(const struct insn *i, char *buf, size_t size) {
    int at = snprintf(buf, size, "%s", decode_op_name((enum op)i->op));

    if (i->rep)
        at += snprintf(buf + at, size - (size_t)at, " rep");
    if (i->flags & INSN_LOCK)
        at += snprintf(buf + at, size - (size_t)at, " lock");
    if (branch_offset(i))
        at += snprintf(buf + at, size - (size_t)at, " %+lld", (long long)i->imm);
    for (unsigned k = 0; k < i->nops && (size_t)at + 40 < size; k++) {
        if (branch_offset(i) && i->opnd[k].kind == OPND_IMM)
            continue;
        at += snprintf(buf + at, size - (size_t)at, k ? ", " : " ");
        at += operand_text(i, &i->opnd[k], buf + at, size - (size_t)at);
    }
}

static void bytes_text(const struct insn *i, char *buf) {
    for (unsigned k = 0; k < i->len && k < sizeof(i->bytes); k++)
        sprintf(buf + 2 * k, "%02x", i->bytes[k]);
}

static void list_ir(const struct list *l, const struct list_unit *u) {
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

/* --- the units --- */

static void want(struct list *l, uint64_t va) {
    uint64_t off = va - l->from;

    if (off >= l->len || l->seen[off])
        return;
    l->seen[off] = 1;
    l->todo[l->last++] = (uint32_t)off;
}

static struct list_unit *add_unit(struct list *l, uint64_t va) {
    if (l->count == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        struct list_unit *units = realloc(l->units, room * sizeof(*units));

        if (!units)
            return NULL;
        l->units = units;
        l->room = room;
    }
    l->units[l->count] = (struct list_unit){.va = va};
    return &l->units[l->count++];
}

/* Whether the instruction behind I may run after it: after a call, when it returns. */
static bool goes_on(const struct insn *i) {
    switch (i->op) {
    case OP_jmp:
    case OP_ret:
    case OP_jmp_far:
    case OP_ret_far:
    case OP_iret:
    case OP_sysret:
    case OP_sysexit:
    case OP_ud:
    case OP_invalid:
    case OP_hlt:
    case OP_int3:
        return i->op == OP_hlt;
    default:
        return true;
    }
}

static uint64_t cut(const struct insn *i, uint64_t near, uint64_t va) {
    if (i->mode == MODE_64)
        return va;
    if (i->mode == MODE_32)
        return (uint32_t)va;
    return (near & ~0xffffull) | (va & 0xffff);
}

static void want_successors(struct list *l, const struct list_unit *u) {
    const struct tu_insn *last = &u->insn[u->n - 1];
    uint64_t next = last->va + last->i.len;

    for (unsigned k = 0; u->c && k < u->c->nlinks; k++)
        want(l, u->c->links[k].target);
    if (branch_offset(&last->i))
        want(l, cut(&last->i, u->va, next + (uint64_t)last->i.imm));
    if (goes_on(&last->i))
        want(l, cut(&last->i, u->va, next));
}

static int copy_tu(struct list_unit *u, const struct tu_insn *insn, unsigned n) {
    u->insn = malloc(n * sizeof(*insn));
    if (!u->insn)
        return -ENOMEM;
    memcpy(u->insn, insn, n * sizeof(*insn));
    u->n = n;
    return 0;
}

static int translate_unit(struct list *l, uint64_t va) {
    struct bt *bt = l->bt;
    struct list_unit *u = add_unit(l, va);
    bool fault;

    if (!u)
        return -ENOMEM;
    bt->v->rip = va;
    for (;;) {
        u->c = bt_translate(bt, bt_key(bt->v), &fault);
        if (u->c || fault || bt->unit + 1 == bt->nunits)
            break;
        bt_make_room(bt); /* in a unit that has not been used */
    }
    vec_park(bt->v);
    if (!u->c)
        return fault ? 0 : -ENOSPC;
    return copy_tu(u, bt->tr->insn, bt->tr->n);
}

/* 16-bit code: up to the end of a block, as the interpreter takes it. */
static int decode_unit(struct list *l, uint64_t va) {
    struct list_unit *u = add_unit(l, va);
    struct tu_insn *tu = l->bt->tr->insn;
    unsigned n = 0, off = 0;

    if (!u)
        return -ENOMEM;
    while (n < BT_TU_DEFAULT && list_inside(l, va + off)) {
        uint8_t bytes[15] = {0};
        unsigned have = 0;

        while (have < sizeof(bytes) && list_inside(l, va + off + have)) {
            const uint8_t *p = mmu_fetch(l->bt->v, gva(va + off + have));

            if (!p)
                break;
            bytes[have++] = *p;
        }
        tu[n] = (struct tu_insn){.va = va + off};
        if (decode_insn(MODE_16, bytes, have, &tu[n].i) != DECODE_OK)
            break;
        off += tu[n].i.len;
        if (tu[n++].i.flags & INSN_ENDS_BLOCK)
            break;
    }
    return n ? copy_tu(u, tu, n) : 0;
}

static int by_address(const void *a, const void *b) {
    const struct list_unit *x = a, *y = b;

    return x->va < y->va ? -1 : x->va > y->va;
}

static struct ccf *fragment_at(const struct list *l, uint64_t va) {
    struct list_unit key = {.va = va};
    struct list_unit *u =
        bsearch(&key, l->units, l->count, sizeof(*l->units), by_address);

    return u ? u->c : NULL;
}

static int build(struct list *l) {
    bool real = l->bt->v->mode == MODE_16;

    want(l, l->bt->v->rip);
    while (l->next < l->last) {
        uint64_t va = l->from + l->todo[l->next++];
        int rc = real ? decode_unit(l, va) : translate_unit(l, va);

        if (rc)
            return rc;
        if (l->units[l->count - 1].n)
            want_successors(l, &l->units[l->count - 1]);
    }
    qsort(l->units, l->count, sizeof(*l->units), by_address);
    for (size_t n = 0; n < l->count; n++) {
        struct ccf *c = l->units[n].c;

        for (unsigned k = 0; c && k < c->nlinks; k++) {
            struct ccf *to = fragment_at(l, c->links[k].target);

            if (to)
                bt_link(l->bt, &c->links[k], to);
        }
    }
    return 0;
}

/* --- what is printed --- */

/* 0 or -ENOMEM. */
static int print_unit(const struct list *l, size_t n) {
    const struct list_unit *u = &l->units[n];

    if (!u->n) {
        list_line(l,
                  "TU %zu: 0x%llx: not translated: there is no instruction that can be "
                  "fetched here",
                  n + 1, (unsigned long long)u->va);
        return 0;
    }
    list_line(l, "TU %zu: 0x%llx, %u instruction%s", n + 1, (unsigned long long)u->va,
              u->n, u->n == 1 ? "" : "s");
    list_ir(l, u);
    if (!u->c)
        return 0;
    list_line(l, "%s", "");
    list_line(l, "CCF %zu: %u bytes of guest code, %u of host code", n + 1,
              u->c->guest_len, (unsigned)(u->c->end - u->c->code));
    return list_host(l, u);
}

static void print_sum(const struct list *l) {
    unsigned links = 0, chained = 0, guest = 0, host = 0;

    for (size_t n = 0; n < l->count; n++) {
        const struct ccf *c = l->units[n].c;

        if (!c)
            continue;
        guest += c->guest_len;
        host += (unsigned)(c->end - c->code);
        links += c->nlinks;
        for (unsigned k = 0; k < c->nlinks; k++)
            chained += c->links[k].to != NULL;
    }
    list_line(l,
              "%zu TU%s, %u bytes of guest code, %u of host code; %u of %u exits chained",
              l->count, l->count == 1 ? "" : "s", guest, host, chained, links);
}

static int print(const struct list *l) {
    bool real = l->bt->v->mode == MODE_16;
    int rc = 0;

    if (real)
        list_line(l, "16-bit code is not translated: the interpreter executes it. Guest "
                     "code and IR:");
    for (size_t n = 0; n < l->count && !rc; n++) {
        if (n || real)
            list_line(l, "%s", "");
        rc = print_unit(l, n);
    }
    if (real || rc)
        return rc;
    list_line(l, "%s", "");
    print_sum(l);
    return 0;
}

int bt_list(struct bt *bt, uint64_t from, uint32_t len, const struct bt_listing *out) {
    struct list l = {.bt = bt, .out = out, .from = from, .len = len};
    int rc = -ENOMEM;

    vec_park(bt->v);
    bt_flush(bt);
    l.seen = calloc(len ? len : 1, 1);
    l.todo = malloc((size_t)(len ? len : 1) * sizeof(*l.todo));
    if (l.seen && l.todo)
        rc = build(&l);
    if (!rc && bt->unsound)
        rc = -EBADMSG;
    if (!rc)
        rc = print(&l);
    for (size_t n = 0; n < l.count; n++)
        free(l.units[n].insn);
    free(l.units);
    free(l.todo);
    free(l.seen);
    return rc;
}
