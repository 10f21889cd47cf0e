/*
 * Host code as text, for listings: a fragment's bytes are decoded one instruction after
 * the other, addresses that mean something get their names, and the places where
 * translated code is entered, comes back and leaves are marked:
 *
 *   *  an entry point of the fragment
 *   >  a continuation: where the slow path or a callout comes back
 *   =  an exit to a guest address, chained or not
 *   !  a callout
 *
 * Offsets count from the fragment's first byte. Nothing that differs from one run to
 * the next is printed. (lint: no guest runs here)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode/decode.h"
#include "list/list_int.h"
#include "mem/mem.h"

/* --- names --- */

struct field {
    uint16_t off, size;
    const char *name;
};

#define FIELD(f)                                                                         \
    { offsetof(struct vcpu, f), sizeof(((struct vcpu *)0)->f), #f }

#define OURS(f)                                                                          \
    { GS_TR(f), sizeof(((struct tr_vcpu *)0)->f), "bt." #f }

static const struct field fields[] = {
    FIELD(gpr),
    FIELD(rflags),
    FIELD(events),
    FIELD(mode),
    FIELD(cpl),
    FIELD(irq_shadow),
    FIELD(halted),
    FIELD(seg_flat_r),
    FIELD(seg_flat_w),
    FIELD(vec_live),
    FIELD(stack32),
    FIELD(leave_code),
    FIELD(segbase),
    FIELD(lin_mask),
    FIELD(mmu),
    FIELD(cnt),
    OURS(host_sp),
    OURS(resume),
    OURS(tmp),
    OURS(spill),
    OURS(held),
    OURS(count),
    OURS(self),
    OURS(owner),
    FIELD(shadow.bank),
    FIELD(shadow.bank_super),
    FIELD(shadow.bank_ac),
    OURS(jump),
    OURS(poll),
    OURS(arg),
    OURS(reason),
    OURS(site),
    FIELD(x87_at),
    OURS(status),
    FIELD(shadow.code),
    OURS(here),
    OURS(x87_here),
    OURS(flags),
    FIELD(cr0),
    FIELD(cr2),
    FIELD(cr3),
    FIELD(cr4),
    FIELD(efer),
    FIELD(vec),
    FIELD(seg),
    FIELD(kernel_gs_base),
    FIELD(tsc_base),
    FIELD(tsc_aux),
};

static const char *const reg_names[REG_COUNT] = {
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",  "r8",
    "r9",  "r10", "r11", "r12", "r13", "r14", "r15", "zero", "rip"};
static const char *const seg_names[SEG_COUNT] = {"es", "cs", "ss", "ds", "fs", "gs"};

static const char *segment_part(size_t off) {
    return off == offsetof(struct segment, sel)     ? "sel"
           : off == offsetof(struct segment, ar)    ? "ar"
           : off == offsetof(struct segment, limit) ? "limit"
           : off == offsetof(struct segment, base)  ? "base"
                                                    : "?";
}

/* The byte at OFF, which is negative, in front of the vCPU. */
static void count_name(uint64_t off, char *buf, size_t size) {
    static const struct tr_counts *const c;
    uint64_t in = off - GS_COUNTS(heat);

    if (in < sizeof(c->heat))
        snprintf(buf, size, "heat[%u]", (unsigned)(in / sizeof(c->heat[0])));
    else
        snprintf(buf, size, "guess[%u]",
                 (unsigned)((in - sizeof(c->heat)) / sizeof(c->guess[0])));
}

/* The vCPU's byte OFF: its field's name. */
static void field_name(uint64_t off, char *buf, size_t size) {
    if ((int64_t)off < 0) {
        count_name(off, buf, size);
        return;
    }
    for (size_t k = 0; k < ARRAY_SIZE(fields); k++) {
        const struct field *f = &fields[k];
        unsigned in = (unsigned)(off - f->off);

        if (off < f->off || in >= f->size)
            continue;
        if (f->off == offsetof(struct vcpu, gpr) && !(in & 7))
            snprintf(buf, size, in / 8 < REG_ZERO ? "gpr.%s" : "%s", reg_names[in / 8]);
        else if (f->off == offsetof(struct vcpu, segbase) && !(in & 7))
            snprintf(buf, size, "segbase.%s", seg_names[in / 8]);
        else if (f->off == offsetof(struct vcpu, seg))
            snprintf(buf, size, "seg.%s.%s", seg_names[in / sizeof(struct segment)],
                     segment_part(in % sizeof(struct segment)));
        else if (in)
            snprintf(buf, size, "%s+%u", f->name, in);
        else
            snprintf(buf, size, "%s", f->name);
        return;
    }
    snprintf(buf, size, "vcpu+0x%llx", (unsigned long long)off);
}

static const char *stub_name(const struct tr_env *env, const uint8_t *rx) {
    const struct {
        const uint8_t *at;
        const char *name;
    } stubs[] = {
        {env->stub.enter, "enter"},
        {env->stub.leave, "leave"},
        {env->stub.emulate, "emulate"},
        {env->stub.leave_bare, "leave_bare"},
        {env->stub.slow, "slow"},
        {env->stub.anchor[MMU_READ], "anchor for reads"},
        {env->stub.anchor[MMU_WRITE], "anchor for writes"},
        {env->stub.callout, "callout"},
        {env->stub.transfer, "transfer"},
        {env->stub.gate[TR_GATE_SYSCALL], "gate of SYSCALL"},
        {env->stub.gate[TR_GATE_SYSRET], "gate of SYSRET"},
        {env->stub.gate[TR_GATE_SYSENTER], "gate of SYSENTER"},
        {env->stub.gate[TR_GATE_SYSEXIT], "gate of SYSEXIT"},
        {env->stub.link, "link"},
        {env->stub.link_regs, "link with flags"},
        {env->stub.indirect, "indirect"},
        {env->stub.check, "check"},
        {env->stub.check_shared, "check"},
        {env->stub.hot, "hot"},
    };

    for (size_t k = 0; k < ARRAY_SIZE(stubs); k++)
        if (stubs[k].at == rx)
            return stubs[k].name;
    return rx >= env->code.rx && rx < env->common_end ? "common code" : NULL;
}

static bool in_fragment(const struct tr_code *c, const uint8_t *rx) {
    return rx >= c->start && rx < c->end;
}

static const char *entry_name(const struct tr_code *c, const uint8_t *rx) {
    return rx == c->entry_jump    ? "entry_jump"
           : rx == c->entry_check ? "entry_check"
           : rx == c->entry_mem   ? "entry_mem"
           : rx == c->entry_regs  ? "entry_regs"
                                  : NULL;
}

/* The place RX of the cache, seen from fragment C. */
static void place_name(const struct list *l, const struct tr_code *c, const uint8_t *rx,
                       char *buf, size_t size) {
    const char *stub = stub_name(l->env, rx);

    if (in_fragment(c, rx)) {
        snprintf(buf, size, "+%03x", (unsigned)(rx - c->start));
        return;
    }
    if (stub) {
        snprintf(buf, size, "<%s>", stub);
        return;
    }
    for (size_t n = 0; n < l->count; n++) {
        const struct tr_code *to = l->units[n].c;

        if (!to || !in_fragment(to, rx))
            continue;
        if (entry_name(to, rx))
            snprintf(buf, size, "<CCF %zu %s>", n + 1, entry_name(to, rx));
        else
            snprintf(buf, size, "<CCF %zu +%03x>", n + 1, (unsigned)(rx - to->start));
        return;
    }
    snprintf(buf, size, "<outside>");
}

static bool within(const void *p, const void *from, size_t size) {
    return (uintptr_t)p - (uintptr_t)from < size;
}

/* Is P one of COUNT things of SIZE bytes? A guest's number may look nearly like it. */
static bool one_of(const void *p, const void *from, size_t count, size_t size) {
    return within(p, from, count * size) && ((uintptr_t)p - (uintptr_t)from) % size == 0;
}

/* What the shadow says where that page of the code is mapped. */
static bool is_mapping(uint64_t value, uint64_t va, const uint8_t *page) {
    return page && value == mmu_mapping(va, page);
}

/* A number that is an address of ours: its name. False: it is just a number. */
static bool pointer_name(const struct list *l, const struct tr_code *c, uint64_t value,
                         char *buf, size_t size) {
    const struct tr_env *env = l->env;
    const uint8_t *p = (const uint8_t *)(uintptr_t)value;

    if (within(p, mem_ram_base(env->v->mem), mem_host_size(env->v->mem))) {
        snprintf(buf, size, "<RAM 0x%llx>",
                 (unsigned long long)mem_gpa(env->v->mem, p).a);
    } else if (within(p, c, sizeof(*c))) {
        snprintf(buf, size, "<CCF>");
    } else if (one_of(p, c->links, c->nlinks, sizeof(c->links[0]))) {
        snprintf(buf, size, "<exit %zu>",
                 (size_t)((const struct link *)(const void *)p - c->links));
    } else if (within(p, env->records, env->records_size)) {
        snprintf(buf, size, "<data>");
    } else if (within(p, env->code.rx, env->code.size)) {
        place_name(l, c, p, buf, size);
    } else if (within(p, env->v, sizeof(*env->v))) {
        snprintf(buf, size, "<vcpu>");
    } else if (is_mapping(value, c->va, c->page) || is_mapping(value, c->va2, c->page2)) {
        snprintf(buf, size, "<mapping>");
    } else {
        return false;
    }
    return true;
}

/* --- one instruction --- */

/* Direct near branches. */
static bool is_jump(const struct insn *i) {
    return i->op == OP_jcc || i->op == OP_jcxz || i->op == OP_loop ||
           ((i->op == OP_jmp || i->op == OP_call) &&
            (!i->nops || i->opnd[0].kind == OPND_IMM));
}

static const uint8_t *jump_target(const struct insn *i, const uint8_t *rx) {
    return rx + i->len + i->imm;
}

/* Replaces TEXT from FROM up to TO by NAME. */
static void replace(char *text, size_t size, char *from, const char *to,
                    const char *name) {
    char rest[LIST_LINE];

    snprintf(rest, sizeof(rest), "%s", to);
    snprintf(from, size - (size_t)(from - text), "%s%s", name, rest);
}

/* What stands between the brackets. */
static void replace_address(char *text, size_t size, const char *name) {
    char *open = strchr(text, '['), *close = open ? strchr(open, ']') : NULL;

    if (close)
        replace(text, size, open + 1, close, name);
}

/* T1 points into a shadow bank: the field of an entry that DISP is, and which entry. */
static void entry_field(const struct insn *i, char *buf, size_t size) {
    static const char *const names[] = {"read", "write", "exec", "host"};
    unsigned slot = (unsigned)i->mem.disp / sizeof(struct shadow_entry);

    if (slot >= SHADOW_ENTRIES)
        snprintf(
            buf, size, "r15+anchor %u.%s",
            ((unsigned)i->mem.disp - (unsigned)offsetof(struct shadow_bank, anchor)) /
                (unsigned)sizeof(struct shadow_anchor),
            i->mem.disp & 8 ? "host" : "tag");
    else if (slot)
        snprintf(buf, size, "r15+slot %u.%s", slot, names[i->mem.disp >> 3 & 3]);
    else
        snprintf(buf, size, "r15+%s", names[i->mem.disp >> 3 & 3]);
}

static bool reads_entry(const struct insn *i) {
    return i->mem.base == T1 && i->mem.index == REG_ZERO && i->mem.disp >= 0 &&
           i->opnd[0].kind == OPND_REG && i->opnd[0].reg == T0 &&
           (i->op == OP_add || i->op == OP_sub || i->op == OP_cmp || i->op == OP_mov);
}

static bool mem_absolute(const struct insn *i) {
    return i->mem.base == REG_ZERO && i->mem.index == REG_ZERO;
}

static bool has(const struct insn *i, unsigned kind) {
    for (unsigned k = 0; k < i->nops; k++)
        if (i->opnd[k].kind == kind)
            return true;
    return false;
}

/* A stub that gets the number of a record comes next. */
static bool names_record(const struct list *l, const struct tr_code *c,
                         const struct insn *i, const uint8_t *rx) {
    const struct tr_stubs *stub = &l->env->stub;
    const uint8_t *jmp = rx + i->len, *to;
    int32_t rel;

    if (i->op != OP_mov || i->opnd[0].kind != OPND_REG || i->opnd[0].reg != T0 ||
        c->end - jmp < 5 || *jmp != 0xe9)
        return false;
    memcpy(&rel, jmp + 1, sizeof(rel));
    to = jmp + 5 + rel;
    return to == stub->link || to == stub->link_regs || to == stub->hot;
}

void list_host_text(const struct list *l, const struct tr_code *c, const struct insn *i,
                    const uint8_t *rx, char *text, size_t size) {
    uint64_t imm = (uint64_t)i->imm;
    char name[64];

    if (names_record(l, c, i, rx))
        imm += (uintptr_t)l->env->records;
    decode_format(i, (uint64_t)(rx - c->start), text, size);
    if (is_jump(i)) {
        place_name(l, c, jump_target(i, rx), name, sizeof(name));
        snprintf(text + strcspn(text, " "), size - strcspn(text, " "), " %s", name);
        return;
    }
    if (has(i, OPND_MEM) && i->mem.seg == SEG_GS && mem_absolute(i)) {
        field_name((uint64_t)i->mem.disp, name, sizeof(name));
        replace_address(text, size, name);
    } else if (has(i, OPND_MEM) && i->mem.base == REG_RIP) {
        place_name(l, c, rx + i->mem.disp, name, sizeof(name));
        replace_address(text, size, name);
    } else if (has(i, OPND_MEM) && mem_absolute(i) &&
               (uint64_t)i->mem.disp == (uint64_t)(uintptr_t)l->env->poll_page) {
        replace_address(text, size, "poll page");
    } else if (has(i, OPND_MEM) && mem_absolute(i) &&
               pointer_name(l, c, (uint64_t)i->mem.disp, name, sizeof(name))) {
        replace_address(text, size, name);
    } else if (has(i, OPND_MEM) && reads_entry(i)) {
        entry_field(i, name, sizeof(name));
        replace_address(text, size, name);
    }
    if (i->op == OP_mov && has(i, OPND_IMM) && strstr(text, ", 0x") &&
        pointer_name(l, c, imm, name, sizeof(name)))
        replace(text, size, strstr(text, ", 0x") + 2, "", name);
}

/* --- a fragment --- */

enum { CONT_MAX = 8 * TR_TU_MAX };

struct view {
    const struct list *l;
    const struct list_unit *u;
    const struct tr_code *c;
    struct {
        const uint8_t *at;
        const char *what;
    } cont[CONT_MAX];
    size_t nconts;
    size_t site; /* next one to show */
};

/* False at the end. An undecodable byte is shown as what it is. */
static bool host_insn(const struct tr_code *c, const uint8_t *rx, struct insn *i) {
    uint8_t bytes[15] = {0};
    size_t have = (size_t)(c->end - rx);

    if (rx >= c->end)
        return false;
    if (have > sizeof(bytes))
        have = sizeof(bytes);
    memcpy(bytes, rx, have);
    if (decode_insn(MODE_64, bytes, have, i) != DECODE_OK) {
        *i = (struct insn){.op = OP_invalid, .len = 1};
        i->bytes[0] = bytes[0];
    }
    return true;
}

/* `lea T1, [X]; jmp stub`: the stub comes back to X. */
static void find_conts(struct view *w) {
    struct insn i, before = {0};
    const uint8_t *before_at = NULL;

    for (const uint8_t *rx = w->c->start; host_insn(w->c, rx, &i); rx += i.len) {
        if (is_jump(&i) && before.op == OP_lea && before.mem.base == REG_RIP &&
            before.opnd[0].reg == T1 && w->nconts < CONT_MAX) {
            const uint8_t *to = jump_target(&i, rx);
            const struct tr_env *env = w->l->env;
            bool slow = to == env->stub.slow || to == env->stub.anchor[MMU_READ] ||
                        to == env->stub.anchor[MMU_WRITE];
            const char *what = slow                     ? "slow path comes back"
                               : tr_is_callout(env, to) ? "callout comes back"
                                                        : NULL;

            if (what) {
                w->cont[w->nconts].at = before_at + before.mem.disp;
                w->cont[w->nconts++].what = what;
            }
        }
        before = i;
        before_at = rx;
    }
}

static void print_label(const struct view *w, char mark, const char *text) {
    list_line(w->l, "  %-40s %c %s", "", mark, text);
}

static void print_labels(const struct view *w, const uint8_t *rx) {
    const struct tr_code *c = w->c;

    if (rx == c->entry_jump)
        print_label(w, '*', "entry_jump");
    if (rx == c->entry_check)
        print_label(w, '*', "entry_check");
    if (rx == c->entry_mem)
        print_label(w, '*', "entry_mem");
    if (rx == c->entry_regs)
        print_label(w, '*', "entry_regs");
    for (size_t k = 0; k < w->nconts; k++)
        if (w->cont[k].at == rx)
            print_label(w, '>', w->cont[k].what);
    for (unsigned k = 0; k < c->nlinks; k++) {
        char text[64];

        if (c->links[k].stub != rx)
            continue;
        snprintf(text, sizeof(text), "exit %u, while not chained", k);
        print_label(w, '=', text);
    }
}

/* The guest instruction whose expansion begins at RX, if any. */
static const struct tu_insn *guest_at(struct view *w, const uint8_t *rx) {
    const struct tr_code *c = w->c;

    for (; w->site < c->nsites; w->site++) {
        const struct site *s = &c->sites[w->site];

        if (s->poll)
            continue;
        if (c->start + s->host != rx)
            return NULL;
        w->site++;
        for (unsigned k = 0; k < w->u->n; k++)
            if (w->u->insn[k].va == tr_site_va(c, s, c->va & ~4095ull))
                return &w->u->insn[k];
    }
    return NULL;
}

/* What a host instruction does, beyond its text: MARK and NOTE. */
static void annotate(const struct view *w, const struct insn *i, const uint8_t *rx,
                     const struct tu_insn *guest, char *mark, char *note, size_t size) {
    const struct tr_code *c = w->c;

    *mark = ' ';
    *note = '\0';
    for (unsigned k = 0; k < c->nlinks; k++) {
        const struct link *ln = &c->links[k];
        const uint8_t *rel = ln->rel32 + tr_delta(w->l->env);

        if (rel < rx || rel >= rx + i->len)
            continue;
        *mark = '=';
        snprintf(note, size, "; exit %u to 0x%llx%s", k,
                 (unsigned long long)list_target(c, k),
                 ln->to                                 ? ", chained"
                 : list_inside(w->l, list_target(c, k)) ? ", not chained"
                                                        : ", outside");
    }
    if (is_jump(i) && tr_is_callout(w->l->env, jump_target(i, rx))) {
        *mark = '!';
        snprintf(note, size, "; callout %s",
                 guest ? decode_op_name((enum op)guest->i.op) : "");
    }
}

static void print_guest(const struct view *w, const struct tu_insn *g, char *buf,
                        size_t size) {
    char text[96];
    uint64_t va = g->va;

    snprintf(buf, size, "0x%llx  %s", (unsigned long long)va,
             list_guest_text(&g->i, va, text, sizeof(text)));
}

static void print_insn(struct view *w, const struct insn *i, const uint8_t *rx,
                       const struct tu_insn **last) {
    char left[128] = "", text[LIST_LINE], note[96], mark;
    const struct tu_insn *g;

    while ((g = guest_at(w, rx))) {
        if (g == *last)
            continue;
        if (*left)
            list_line(w->l, "  %s", left); /* the one before needs no host code */
        print_guest(w, g, left, sizeof(left));
        *last = g;
    }
    print_labels(w, rx);
    list_host_text(w->l, w->c, i, rx, text, sizeof(text));
    annotate(w, i, rx, *last, &mark, note, sizeof(note));
    list_line(w->l, "  %-40s %c +%03x  %-36s %s", left, mark,
              (unsigned)(rx - w->c->start), text, note);
}

int list_host(const struct list *l, const struct list_unit *u) {
    struct view *w = calloc(1, sizeof(*w));
    const struct tu_insn *last = NULL;
    struct insn i;

    if (!w)
        return -ENOMEM;
    w->l = l;
    w->u = u;
    w->c = u->c;
    find_conts(w);
    for (const uint8_t *rx = u->c->start; host_insn(u->c, rx, &i); rx += i.len)
        print_insn(w, &i, rx, &last);
    free(w);
    return 0;
}
