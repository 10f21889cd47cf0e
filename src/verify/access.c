/*
 * The verifier's accesses: what a memory operand may be. A field of struct vcpu by its
 * name, a constant of the cache, a field of the shadow on the way of a check, or bytes
 * that a check has made a host pointer to.
 */
#include "verify/verify_int.h"
#include "x86/cr.h"

static const char *const acc_names[] = {"reads", "writes"};

/* --- where the operand is --- */

static bool plain_base(const struct host_insn *i) {
    return i->addrsize == 8 && !i->mem.seg && i->mem.index == HOST_NONE &&
           i->mem.base < 16;
}

static bool absolute(const struct host_insn *i) {
    return i->addrsize == 8 && i->mem.base == HOST_NONE && i->mem.index == HOST_NONE;
}

static const struct vfield *field(const struct host_insn *i) {
    return i->mem.seg == 'g' && absolute(i) ? v_field(i->mem.disp, i->mem.size) : NULL;
}

bool v_cpl0(const struct verifier *w) {
    return !(w->c->key & KEY_USER) && (w->c->key & KEY_CPL0);
}

static bool allowed(const struct verifier *w, uint8_t right) {
    return right == FIELD_ANY || (right == FIELD_CPL0 && v_cpl0(w));
}

/* A field that may be read and written as I does, or NULL with a finding. */
static const struct vfield *field_ok(struct verifier *w, const struct host_insn *i) {
    const struct vfield *f = field(i);

    if (!f) {
        v_bad(w, "%u bytes at vcpu+0x%llx: no field that translated code may name",
              i->mem.size, (unsigned long long)i->mem.disp);
        return NULL;
    }
    if ((i->mem.access & HOST_READ) && !allowed(w, f->read)) {
        v_bad(w, "the field at vcpu+0x%x is not for reading here", f->off);
        return NULL;
    }
    if ((i->mem.access & HOST_WRITE) && !allowed(w, f->write)) {
        v_bad(w, "the field at vcpu+0x%x is not for writing here", f->off);
        return NULL;
    }
    return f;
}

/* The cell that the operand lies in, *WHOLE or a part of it, or -1. */
static int cell_of(const struct vfield *f, const struct host_insn *i, bool *whole) {
    int64_t in = i->mem.disp - f->off;

    *whole = i->mem.size == 8 && !(in & 7);
    return f->cell >= 0 && (in & 7) + i->mem.size <= 8 ? f->cell + (int)(in >> 3) : -1;
}

/* --- constants of the cache, counts --- */

/* An element, of SIZE bytes, of the TABLE bytes at OFF from the vCPU on? */
static bool element(const struct host_insn *i, size_t off, size_t table, size_t size) {
    uint64_t in = (uint64_t)i->mem.disp - off;

    return i->mem.seg == 'g' && absolute(i) && i->mem.size == size && in < table &&
           !(in % size);
}

/* Is a count, or a guess, accessed? */
static bool is_count(const struct host_insn *i) {
    static const struct tr_counts *const c;

    return element(i, GS_COUNTS(heat), sizeof(c->heat), sizeof(c->heat[0])) ||
           (element(i, GS_COUNTS(guess), sizeof(c->guess), sizeof(c->guess[0])) &&
            !(i->mem.access & HOST_READ));
}

static void access_absolute(struct verifier *w, struct vstate *s,
                            const struct host_insn *i) {
    const struct tr_env *env = w->env;
    uint64_t at = (uint64_t)i->mem.disp;

    /* With several vCPUs, one's own is found through gs. */
    if (!env->smp && at == (uint64_t)(uintptr_t)env->poll_page && i->mem.size == 4 &&
        !(i->mem.access & HOST_WRITE))
        s->polled = true;
    else
        v_bad(w, "%u bytes at 0x%llx: no constant of the cache", i->mem.size,
              (unsigned long long)at);
}

/* --- host pointers --- */

static void access_host(struct verifier *w, const struct vval *a,
                        const struct host_insn *i) {
    bool writes = i->mem.access & HOST_WRITE;
    int64_t at = i->mem.disp, end = at + i->mem.size;

    if (at < 0 || end > (int64_t)a->n)
        v_bad(w, "%s bytes %lld to %lld of a range of %llu that was checked",
              acc_names[writes], (long long)at, (long long)end, (unsigned long long)a->n);
    else if (writes && a->acc != MMU_WRITE)
        v_bad(w, "writes where reading was checked");
    else if ((a->how & HOW_COPY) && (at || end != (int64_t)a->n))
        v_bad(w, "not just the one access of %llu bytes that the site says it is",
              (unsigned long long)a->n);
}

/* --- the shadow --- */

struct part {
    enum { PART_TAG, PART_HOST, PART_NONE } what;
    uint8_t acc;
    uint16_t anchor; /* + 1 */
    uint32_t slot;
};

/* The field of an entry of the hash, or of an anchor or a fixed entry. */
static struct part part_of(const struct vval *base, int64_t disp) {
    const int64_t anchors = offsetof(struct shadow_bank, anchor);
    struct part p = {.what = PART_NONE};
    int64_t in = disp;

    if (disp < 0 || (disp & 7))
        return p;
    if (base->kind == V_BANK && disp >= anchors) {
        int64_t n = (disp - anchors) / (int64_t)sizeof(struct shadow_anchor);

        if (n >= SHADOW_ANCHORS)
            return p;
        in = (disp - anchors) % (int64_t)sizeof(struct shadow_anchor);
        p.anchor = (uint16_t)(n + 1);
        p.acc = n & 1; /* reads, writes: tr/code.h */
        p.what = in == offsetof(struct shadow_anchor, tag) ? PART_TAG : PART_HOST;
        return p;
    }
    if (base->kind == V_BANK) {
        p.slot = (uint32_t)(disp / (int64_t)sizeof(struct shadow_entry));
        in = disp % (int64_t)sizeof(struct shadow_entry);
    }
    if (in == offsetof(struct shadow_entry, host)) {
        p.what = PART_HOST;
    } else if (in == 8 * MMU_READ || in == 8 * MMU_WRITE) {
        p.what = PART_TAG;
        p.acc = (uint8_t)(in >> 3);
    }
    return p;
}
_Static_assert(offsetof(struct shadow_entry, tag) == 0, "part_of()");

bool v_is_shadow(const struct vstate *s, const struct host_insn *i) {
    return plain_base(i) && i->mem.access == HOST_READ && i->mem.size == 8 &&
           (s->reg[i->mem.base].kind == V_SLOT || s->reg[i->mem.base].kind == V_BANK);
}

/* The difference that DIFF is was made with the entry or anchor that P is a part of. */
static bool same_entry(const struct vval *diff, const struct vval *base,
                       const struct part *p) {
    return diff->kind == V_DIFF && diff->id && diff->id == base->id &&
           diff->anchor == p->anchor && (base->kind == V_SLOT || p->anchor);
}

/* address - tag */
static void subtract_tag(struct verifier *w, struct vval *a, const struct vval *base,
                         const struct part *p) {
    bool hashed = base->kind == V_SLOT;

    if (!v_is_public(a))
        v_bad(w, "subtracts a tag from what is no guest address");
    else if (hashed && (!a->id || a->id != base->id || a->kind == V_HASH))
        v_bad(w, "the entry was not found by this address");
    else if (!hashed && !p->anchor)
        v_bad(w, "an entry of a fixed place for an address that is not fixed");
    *a =
        (struct vval){.kind = V_DIFF, .acc = p->acc, .id = base->id, .anchor = p->anchor};
}

/* difference + tag, after the check failed, or + host, after it has not */
static void add_part(struct verifier *w, struct vval *a, const struct vval *base,
                     const struct part *p) {
    struct vval r = {.kind = V_SECRET};

    if (!same_entry(a, base, p))
        v_bad(w, "adds to what is no difference to this entry's tag");
    else if (p->what == PART_TAG && p->acc == a->acc && a->how == HOW_FAILED)
        r = (struct vval){
            .kind = V_RETRY, .acc = a->acc, .anchor = a->anchor, .n = 4096 - a->n};
    else if (p->what == PART_HOST && a->how == HOW_CHECKED)
        r = (struct vval){.kind = V_HOST,
                          .acc = a->acc,
                          .how = HOW_PAGE | (p->anchor ? HOW_ANCHOR : 0),
                          .n = 4096 - a->n};
    else
        v_bad(w, "uses an entry of the shadow without its check");
    *a = r;
}

void v_shadow(struct verifier *w, struct vstate *s, const struct host_insn *i,
              unsigned r) {
    const struct vval base = s->reg[i->mem.base];
    struct part p = part_of(&base, i->mem.disp);
    struct vval *a = &s->reg[r], out = *a;

    if (p.what == PART_NONE)
        v_bad(w, "no field of the shadow for reads or writes");
    else if (i->op == HOST_SUB && p.what == PART_TAG)
        subtract_tag(w, &out, &base, &p);
    else if (i->op == HOST_ADD)
        add_part(w, &out, &base, &p);
    else if (i->op == HOST_CMP && p.what == PART_TAG && base.kind == V_BANK &&
             !p.anchor && a->kind == V_CONST && !(a->n & 4095) &&
             mmu_index(a->n) == p.slot)
        s->flags = (struct vleft){.kind = VF_TAG,
                                  .reg = (uint8_t)r,
                                  .acc = p.acc,
                                  .bank = base.id,
                                  .slot = p.slot};
    else
        v_bad(w, "no step of a check of the shadow");
    if (i->op != HOST_CMP)
        v_set(s, r, out, 8);
}

/* MOV of an entry's host pointer, when its tag has just been seen to be right. */
static struct vval fixed_host(struct verifier *w, const struct vstate *s,
                              const struct host_insn *i) {
    const struct vval *base = &s->reg[i->mem.base];
    struct part p = part_of(base, i->mem.disp);

    if (w->before.kind == VF_VALID && p.what == PART_HOST && base->kind == V_BANK &&
        !p.anchor && p.slot == w->before.slot && base->id == w->before.bank)
        return (struct vval){
            .kind = V_HOST, .acc = w->before.acc, .how = HOW_PAGE, .n = 4096};
    v_bad(w, "loads from the shadow without its check");
    return (struct vval){.kind = V_SECRET};
}

/* --- the bank for fetches --- */

bool v_is_fetch(const struct vstate *s, const struct host_insn *i) {
    return plain_base(i) && i->mem.access == HOST_READ && i->mem.size == 8 &&
           (s->reg[i->mem.base].kind == V_PAGE || s->reg[i->mem.base].kind == V_FETCH);
}

enum fetch_field { FETCH_NONE, FETCH_TAG, FETCH_HOST, FETCH_MAPPING };

/* What of an entry: of a *SLOT that the code knows, only both addresses in one. */
static enum fetch_field fetch_field(const struct vval *base, int64_t disp,
                                    unsigned *slot) {
    const int64_t size = sizeof(struct shadow_entry),
                  tag = offsetof(struct shadow_entry, tag);

    *slot = (unsigned)(disp / size);
    if (disp < 0 || *slot >= SHADOW_ENTRIES)
        return FETCH_NONE;
    if (base->kind == V_FETCH)
        return disp % size == tag + 8 * SHADOW_MAPPING ? FETCH_MAPPING : FETCH_NONE;
    return disp == tag + 8 * MMU_EXEC                    ? FETCH_TAG
           : disp == offsetof(struct shadow_entry, host) ? FETCH_HOST
                                                         : FETCH_NONE;
}

/* Is that constant what the code's page, or its second one, has in that field? */
static bool is_of(const struct vval *a, enum fetch_field f, unsigned slot, uint64_t va,
                  const uint8_t *page) {
    if (a->kind != V_CONST || !page)
        return false;
    return f == FETCH_HOST ? a->n == (uint64_t)(uintptr_t)page
                           : a->n == mmu_mapping(va, page) && slot == mmu_index(va);
}

void v_fetch(struct verifier *w, struct vstate *s, const struct host_insn *i,
             unsigned r) {
    const struct vval *a = &s->reg[r];
    const struct tr_code *c = w->c;
    unsigned slot;
    enum fetch_field f = fetch_field(&s->reg[i->mem.base], i->mem.disp, &slot);

    if (f == FETCH_NONE)
        v_bad(w, "no field of the bank for fetches");
    else if (f != FETCH_TAG &&
             (i->op != HOST_CMP || (!is_of(a, f, slot, c->va, c->page) &&
                                    !is_of(a, f, slot, c->va2, c->page2))))
        v_bad(w, "a host address that is not just compared with the code's pages");
    else if (i->op != HOST_MOV && !v_is_public(a))
        v_bad(w, "computes with a value of ours");
    if (i->op != HOST_CMP)
        v_set(s, r, v_public(), 8);
}

/* --- what all instructions do --- */

static bool known_operand(struct verifier *w, const struct host_insn *i) {
    if (!i->mem.size)
        v_bad(w, "an access of unknown size");
    else if (i->mem.vector_index)
        v_bad(w, "an access through a vector of indices");
    else if (i->mem.seg == 'f' || (i->mem.seg && !absolute(i)))
        v_bad(w, "a segment with more than a field of the vCPU");
    else if (!absolute(i) && !plain_base(i))
        v_bad(w, "an address that is more than a register and a displacement");
    else
        return true;
    return false;
}

/* The status flags are the host's; what else is in vcpu.rflags is as the guest's level
 * wants it. */
static bool flags_ok(const struct verifier *w, const struct host_insn *i) {
    uint32_t imm = (uint32_t)i->imm;

    if (v_cpl0(w) || i->opnd[1].kind != HOST_IMM)
        return v_cpl0(w);
    return (i->op == HOST_AND && imm == (uint32_t)~X86_FL_DF) ||
           (i->op == HOST_OR && imm == X86_FL_DF);
}

static void access_field(struct verifier *w, struct vstate *s,
                         const struct host_insn *i) {
    const struct vfield *f = field_ok(w, i);
    bool whole;
    int cell;

    if (!f)
        return;
    cell = cell_of(f, i, &whole);
    if (cell >= 0 ? !v_is_public(&s->cell[cell]) : f->kind != V_PUBLIC)
        v_bad(w, "the field at vcpu+0x%x as a number", f->off);
    if (!(i->mem.access & HOST_WRITE))
        return;
    if (cell >= 0)
        s->cell[cell] = v_public();
    else if (f->off == GS_TR(site))
        s->site_known = false;
    else if (f->off == GS(rflags) && !flags_ok(w, i))
        v_bad(w, "changes flags that are not this level's");
}

void v_access(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    if (!i->mem.access || !known_operand(w, i))
        return;
    if (is_count(i))
        return;
    if (i->mem.seg == 'g')
        access_field(w, s, i);
    else if (absolute(i))
        access_absolute(w, s, i);
    else if (s->reg[i->mem.base].kind == V_HOST)
        access_host(w, &s->reg[i->mem.base], i);
    else
        v_bad(w, "an access through a pointer that nothing has checked");
}

/* --- loads and stores --- */

enum vkind v_base(const struct host_insn *i) {
    const struct vfield *f = field(i);

    if (!f || i->mem.size != 8 || i->mem.access != HOST_READ)
        return V_SECRET;
    return f->off == GS(shadow.bank)   ? V_BANK
           : f->off == GS(shadow.code) ? V_FETCH
           : f->off == GS_TR(jump)     ? V_JUMPS
                                       : V_SECRET;
}

static struct vval load_field(struct verifier *w, struct vstate *s,
                              const struct host_insn *i) {
    const struct vfield *f = field_ok(w, i);
    struct vval a = {.kind = V_SECRET};
    bool whole;
    int cell;

    if (!f)
        return a;
    cell = cell_of(f, i, &whole);
    if (cell >= 0 && whole)
        return s->cell[cell];
    if (cell >= 0 ? v_is_public(&s->cell[cell]) : f->kind == V_PUBLIC)
        return v_public();
    if (i->mem.size != 8 || f->cell >= 0) {
        v_bad(w, "a part of the field at vcpu+0x%x", f->off);
        return a;
    }
    a.kind = f->kind;
    if (a.kind == V_BANK)
        a.id = v_name(w, s);
    else if (a.kind == V_FUEL)
        a.n = (uint64_t)s->fuel;
    return a;
}

/* [tr_vcpu.fuel], which is in the page before it when there is too little. */
static void look_at_fuel(struct verifier *w, struct vstate *s,
                         const struct host_insn *i) {
    int64_t n = (int64_t)s->reg[i->mem.base].n;

    if (i->mem.size != 4 || i->mem.disp || n != s->fuel || n > 0 || n < -4096)
        v_bad(w, "fuel that was not taken, or not written down");
    s->taken = -n;
    s->fuel = 0;
    for (unsigned r = 0; r < 16; r++)
        if (s->reg[r].kind == V_FUEL)
            s->reg[r] = (struct vval){.kind = V_SECRET};
}

/* A load of the poll page, whose address is in a register. */
static bool is_poll(const struct vstate *s, const struct host_insn *i) {
    return plain_base(i) && s->reg[i->mem.base].kind == V_POLL && i->mem.size == 4 &&
           !i->mem.disp;
}

void v_load(struct verifier *w, struct vstate *s, const struct host_insn *i, unsigned r) {
    unsigned size = i->opnd[0].size;
    struct vval a = v_public();

    if (!known_operand(w, i))
        return;
    if (i->mem.seg == 'g')
        a = load_field(w, s, i);
    else if (v_is_shadow(s, i))
        a = fixed_host(w, s, i);
    else if (v_is_fetch(s, i))
        v_fetch(w, s, i, r);
    else if (plain_base(i) && s->reg[i->mem.base].kind == V_FUEL)
        look_at_fuel(w, s, i);
    else if (is_poll(s, i))
        s->polled = true;
    else
        v_access(w, s, i);
    if (v_is_public(&a) && size < 4)
        a = v_public();
    v_set(s, r, a, size);
}

static void store_field(struct verifier *w, struct vstate *s, const struct host_insn *i,
                        const struct vval *a) {
    const struct vfield *f = field_ok(w, i);
    bool whole = false;
    int cell = f ? cell_of(f, i, &whole) : -1;

    if (!f)
        return;
    if (cell >= 0) {
        if (!whole && !(v_is_public(&s->cell[cell]) && v_is_public(a)))
            v_bad(w, "a part of the field at vcpu+0x%x", f->off);
        s->cell[cell] = whole ? *a : v_public();
    } else if (f->kind == V_BANK || f->kind == V_FUEL) {
        if (i->mem.size != 8 || a->kind != f->kind)
            v_bad(w, "something else for the field at vcpu+0x%x", f->off);
        if (f->kind == V_FUEL)
            s->fuel = (int64_t)a->n;
    } else if (f->kind != V_PUBLIC || !v_is_public(a)) {
        v_bad(w, "a value of ours for the field at vcpu+0x%x", f->off);
    } else if (f->off == GS_TR(site)) {
        s->site_known = a->kind == V_CONST && i->mem.size == 4;
        s->site = (uint32_t)a->n;
    } else if (f->off == GS(rflags) && !v_cpl0(w)) {
        v_bad(w, "changes flags that are not this level's");
    }
}

void v_store(struct verifier *w, struct vstate *s, const struct host_insn *i,
             const struct vval *a) {
    if (!known_operand(w, i))
        return;
    if (i->mem.seg == 'g' && !is_count(i)) {
        store_field(w, s, i, a);
        return;
    }
    if (!v_is_public(a))
        v_bad(w, "stores a value of ours");
    v_access(w, s, i);
}

/* --- strings --- */

static bool run_known(const struct vstate *s, uint16_t id, unsigned shift) {
    for (unsigned n = 0; n < ARRAY_SIZE(s->run); n++)
        if (id && s->run[n].id == id && s->run[n].shift == shift)
            return true;
    return false;
}

/* RCX elements from the pointer in R on are in its page, and may be accessed so. */
static void string_side(struct verifier *w, struct vstate *s, unsigned r, unsigned shift,
                        bool write) {
    struct vval *a = &s->reg[r];

    if (a->kind != V_HOST || !(a->how & HOW_PAGE) || (a->how & HOW_COPY) ||
        !run_known(s, a->id, shift))
        v_bad(w, "a run of RCX elements that was not checked");
    else if (write && a->acc != MMU_WRITE)
        v_bad(w, "writes where reading was checked");
    else if (a->how & HOW_ANCHOR)
        v_bad(w, "an anchor's pointer in register %u may fault, and the guest see it", r);
}

void v_string(struct verifier *w, struct vstate *s, const struct host_insn *i) {
    unsigned shift = i->mem.size ? (unsigned)__builtin_ctz(i->mem.size) : 9;

    if (!i->rep || i->addrsize != 8 || i->mem.seg) {
        v_bad(w, "a string operation that is not plainly repeated");
        return;
    }
    string_side(w, s, REG_RDI, shift, true);
    if (i->op == HOST_MOVS)
        string_side(w, s, REG_RSI, shift, false);
    else if (!v_is_public(&s->reg[REG_RAX]))
        v_bad(w, "stores a value of ours");
    s->reg[REG_RDI] = (struct vval){.kind = V_MOVED, .id = s->reg[REG_RDI].id};
    if (i->op == HOST_MOVS)
        s->reg[REG_RSI] = (struct vval){.kind = V_MOVED, .id = s->reg[REG_RSI].id};
    v_set(s, REG_RCX, v_const(0), 8);
}
