/*
 * String instructions.
 *
 * One iteration is exact and slow (step_* below). A repeated MOVS, STOS or LODS goes by
 * pieces: as many elements as lie in one page of each operand, do not wrap at the address
 * size, and pass the segment checks; then registers are updated and the piece counts as
 * progress. Whatever a piece cannot take (a page crossing, a device, a traced page, a
 * segment limit) is done by one exact iteration.
 *
 * A fault leaves rCX, rSI and rDI as after the last complete iteration. To keep one
 * instruction's latency bounded, REPEAT_MAX elements or one piece are done at a time:
 * the caller looks at events and comes back (SEM_REPEAT).
 *
 * A copy whose destination lies ahead of its source by less than the piece must repeat
 * its own output, element by element, as the architecture does.
 */
#include "cpu/cpuid.h"
#include "cpu/exit.h"
#include "cpu/vec.h"
#include "sem/operand.h"

enum { REPEAT_MAX = 256 };

struct str {
    struct vcpu *v;
    const struct insn *i;
    unsigned size;
    uint64_t mask;  /* of the address size */
    uint64_t delta; /* +size or -size */
};

static struct str str_of(struct vcpu *v, const struct insn *i) {
    uint64_t size = i->opsize;

    return (struct str){v, i, (unsigned)size, sem_addr_mask(i->addrsize),
                        v->rflags & X86_FL_DF ? -size : size};
}

/* SI is read through the segment that an override may change, DI always through ES. */
static uint64_t reg_at(const struct str *s, unsigned reg) {
    return s->v->gpr[reg] & s->mask;
}

static void reg_add(const struct str *s, unsigned reg, uint64_t d) {
    sem_put(s->v, reg * 8, s->i->addrsize, s->v->gpr[reg] + d);
}

/* --- one iteration; 0 or SEM_FAULT with nothing changed --- */

typedef int step_fn(const struct str *s);

static int step_movs(const struct str *s) {
    uint64_t val;

    if (sem_load(s->v, s->i->mem.seg, reg_at(s, REG_RSI), s->size, &val) ||
        sem_store(s->v, SEG_ES, reg_at(s, REG_RDI), s->size, val))
        return SEM_FAULT;
    reg_add(s, REG_RSI, s->delta);
    reg_add(s, REG_RDI, s->delta);
    return 0;
}

static int step_stos(const struct str *s) {
    if (sem_store(s->v, SEG_ES, reg_at(s, REG_RDI), s->size, s->v->gpr[REG_RAX]))
        return SEM_FAULT;
    reg_add(s, REG_RDI, s->delta);
    return 0;
}

static int step_lods(const struct str *s) {
    uint64_t val;

    if (sem_load(s->v, s->i->mem.seg, reg_at(s, REG_RSI), s->size, &val))
        return SEM_FAULT;
    sem_put(s->v, REG_RAX * 8, s->size, val);
    reg_add(s, REG_RSI, s->delta);
    return 0;
}

/* Flags of A - B. */
static void compare(struct vcpu *v, unsigned size, uint64_t a, uint64_t b) {
    unsigned fl;

    switch (size) {
    case 1:
        asm("cmpb %b[b], %b[a]" SEM_FLAGS_OUT
            : "=&a"(fl)
            : [a] "r"(a), [b] "r"(b)
            : "cc");
        break;
    case 2:
        asm("cmpw %w[b], %w[a]" SEM_FLAGS_OUT
            : "=&a"(fl)
            : [a] "r"(a), [b] "r"(b)
            : "cc");
        break;
    case 4:
        asm("cmpl %k[b], %k[a]" SEM_FLAGS_OUT
            : "=&a"(fl)
            : [a] "r"(a), [b] "r"(b)
            : "cc");
        break;
    default:
        asm("cmpq %q[b], %q[a]" SEM_FLAGS_OUT
            : "=&a"(fl)
            : [a] "r"(a), [b] "r"(b)
            : "cc");
    }
    sem_flags_set(v, fl, X86_FL_STATUS);
}

static int step_scas(const struct str *s) {
    uint64_t val;

    if (sem_load(s->v, SEG_ES, reg_at(s, REG_RDI), s->size, &val))
        return SEM_FAULT;
    compare(s->v, s->size, s->v->gpr[REG_RAX], val);
    reg_add(s, REG_RDI, s->delta);
    return 0;
}

static int step_cmps(const struct str *s) {
    uint64_t a, b;

    if (sem_load(s->v, s->i->mem.seg, reg_at(s, REG_RSI), s->size, &a) ||
        sem_load(s->v, SEG_ES, reg_at(s, REG_RDI), s->size, &b))
        return SEM_FAULT;
    compare(s->v, s->size, a, b);
    reg_add(s, REG_RSI, s->delta);
    reg_add(s, REG_RDI, s->delta);
    return 0;
}

static uint64_t port_io(struct vcpu *v, bool write, unsigned size, uint64_t data) {
    struct exit e = {.reason = EXIT_io,
                     .write = write,
                     .size = (uint8_t)size,
                     .port = (uint16_t)v->gpr[REG_RDX],
                     .data = data};

    vec_park(v);
    v->hooks->exit(v->hooks_arg, v, &e);
    return e.data;
}

/* The destination must be known to be writable before the port is read: a read may have
 * effects in the device. */
static int step_ins(const struct str *s) {
    struct gva at;

    if (sem_linear(s->v, SEG_ES, reg_at(s, REG_RDI), s->size, true, &at) ||
        mmu_probe(s->v, at, s->size, MMU_WRITE, false) ||
        mmu_store(s->v, at, s->size, port_io(s->v, false, s->size, 0)))
        return SEM_FAULT;
    reg_add(s, REG_RDI, s->delta);
    return 0;
}

static int step_outs(const struct str *s) {
    uint64_t val;

    if (sem_load(s->v, s->i->mem.seg, reg_at(s, REG_RSI), s->size, &val))
        return SEM_FAULT;
    port_io(s->v, true, s->size, val);
    reg_add(s, REG_RSI, s->delta);
    return 0;
}

/* --- pieces --- */

/* Bytes from the lowest address of the next LEN bytes of a run starting at OFF. */
static uint64_t low_end(const struct str *s, uint64_t off, uint64_t n) {
    return s->delta >> 63 ? off - (n - 1) * s->size : off;
}

/* How many of N elements from OFF on, in the string's direction, do not wrap and stay in
 * the 4 KiB page of the first one. 0 when the first itself crosses. */
static uint64_t elements_in_page(const struct str *s, uint64_t lin, uint64_t off,
                                 uint64_t n) {
    uint64_t in_page = lin & 4095, room;

    if (in_page + s->size > 4096)
        return 0;
    if (s->delta >> 63) {
        room = in_page / s->size + 1;
        if (off / s->size + 1 < room)
            room = off / s->size + 1;
    } else {
        uint64_t to_wrap = s->mask - off + 1; /* 0: the whole 64-bit space */
        room = (4096 - in_page) / s->size;
        if (to_wrap && to_wrap / s->size < room)
            room = to_wrap / s->size;
    }
    return n < room ? n : room;
}

/*
 * Finds a piece of *N elements at register REG of SEG: host pointer to its lowest byte,
 * *N cut down. NULL: do one exact iteration (which also raises what there is to raise).
 */
static uint8_t *piece(const struct str *s, unsigned seg, unsigned reg,
                      enum mmu_access acc, uint64_t *n) {
    struct vcpu *v = s->v;
    unsigned flat = acc == MMU_WRITE ? v->seg_flat_w : v->seg_flat_r;
    uint64_t off = reg_at(s, reg), run;
    uint8_t *p;

    if (!(flat & (1u << seg)))
        return NULL;
    uint64_t lin = (off + v->segbase[seg]) & v->lin_mask;
    uint64_t count = elements_in_page(s, lin, off, *n);
    if (!count)
        return NULL;
    uint64_t low = low_end(s, lin, count);
    if (mmu_run(v, gva(low), count * s->size, acc, &p, &run) || !p ||
        run < count * s->size)
        return NULL;
    *n = count;
    return p;
}

/* Element by element, for other CPUs. */
static void host_copy(unsigned size, uint8_t *d, const uint8_t *src, uint64_t n) {
    switch (size) {
    case 1:
        asm volatile("rep movsb" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
        break;
    case 2:
        asm volatile("rep movsw" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
        break;
    case 4:
        asm volatile("rep movsl" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
        break;
    default:
        asm volatile("rep movsq" : "+D"(d), "+S"(src), "+c"(n) : : "memory");
    }
}

/* Elements one by one in the string's direction: right for every overlap. */
static void copy_elements(const struct str *s, uint8_t *d, const uint8_t *src,
                          uint64_t n) {
    bool down = s->delta >> 63;

    for (uint64_t k = 0; k < n; k++) {
        uint64_t at = (down ? n - 1 - k : k) * s->size;
        sem_bytes_put(d + at, s->size, sem_bytes_get(src + at, s->size));
    }
}

/* Both return how many elements they did; 0: nothing, do an iteration. The source comes
 * first, as in an iteration; its host pointer stays good whatever the second look-up
 * drops. */
static uint64_t piece_movs(const struct str *s, uint64_t n) {
    uint8_t *src = piece(s, s->i->mem.seg, REG_RSI, MMU_READ, &n), *dst;
    uint64_t have = n;

    if (!src || !(dst = piece(s, SEG_ES, REG_RDI, MMU_WRITE, &n)))
        return 0;
    if (s->delta >> 63) /* the first elements are the highest */
        src += (have - n) * s->size;
    uint64_t len = n * s->size;
    if (dst + len <= src || src + len <= dst)
        host_copy(s->size, dst, src, n);
    else
        copy_elements(s, dst, src, n);
    reg_add(s, REG_RSI, n * s->delta);
    reg_add(s, REG_RDI, n * s->delta);
    return n;
}

static uint64_t piece_stos(const struct str *s, uint64_t n) {
    uint64_t val = s->v->gpr[REG_RAX], count;
    uint8_t *p = piece(s, SEG_ES, REG_RDI, MMU_WRITE, &n), *d = p;

    if (!p)
        return 0;
    count = n;
    switch (s->size) {
    case 1:
        asm volatile("rep stosb" : "+D"(d), "+c"(count) : "a"(val) : "memory");
        break;
    case 2:
        asm volatile("rep stosw" : "+D"(d), "+c"(count) : "a"(val) : "memory");
        break;
    case 4:
        asm volatile("rep stosl" : "+D"(d), "+c"(count) : "a"(val) : "memory");
        break;
    default:
        asm volatile("rep stosq" : "+D"(d), "+c"(count) : "a"(val) : "memory");
    }
    reg_add(s, REG_RDI, n * s->delta);
    return n;
}

/* --- the instructions --- */

typedef uint64_t piece_fn(const struct str *s, uint64_t n);

static step_fn *const steps[OP_COUNT] = {
    [OP_movs] = step_movs, [OP_stos] = step_stos, [OP_lods] = step_lods,
    [OP_scas] = step_scas, [OP_cmps] = step_cmps, [OP_ins] = step_ins,
    [OP_outs] = step_outs,
};

static piece_fn *const pieces[OP_COUNT] = {
    [OP_movs] = piece_movs,
    [OP_stos] = piece_stos,
};

static bool stepping(const struct vcpu *v) {
    return v->rflags & X86_FL_TF || v->dr[7] & 0xff;
}

/* scas and cmps end early: by ZF against the prefix. */
static bool compare_ends(const struct vcpu *v, const struct insn *i) {
    if (i->op != OP_scas && i->op != OP_cmps)
        return false;
    return !(v->rflags & X86_FL_ZF) == (i->rep == REP_REPE);
}

static int io_allowed(struct vcpu *v, const struct insn *i) {
    if (i->op != OP_ins && i->op != OP_outs)
        return 0;
    return sem_io_check(v, (uint16_t)v->gpr[REG_RDX], i->opsize);
}

static int exec_once(struct vcpu *v, const struct insn *i) {
    struct str s = str_of(v, i);

    if (io_allowed(v, i) || steps[i->op](&s))
        return SEM_FAULT;
    /* A device may have raised something. */
    return i->op == OP_ins || i->op == OP_outs ? SEM_STOP : SEM_NEXT;
}

/* A count of zero with 32-bit addresses: Intel's CPUs write the count's register, MOVS
 * and STOS their pointers too, which clears the upper halves. AMD's write none. */
static void nothing_to_do(struct vcpu *v, const struct insn *i) {
    if (v->mode != MODE_64 || cpuid_is_amd(v->cpuid))
        return;
    v->gpr[REG_RCX] = 0;
    if (i->op == OP_movs)
        v->gpr[REG_RSI] = (uint32_t)v->gpr[REG_RSI];
    if (i->op == OP_movs || i->op == OP_stos)
        v->gpr[REG_RDI] = (uint32_t)v->gpr[REG_RDI];
}

static int exec_rep(struct vcpu *v, const struct insn *i) {
    struct str s = str_of(v, i);
    unsigned budget = stepping(v) ? 1 : REPEAT_MAX;
    bool bulk = !stepping(v) && pieces[i->op];
    bool io = i->op == OP_ins || i->op == OP_outs;

    /* A count of zero accesses nothing: neither memory nor the port; but the permission
     * is looked at first, by both vendors' CPUs. */
    if (io && io_allowed(v, i))
        return SEM_FAULT;
    if (!reg_at(&s, REG_RCX) && i->addrsize == 4)
        nothing_to_do(v, i);
    while (reg_at(&s, REG_RCX)) {
        uint64_t n = reg_at(&s, REG_RCX), done = 0;

        if (budget-- == 0)
            return SEM_REPEAT;
        if (bulk)
            done = pieces[i->op](&s, n);
        if (!done) {
            if (io_allowed(v, i) || steps[i->op](&s))
                return SEM_FAULT;
            done = 1;
        }
        v->cnt->string_iterations += done;
        reg_add(&s, REG_RCX, -done);
        if (compare_ends(v, i))
            break;
        if (!reg_at(&s, REG_RCX))
            break;
        if (done > 1 || io || v->pending_db || v->leave_code || vcpu_events(v))
            return SEM_REPEAT;
    }
    return io ? SEM_STOP : SEM_NEXT;
}

insn_exec_fn *sem_bind_string(const struct insn *i) {
    if (!steps[i->op])
        return NULL;
    return i->rep == REP_NONE ? exec_once : exec_rep;
}
