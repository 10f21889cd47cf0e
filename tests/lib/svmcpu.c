#include "lib/svmcpu.h"

#include <string.h>

#include "decode/decode.h"
#include "lib/svmassist.h"
#include "x86/cr.h"
#include "x86/exception.h"
#include "x86/msr.h"
#include "x86/pte.h"

#define FRAME 0x000ffffffffff000ull
#define ASID (c->b->asid)

enum { GOES_ON, FAULTS, EXITS };

/* --- leaving --- */

static int leave(struct svmcpu *c, uint64_t code, uint64_t info1, uint64_t info2) {
    c->b->exit_code = code;
    c->b->exit_info1 = info1;
    c->b->exit_info2 = info2;
    return EXITS;
}

static int give_up(struct svmcpu *c, const char *why) {
    if (!c->trouble)
        c->trouble = why;
    return leave(c, X86_SVM_EXIT_INTR, 0, 0); /* the test looks at what the trouble is */
}

static int fault(struct svmcpu *c, uint8_t vector, bool has_error, uint32_t error) {
    c->vector = vector;
    c->has_error = has_error;
    c->error = error;
    return FAULTS;
}

/* --- what it remembers --- */

static void forget(struct svmcpu *c, uint32_t asid, bool global, bool all) {
    unsigned n, to = 0;

    for (n = 0; n < c->pages; n++)
        if (!all && (c->tlb[n].asid != asid || (c->tlb[n].global && !global)))
            c->tlb[to++] = c->tlb[n];
    c->pages = to;
    for (n = to = 0; n < c->uppers; n++)
        if (!all && c->upper[n].asid != asid)
            c->upper[to++] = c->upper[n];
    c->uppers = to;
}

static void forget_page(struct svmcpu *c, uint64_t va) {
    unsigned n, to = 0;

    for (n = 0; n < c->pages; n++)
        if (c->tlb[n].asid != ASID || c->tlb[n].page != va >> 12)
            c->tlb[to++] = c->tlb[n];
    c->pages = to;
    for (n = to = 0; n < c->uppers; n++)
        if (c->upper[n].asid != ASID)
            c->upper[to++] = c->upper[n];
    c->uppers = to;
}

/* --- walks --- */

struct wish {
    bool write, exec, user;
};

static uint64_t *at_phys(uint64_t phys) {
    return (uint64_t *)(uintptr_t)phys;
}

/* Nested paging, or none. The walks of the guest's tables are stores of a user's. */
static int nested(struct svmcpu *c, uint64_t gpa, bool write, bool final, uint64_t *phys,
                  bool *writable) {
    uint64_t table = c->b->nested_cr3 & FRAME, e;
    bool w = true;

    *phys = gpa;
    *writable = true;
    if (!(c->b->nested_ctl & X86_SVM_NESTED))
        return GOES_ON;
    for (unsigned l = 3;; l--) {
        e = at_phys(table)[gpa >> (12 + 9 * l) & 511];
        if (!(e & X86_PTE_P) || !(e & X86_PTE_U))
            break;
        w = w && e & X86_PTE_W;
        if (l == 0 || (e & X86_PTE_PS)) {
            uint64_t offset = (1ull << (12 + 9 * l)) - 1;

            if (write && !w)
                break;
            e |= X86_PTE_A | (write ? X86_PTE_D : 0);
            at_phys(table)[gpa >> (12 + 9 * l) & 511] = e;
            *phys = (e & FRAME & ~offset) | (gpa & offset);
            *writable = w && e & X86_PTE_D; /* else a store walks once more */
            return GOES_ON;
        }
        table = e & FRAME;
    }
    return leave(c, X86_SVM_EXIT_NPF,
                 (e & X86_PTE_P) | (write ? X86_PF_W : 0) | X86_PF_U |
                     (final ? 1ull << 32 : 1ull << 33),
                 gpa);
}

static int page_fault(struct svmcpu *c, uint64_t va, const struct wish *w, bool present) {
    c->addr = va;
    return fault(c, X86_PF, true,
                 (present ? X86_PF_P : 0) | (w->write ? X86_PF_W : 0) |
                     (w->user ? X86_PF_U : 0) |
                     (w->exec && c->b->efer & X86_EFER_NXE ? X86_PF_I : 0));
}

struct walk {
    uint64_t *entry[4]; /* by level; NULL: not read */
    uint64_t leaf;
    unsigned level;
    bool write, user, exec;
};

static void remember_upper(struct svmcpu *c, const struct walk *k, uint64_t va,
                           uint64_t table) {
    if (c->uppers == SVMCPU_UPPER)
        c->uppers = 0;
    c->upper[c->uppers++] =
        (struct svmcpu_upper){ASID, k->write, k->user, k->exec, va >> 21, table};
}

/* Where a walk of VA begins: the root, or what is remembered. */
static unsigned begin(const struct svmcpu *c, uint64_t va, struct walk *k,
                      uint64_t *table) {
    *k = (struct walk){.write = true, .user = true, .exec = true};
    *table = c->b->cr3 & FRAME;
    for (unsigned n = 0; n < c->uppers; n++) {
        const struct svmcpu_upper *u = &c->upper[n];

        if (u->asid != ASID || u->at != va >> 21)
            continue;
        *table = u->table;
        k->write = u->write;
        k->user = u->user;
        k->exec = u->exec;
        return 0;
    }
    return 3;
}

static int descend(struct svmcpu *c, uint64_t va, const struct wish *w, struct walk *k) {
    uint64_t table, phys;
    bool writable;

    for (unsigned l = begin(c, va, k, &table);; l--) {
        int out = nested(c, table + 8 * (va >> (12 + 9 * l) & 511), true, false, &phys,
                         &writable);
        uint64_t e;

        if (out != GOES_ON)
            return out;
        k->entry[l] = at_phys(phys);
        e = k->leaf = *k->entry[l];
        if (!(e & X86_PTE_P))
            return page_fault(c, va, w, false);
        if ((e & X86_PTE_NX) && !(c->b->efer & X86_EFER_NXE))
            return give_up(c, "a reserved bit in a page table");
        k->write = k->write && e & X86_PTE_W;
        k->user = k->user && e & X86_PTE_U;
        k->exec = k->exec && !(e & X86_PTE_NX);
        k->level = l;
        if (l == 0 || (e & X86_PTE_PS))
            return GOES_ON;
        table = e & FRAME;
        if (l == 1)
            remember_upper(c, k, va, table);
    }
}

static bool allows(const struct svmcpu *c, const struct wish *w, const struct walk *k) {
    if (w->user && !k->user)
        return false;
    if (w->exec && !k->exec)
        return false;
    return !w->write || k->write || (!w->user && !(c->b->cr0 & X86_CR0_WP));
}

static int walk(struct svmcpu *c, uint64_t va, const struct wish *w, uint64_t *frame) {
    struct walk k;
    uint64_t offset, phys;
    bool writable;
    int out = descend(c, va, w, &k);

    if (out != GOES_ON)
        return out;
    if (!allows(c, w, &k))
        return page_fault(c, va, w, true);
    offset = (1ull << (12 + 9 * k.level)) - 1;
    out = nested(c, ((k.leaf & FRAME & ~offset) | (va & offset)) & FRAME, w->write, true,
                 &phys, &writable);
    if (out != GOES_ON)
        return out;
    for (unsigned l = 0; l < 4; l++)
        if (k.entry[l])
            *k.entry[l] |= X86_PTE_A | (l == k.level && w->write ? X86_PTE_D : 0);
    if (c->pages == SVMCPU_TLB)
        return give_up(c, "the TLB of the model is too small");
    c->tlb[c->pages++] = (struct svmcpu_page){
        .asid = ASID,
        .write = k.write && writable && *k.entry[k.level] & X86_PTE_D,
        .user = k.user,
        .exec = k.exec,
        .global = k.leaf & X86_PTE_G && c->b->cr4 & X86_CR4_PGE,
        .page = va >> 12,
        .frame = phys};
    *frame = phys;
    return GOES_ON;
}

static int translate(struct svmcpu *c, uint64_t va, const struct wish *w,
                     uint64_t *frame) {
    for (unsigned n = 0; n < c->pages; n++) {
        const struct svmcpu_page *p = &c->tlb[n];

        if (p->asid != ASID || p->page != va >> 12)
            continue;
        *frame = p->frame;
        if ((!w->write || p->write) && (!w->exec || p->exec) && (!w->user || p->user))
            return GOES_ON;
        forget_page(c, va); /* what it faults on is looked up anew */
        break;
    }
    return walk(c, va, w, frame);
}

/* LEN bytes between BUF and VA, all or nothing. */
static int access(struct svmcpu *c, uint64_t va, void *buf, unsigned len,
                  const struct wish *w) {
    unsigned first = 4096 - (va & 4095);
    uint64_t frame[2];
    int out;

    if (first > len)
        first = len;
    out = translate(c, va, w, &frame[0]);
    if (out == GOES_ON && first < len)
        out = translate(c, va + first, w, &frame[1]);
    for (unsigned n = 0; out == GOES_ON && n < len; n++) {
        uint8_t *p = (uint8_t *)at_phys(frame[n >= first]) + ((va + n) & 4095);

        if (w->write)
            *p = ((uint8_t *)buf)[n];
        else
            ((uint8_t *)buf)[n] = *p;
    }
    return out;
}

static int data(struct svmcpu *c, uint64_t va, void *buf, unsigned len, bool write) {
    const struct wish w = {.write = write, .user = c->b->cpl == 3};

    return access(c, va, buf, len, &w);
}

static int system_data(struct svmcpu *c, uint64_t va, void *buf, unsigned len,
                       bool write) {
    const struct wish w = {.write = write};

    return access(c, va, buf, len, &w);
}

/* --- events --- */

static void flat(struct svmcpu *c, uint16_t cs, uint16_t ss) {
    unsigned dpl = (cs & 3) << 5;

    c->b->cpl = cs & 3;
    c->b->cs.selector = cs;
    c->b->cs.attrib = (uint16_t)(0xa9b | dpl);
    c->b->ss.selector = ss;
    c->b->ss.attrib = (uint16_t)(0xc93 | dpl);
}

struct gate {
    uint16_t offset0, selector;
    uint8_t ist, type;
    uint16_t offset1;
    uint32_t offset2, zero;
};

static int deliver(struct svmcpu *c, uint8_t vector, bool has_error, uint32_t error,
                   uint64_t rip) {
    uint64_t rsp = c->b->rsp, frame[6], *top = frame;
    unsigned count = has_error ? 6 : 5;
    struct gate g;
    int out = system_data(c, c->b->idtr.base + 16 * vector, &g, sizeof(g), false);

    if (out == GOES_ON && c->b->cpl == 3)
        out = system_data(c, c->b->tr.base + 4, &rsp, 8, false);
    if (out != GOES_ON)
        return out;
    if ((g.type & 0xee) != 0x8e && (g.type & 0xee) != 0xee)
        return give_up(c, "a gate that is none");
    if (has_error)
        *top++ = error;
    *top++ = rip;
    *top++ = c->b->cs.selector;
    *top++ = c->b->rflags;
    *top++ = c->b->rsp;
    *top = c->b->ss.selector;
    rsp = (rsp & ~15ull) - 8 * count;
    out = system_data(c, rsp, frame, 8 * count, true);
    if (out != GOES_ON)
        return out;
    flat(c, g.selector, c->b->cpl ? 0 : c->b->ss.selector);
    c->b->rsp = rsp;
    c->b->rip = g.offset0 | (uint32_t)g.offset1 << 16 | (uint64_t)g.offset2 << 32;
    c->b->rflags &= ~(uint64_t)(X86_FL_TF | X86_FL_RF | X86_FL_NT);
    if (!(g.type & 1))
        c->b->rflags &= ~(uint64_t)X86_FL_IF;
    c->b->int_state = 0;
    return GOES_ON;
}

/* Delivers an event of EVENTINJ's kind; what comes amid it is told in EXITINTINFO. */
static int take_event(struct svmcpu *c, uint64_t event, uint64_t rip);

/* The fault in C->vector is intercepted, or delivered. AMID: in the delivery of an event.
 */
static int raise(struct svmcpu *c, uint64_t amid) {
    uint64_t event =
        X86_SVM_EVENT_VALID | X86_SVM_EVENT_EXCEPTION | c->vector |
        (c->has_error ? X86_SVM_EVENT_HAS_ERROR | (uint64_t)c->error << 32 : 0);

    if (c->b->exceptions >> c->vector & 1) {
        c->b->exit_int_info = amid;
        return leave(c, X86_SVM_EXIT_EXCEPTION + c->vector, c->error,
                     c->vector == X86_PF ? c->addr : 0);
    }
    if (c->vector == X86_PF)
        c->b->cr2 = c->addr;
    if ((amid & X86_SVM_EVENT_TYPE) == X86_SVM_EVENT_EXCEPTION && amid)
        return give_up(c, "a fault amid an exception");
    return take_event(c, event, c->b->rip);
}

static int take_event(struct svmcpu *c, uint64_t event, uint64_t rip) {
    int out = deliver(c, event & 0xff, event & X86_SVM_EVENT_HAS_ERROR,
                      (uint32_t)(event >> 32), rip);

    if (out == FAULTS)
        return raise(c, event);
    if (out == EXITS)
        c->b->exit_int_info = event;
    return out;
}

/* --- operands --- */

static uint64_t cut(uint64_t value, unsigned size) {
    return size == 8 ? value : value & ((1ull << 8 * size) - 1);
}

static uint64_t get_reg(const struct svmcpu *c, unsigned reg) {
    return reg == REG_RAX ? c->b->rax : reg == REG_RSP ? c->b->rsp : c->gpr[reg];
}

static void set_reg(struct svmcpu *c, unsigned reg, unsigned size, uint64_t value) {
    uint64_t *r = reg == REG_RAX   ? &c->b->rax
                  : reg == REG_RSP ? &c->b->rsp
                                   : &c->gpr[reg];

    if (size >= 4)
        *r = cut(value, size);
    else
        *r = (*r & ~cut(UINT64_MAX, size)) | cut(value, size);
}

static uint64_t address(const struct svmcpu *c, const struct insn *i) {
    const struct mem_operand *m = &i->mem;
    uint64_t at = (uint64_t)m->disp;

    if (m->base == REG_RIP)
        at += c->b->rip;
    else if (m->base < 16)
        at += get_reg(c, m->base);
    if (m->index < 16)
        at += get_reg(c, m->index) << m->scale;
    return at;
}

static int get(struct svmcpu *c, const struct insn *i, unsigned n, uint64_t *value) {
    const struct operand *o = &i->opnd[n];

    *value = 0;
    switch (o->kind) {
    case OPND_REG:
        *value = cut(get_reg(c, o->reg), o->size);
        return GOES_ON;
    case OPND_IMM:
        *value = (uint64_t)i->imm;
        return GOES_ON;
    case OPND_MEM:
        return data(c, address(c, i), value, o->size, false);
    default:
        return give_up(c, "an operand that the model has not");
    }
}

static int set(struct svmcpu *c, const struct insn *i, unsigned n, uint64_t value) {
    const struct operand *o = &i->opnd[n];

    if (o->kind == OPND_MEM)
        return data(c, address(c, i), &value, o->size, true);
    set_reg(c, o->reg, o->size, value);
    return GOES_ON;
}

/* --- arithmetic --- */

static bool condition(const struct svmcpu *c, uint8_t cond) {
    uint64_t f = c->b->rflags;
    bool cf = f & X86_FL_CF, zf = f & X86_FL_ZF, sf = f & X86_FL_SF, of = f & X86_FL_OF;
    const bool is[8] = {
        of, cf, zf, cf || zf, sf, f & X86_FL_PF, sf != of, zf || sf != of};

    return is[cond >> 1] ^ (cond & 1);
}

static void set_flags(struct svmcpu *c, uint64_t a, uint64_t b, uint64_t r, unsigned size,
                      bool sum, bool diff) {
    unsigned top = 8 * size - 1;
    uint64_t f = 0;

    r = cut(r, size);
    f |= !r ? X86_FL_ZF : 0;
    f |= r >> top & 1 ? X86_FL_SF : 0;
    f |= !__builtin_parity((unsigned)(r & 0xff)) ? X86_FL_PF : 0;
    if ((sum && r < cut(a, size)) || (diff && cut(a, size) < cut(b, size)))
        f |= X86_FL_CF;
    if ((sum && (~(a ^ b) & (a ^ r)) >> top & 1) ||
        (diff && ((a ^ b) & (a ^ r)) >> top & 1))
        f |= X86_FL_OF;
    c->b->rflags = (c->b->rflags & ~(uint64_t)X86_FL_STATUS) | f;
}

static int arithmetic(struct svmcpu *c, const struct insn *i) {
    bool one = i->op == OP_inc || i->op == OP_dec;
    bool sum = i->op == OP_add || i->op == OP_inc;
    bool diff = i->op == OP_sub || i->op == OP_cmp || i->op == OP_dec;
    uint64_t a, b = 1, r, carry = c->b->rflags & X86_FL_CF;
    int out = get(c, i, 0, &a);

    if (out == GOES_ON && !one)
        out = get(c, i, 1, &b);
    if (out != GOES_ON)
        return out;
    r = sum                                   ? a + b
        : diff                                ? a - b
        : i->op == OP_or                      ? a | b
        : i->op == OP_and || i->op == OP_test ? a & b
                                              : a ^ b;
    if (i->op != OP_cmp && i->op != OP_test)
        out = set(c, i, 0, r);
    if (out != GOES_ON)
        return out;
    set_flags(c, a, b, r, i->opnd[0].size, sum, diff);
    if (one)
        c->b->rflags = (c->b->rflags & ~(uint64_t)X86_FL_CF) | carry;
    return GOES_ON;
}

static int move(struct svmcpu *c, const struct insn *i) {
    uint64_t value;
    int out;

    if (i->op == OP_lea) {
        set_reg(c, i->opnd[0].reg, i->opnd[0].size, address(c, i));
        return GOES_ON;
    }
    out = get(c, i, 1, &value);
    return out == GOES_ON ? set(c, i, 0, value) : out;
}

/* --- the stack and branches --- */

static int push(struct svmcpu *c, uint64_t value) {
    int out = data(c, c->b->rsp - 8, &value, 8, true);

    if (out == GOES_ON)
        c->b->rsp -= 8;
    return out;
}

static int stack(struct svmcpu *c, const struct insn *i) {
    uint64_t value, from = c->b->rsp;
    int out;

    if (i->op == OP_push) {
        out = get(c, i, 0, &value);
        return out == GOES_ON ? push(c, value) : out;
    }
    out = data(c, from, &value, 8, false);
    if (out != GOES_ON)
        return out;
    c->b->rsp = from + 8;
    if (i->op == OP_ret)
        c->b->rip = value - i->len; /* what is added after it */
    else
        out = set(c, i, 0, value);
    return out;
}

static int branch(struct svmcpu *c, const struct insn *i) {
    uint64_t to = c->b->rip + (uint64_t)i->imm, next = c->b->rip + i->len;
    int out = GOES_ON;

    if (i->op == OP_jcc && !condition(c, i->cond))
        return GOES_ON;
    if (i->nops) {
        out = get(c, i, 0, &to);
        to -= i->len;
    }
    if (out == GOES_ON && i->op == OP_call)
        out = push(c, next);
    if (out == GOES_ON)
        c->b->rip = to;
    return out;
}

static int iret(struct svmcpu *c, const struct insn *i) {
    uint64_t f[5];
    int out;

    if (c->b->intercept3 & X86_SVM_I_IRET)
        return leave(c, X86_SVM_EXIT_IRET, 0, 0);
    out = data(c, c->b->rsp, f, sizeof(f), false);
    if (out != GOES_ON)
        return out;
    c->b->rip = f[0] - i->len;
    flat(c, (uint16_t)f[1], (uint16_t)f[4]);
    c->b->rflags = f[2] | 2;
    c->b->rsp = f[3];
    return GOES_ON;
}

/* --- what is the system's --- */

static int to_control(struct svmcpu *c, const struct insn *i) {
    unsigned n = i->opnd[0].reg;
    uint64_t value;
    int out;

    if (c->b->cr_write >> n & 1)
        return leave(c, X86_SVM_EXIT_CR_WRITE + n, 0, 0);
    out = get(c, i, 1, &value);
    if (n != 3 || out != GOES_ON)
        return give_up(c, "a control register is written without an exit");
    c->b->cr3 = value;
    forget(c, ASID, false, false);
    return GOES_ON;
}

static int from_control(struct svmcpu *c, const struct insn *i) {
    unsigned n = i->opnd[1].reg;

    if (c->b->cr_read >> n & 1)
        return leave(c, X86_SVM_EXIT_CR_READ + n, 0, 0);
    return set(c, i, 0,
               n == 0   ? c->b->cr0
               : n == 2 ? c->b->cr2
               : n == 3 ? c->b->cr3
                        : c->b->cr4);
}

static int port(struct svmcpu *c, const struct insn *i) {
    bool in = i->op == OP_in;
    const struct operand *o = &i->opnd[in]; /* the port */
    uint16_t at =
        (uint16_t)(o->kind == OPND_IMM ? (uint64_t)i->imm : get_reg(c, REG_RDX));
    const uint8_t *map = (const uint8_t *)at_phys(c->b->iopm);

    if (!(c->b->intercept3 & X86_SVM_I_IOIO) || !(map[at / 8] >> at % 8 & 1))
        return give_up(c, "a port without an exit");
    return leave(c, X86_SVM_EXIT_IOIO,
                 in | i->opnd[!in].size << X86_SVM_IO_SIZE_SHIFT |
                     (uint32_t)at << X86_SVM_IO_PORT_SHIFT,
                 c->b->rip + i->len);
}

static int msr(struct svmcpu *c, const struct insn *i) {
    const uint8_t *map = (const uint8_t *)at_phys(c->b->msrpm);
    uint32_t n = (uint32_t)get_reg(c, REG_RCX), write = i->op == OP_wrmsr;
    unsigned bit = n < 0x2000 ? n * 2 : 0x4000 + (n - 0xc0000000u) * 2;
    uint64_t *r = n == X86_MSR_KERNEL_GS_BASE ? &c->b->kernel_gs_base : &c->b->lstar;

    bit += write;
    if (!(c->b->intercept3 & X86_SVM_I_MSR) || bit / 8 >= X86_SVM_MSRPM_SIZE ||
        map[bit / 8] >> bit % 8 & 1)
        return leave(c, X86_SVM_EXIT_MSR, write, 0);
    if (n != X86_MSR_LSTAR && n != X86_MSR_KERNEL_GS_BASE)
        return give_up(c, "a model-specific register that the model has not");
    if (write) {
        *r = (c->b->rax & 0xffffffff) | get_reg(c, REG_RDX) << 32;
        return GOES_ON;
    }
    set_reg(c, REG_RAX, 4, *r);
    set_reg(c, REG_RDX, 4, *r >> 32);
    return GOES_ON;
}

static int flags(struct svmcpu *c, const struct insn *i) {
    bool was = c->b->rflags & X86_FL_IF;

    c->b->rflags &= ~(uint64_t)X86_FL_IF;
    if (i->op == OP_cli)
        return GOES_ON;
    c->b->rflags |= X86_FL_IF;
    /* Until the next instruction; step() has cleared it before. */
    c->b->int_state = was ? 0 : X86_SVM_SHADOW;
    return GOES_ON;
}

/* Those that leave, or do nothing. */
static int other(struct svmcpu *c, const struct insn *i) {
    switch (i->op) {
    case OP_cpuid:
        return leave(c, X86_SVM_EXIT_CPUID, 0, 0);
    case OP_hlt:
        return leave(c, X86_SVM_EXIT_HLT, 0, 0);
    case OP_invlpg:
        if (c->b->intercept3 & X86_SVM_I_INVLPG)
            return leave(c, X86_SVM_EXIT_INVLPG, address(c, i), 0);
        forget_page(c, address(c, i));
        return GOES_ON;
    case OP_int:
        return take_event(c,
                          X86_SVM_EVENT_VALID | X86_SVM_EVENT_SOFTWARE | (uint8_t)i->imm,
                          c->b->rip + i->len);
    case OP_nop:
        if (c->bytes[0] == 0xf3 && svmassist_pause(c))
            return leave(c, X86_SVM_EXIT_PAUSE, 0, 0);
        return GOES_ON;
    default:
        return give_up(c, "an instruction that the model has not");
    }
}

static int execute(struct svmcpu *c, const struct insn *i) {
    if ((i->flags & INSN_PRIVILEGED) && c->b->cpl)
        return fault(c, X86_GP, true, 0);
    switch (i->op) {
    case OP_add:
    case OP_sub:
    case OP_cmp:
    case OP_and:
    case OP_or:
    case OP_xor:
    case OP_test:
    case OP_inc:
    case OP_dec:
        return arithmetic(c, i);
    case OP_mov:
    case OP_lea:
        return move(c, i);
    case OP_push:
    case OP_pop:
    case OP_ret:
        return stack(c, i);
    case OP_jcc:
    case OP_jmp:
    case OP_call:
        return branch(c, i);
    case OP_iret:
        return iret(c, i);
    case OP_mov_to_cr:
        return to_control(c, i);
    case OP_mov_from_cr:
        return from_control(c, i);
    case OP_in:
    case OP_out:
        return port(c, i);
    case OP_rdmsr:
    case OP_wrmsr:
        return msr(c, i);
    case OP_cli:
    case OP_sti:
        return flags(c, i);
    default:
        return other(c, i);
    }
}

/* --- an instruction --- */

static int fetch(struct svmcpu *c, struct insn *i) {
    const struct wish w = {.exec = true, .user = c->b->cpl == 3};
    unsigned here = 4096 - (c->b->rip & 4095);
    int out;

    c->fetched = 0;
    out = access(c, c->b->rip, c->bytes, here < 15 ? here : 15, &w);
    if (out != GOES_ON)
        return out;
    c->fetched = here < 15 ? here : 15;
    if (decode_insn(MODE_64, c->bytes, c->fetched, i) == DECODE_OK)
        return GOES_ON;
    if (c->fetched == 15)
        return fault(c, X86_GP, true, 0);
    out = access(c, c->b->rip + here, c->bytes + here, 15 - here, &w);
    if (out != GOES_ON)
        return out;
    c->fetched = 15;
    return decode_insn(MODE_64, c->bytes, 15, i) == DECODE_OK ? GOES_ON
                                                              : fault(c, X86_GP, true, 0);
}

static int step(struct svmcpu *c) {
    uint64_t shadow = c->b->int_state;
    struct insn i = {.len = 0};
    int out = fetch(c, &i);

    c->insns++;
    if (out == GOES_ON) {
        out = execute(c, &i);
        if (out == GOES_ON) {
            uint64_t now = c->b->int_state;

            c->b->rip += i.op == OP_int ? 0 : i.len;
            c->b->int_state = i.op == OP_sti ? now : 0;
            return GOES_ON;
        }
    }
    c->b->int_state = shadow;
    out = out == FAULTS ? raise(c, 0) : out;
    if (out == EXITS)
        svmassist_tell(c, &i);
    return out;
}

/* --- VMRUN --- */

static bool refuses(const struct svmcpu *c) {
    const struct x86_vmcb *b = c->b;

    return !(b->efer & X86_EFER_SVME) || !b->asid || b->asid >= c->asids ||
           !(b->intercept4 & X86_SVM_I_VMRUN) || !(b->cr0 & X86_CR0_PG) ||
           !(b->efer & X86_EFER_LMA) || !(b->cr4 & X86_CR4_PAE) || b->cr0 >> 32 ||
           (b->tlb_control > 1 && !(c->features & X86_SVM_FLUSH_BY_ASID));
}

static bool interrupted(struct svmcpu *c, uint64_t begun) {
    struct x86_vmcb *b = c->b;

    if (c->slice && c->insns - begun >= c->slice) {
        leave(c, X86_SVM_EXIT_INTR, 0, 0);
        return true;
    }
    if (!(b->int_ctl & X86_SVM_V_IRQ) || !(b->rflags & X86_FL_IF) ||
        (b->int_state & X86_SVM_SHADOW))
        return false;
    if (b->intercept3 & X86_SVM_I_VINTR)
        leave(c, X86_SVM_EXIT_VINTR, 0, 0);
    else
        give_up(c, "a virtual interrupt that nobody has intercepted");
    return true;
}

void svmcpu_run(struct svmcpu *c, struct x86_vmcb *b, uint64_t *gpr) {
    uint64_t begun = ++c->insns, event = b->event_inj;
    int out = GOES_ON;

    c->b = b;
    c->gpr = gpr;
    c->pauses = b->pause_count;
    b->exit_int_info = 0;
    if (svmassist_unknown(b)) {
        give_up(c, svmassist_unknown(b));
        return;
    }
    if (refuses(c) || c->insns > c->budget) {
        give_up(c, refuses(c) ? "VMRUN refuses" : "it comes back again and again");
        return;
    }
    if (b->tlb_control) {
        c->flushes++;
        forget(c, ASID, true, b->tlb_control == X86_SVM_TLB_FLUSH_ALL);
    }
    b->event_inj = 0;
    /* INT n that is injected would need the next instruction's address; nobody does. */
    if (event & X86_SVM_EVENT_VALID)
        out = take_event(c, event, b->rip);
    while (out == GOES_ON && !interrupted(c, begun)) {
        out = step(c);
        if (out == GOES_ON && c->insns > c->budget)
            out = give_up(c, "it runs on and on");
    }
}
