/*
 * Direct execution; see direct.h. Observers and looks run with vector state live, and
 * call nothing but space.c and policy.c; all else with vector state parked.
 */
#include "direct/direct.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "base/log.h"
#include "base/os.h"
#include "cpu/vec.h"
#include "cpu/vec_host.h"
#include "direct/direct_int.h"
#include "sem/sem.h"
#include "x86/cr.h"
#include "x86/exception.h"
#include "x86/pte.h"

#define HWCAP2_FSGSBASE 2 /* <asm/hwcap2.h> */
#define MOST_PAGES 512ull /* that are looked up one by one */
#define LARGE_MASK 0x1fffffull
#define UNMAPPED 0x10000ull           /* in a cell of no guest's */
#define NOWHERE 0x8000000000000000ull /* not canonical: it comes out at once */

/* --- what the MMU tells --- */

static bool is_user(enum mmu_bank bank) {
    return bank == BANK_USER || bank == BANK_USER_X;
}

static void filled(void *arg, const struct mmu_entry *e) {
    struct direct *d = arg;

    /* It may have lost rights. */
    if (is_user(e->bank))
        space_restrict(&d->space[e->space], e->page,
                       e->access | (e->bank == BANK_USER ? EXEC : READ | WRITE));
}

/* The cell keeps it: what it needs to be told, it is told by invalidated() and
 * host_write_dropped(). */
static void evicted(void *arg, const struct mmu_entry *e) {
    struct direct *d = arg;
    struct space *s = &d->space[e->space];
    uint64_t page = (uint64_t)(e->host - mem_ram_base(d->v->mem)) >> 12;
    unsigned rights = is_user(e->bank) ? space_rights(s, e->page) : 0;

    if (!rights)
        return;
    d->n.kept++;
    if (page >= d->sh->pages || e->global)
        space_drop(s, e->page);
    else if (rights & WRITE && !codes_add(&d->kept, (uint32_t)page, e->space, e->page))
        direct_begin_anew(d);
}

/* An address in a large page stands for all of it. */
static void invalidated(void *arg, unsigned space, uint64_t lo, uint64_t hi) {
    struct direct *d = arg;
    struct space *s = &d->space[space];
    bool large = space_is_large(s, lo);
    uint64_t first = lo & (large ? ~LARGE_MASK : ~4095ull),
             last = large ? hi | LARGE_MASK : hi, pages = ((last - first) >> 12) + 1;

    if (pages > MOST_PAGES)
        s->all_stale = true;
    else
        for (uint64_t n = 0; n < pages; n++)
            space_drop(s, first + (n << 12));
}

static void drop_kept(void *arg, unsigned space, uint64_t at) {
    struct direct *d = arg;

    if (space_rights(&d->space[space], at) & WRITE)
        space_drop(&d->space[space], at);
}

static void host_write_dropped(void *arg, const uint8_t *host) {
    struct direct *d = arg;
    uint64_t page = (uint64_t)(host - mem_ram_base(d->v->mem)) >> 12;

    if (page < d->sh->pages)
        codes_each(&d->kept, (uint32_t)page, drop_kept, d);
}

static void dropped(void *arg, unsigned space, enum mmu_bank bank, uint64_t page) {
    struct direct *d = arg;

    if (is_user(bank))
        space_drop(&d->space[space], page);
}

/* What is mapped is looked at before the cell runs again (map.c). */
static void flushed(void *arg, unsigned space, bool but_global) {
    struct direct *d = arg;
    struct space *s = &d->space[space];

    s->unsure = true;
    if (space != d->now)
        return;
    direct_program_flushed(d);
    if (!s->cell)
        direct_program_changed(d);
}

static void code_read(void *arg, const struct mmu_entry *e) {
    if (e->bank == BANK_USER)
        direct_page_read(arg, e->host);
}

static void switched(void *arg, unsigned user, unsigned super) {
    struct direct *d = arg;

    d->now = user;
    direct_look(d);
}

static const struct mmu_observer observer = {.filled = filled,
                                             .dropped = dropped,
                                             .write_dropped = dropped,
                                             .flushed = flushed,
                                             .evicted = evicted,
                                             .invalidated = invalidated,
                                             .host_write_dropped = host_write_dropped,
                                             .code_read = code_read,
                                             .switched = switched};

/* --- life --- */

static unsigned image_size(void) {
    unsigned a, size = 0, c, dx;

    __cpuid_count(0xd, 0, a, size, c, dx);
    return size < sizeof(((struct vcpu *)0)->vec) ? size
                                                  : sizeof(((struct vcpu *)0)->vec);
}

static int share(struct direct *d, struct direct *first) {
    struct direct_shared *sh = first ? first->sh : calloc(1, sizeof(*sh));
    int rc = 0;

    if (!sh)
        return -ENOMEM;
    d->sh = sh;
    if (!first) {
        sh->pages = mem_ram_size(d->v->mem) >> 12;
        rc = os_sparse_alloc(sh->pages * sizeof(*sh->page), (void **)&sh->page);
    }
    if (rc || sh->members == VCPU_GROUP_MAX)
        return rc ? rc : -ENOSPC;
    d->index = sh->members++;
    sh->member[d->index] = d;
    return 0;
}

int direct_new(struct vcpu *v, const struct direct_config *cfg, struct direct **out) {
    struct direct *d = calloc(1, sizeof(*d));
    int rc;

    if (!d)
        return -ENOMEM;
    d->v = v;
    d->pool = cfg->pool;
    d->gate = cell_pool_gate(d->pool);
    d->mode = cfg->mode;
    direct_option_set.defaults(&d->opt);
    if (cfg->options)
        d->opt = *cfg->options;
    d->cpu = -1;
    d->vec_size = image_size();
    d->patience = os_tsc_hz();
    rc = share(d, cfg->first);
    for (unsigned n = 0; !rc && n < MMU_SPACES_MAX; n++)
        rc = space_init(&d->space[n]);
    if (rc) {
        direct_free(d);
        return rc;
    }
    mmu_observe(v, &observer, d);
    *out = d;
    return 0;
}

static void leave_shared(struct direct *d) {
    struct direct_shared *sh = d->sh;
    bool empty = true;

    if (!sh)
        return;
    for (unsigned n = 0; n < sh->members; n++) {
        if (sh->member[n] == d)
            sh->member[n] = NULL;
        empty = empty && !sh->member[n];
    }
    if (!empty)
        return;
    os_sparse_free(sh->page, sh->pages * sizeof(*sh->page));
    free(sh);
}

void direct_free(struct direct *d) {
    if (!d)
        return;
    mmu_observe(d->v, NULL, NULL);
    d->v->away = false;
    for (unsigned n = 0; n < MMU_SPACES_MAX; n++)
        space_free(&d->space[n]);
    leave_shared(d);
    free(d);
}

void direct_reset(struct direct *d) {
    struct direct_shared *sh = d->sh;

    direct_begin_anew(d);
    sh->xcr0 = 0;
    os_sparse_zero(sh->page, sh->pages * sizeof(*sh->page));
    memset(d->program, 0, sizeof(d->program));
    direct_look(d);
}

/* --- in and out --- */

#define IMG_FSW 2u
#define IMG_FOP 6u
#define IMG_FIP 8u
#define IMG_FDP 16u
#define IMG_HEADER 512u
#define FSW_ES 0x80u

/* The x87's pointers are beside the image (cpu/vcpu.h), for the engines' x87 code is
 * elsewhere; here it is where the guest has it. */
static void put_pointers(struct vcpu *v) {
    memcpy(v->vec + IMG_FOP, &v->fop, 2);
    memcpy(v->vec + IMG_FIP, &v->fip, 8);
    memcpy(v->vec + IMG_FDP, &v->fdp, 8);
    if (v->fip || v->fdp || v->fop)
        v->vec[IMG_HEADER] |= X86_XCR0_X87;
}

/* A host that keeps them for pending exceptions only leaves them as they are. */
static void take_pointers(struct vcpu *v) {
    if (vec_keeps_fip() || v->vec[IMG_FSW] & FSW_ES) {
        memcpy(&v->fop, v->vec + IMG_FOP, 2);
        v->fop &= 0x7ff;
        memcpy(&v->fip, v->vec + IMG_FIP, 8);
        memcpy(&v->fdp, v->vec + IMG_FDP, 8);
        v->fcs = v->fds = 0;
    }
    memset(v->vec + IMG_FOP, 0, 18);
}

static void put(struct vcpu *v, struct cell_regs *r) {
    memcpy(r->gpr, v->general, sizeof(r->gpr));
    r->rip = v->rip;
    r->rflags = v->rflags;
    r->fs = v->seg[SEG_FS].base;
    r->gs = v->seg[SEG_GS].base;
    put_pointers(v);
}

static void set_base(struct vcpu *v, enum vcpu_seg seg, uint64_t base) {
    v->seg[seg].base = v->segbase[seg] = base;
}

static void take(struct vcpu *v, const struct cell_regs *r) {
    memcpy(v->general, r->gpr, sizeof(r->gpr));
    v->rip = r->rip;
    v->rflags = r->rflags;
    set_base(v, SEG_FS, r->fs);
    set_base(v, SEG_GS, r->gs);
    take_pointers(v);
}

static bool to_stop(void *arg) {

    return vcpu_events(arg) != 0;
}

static void run_cell(struct direct *d, struct cell *c, struct cell_exit *e) {
    struct vcpu *v = d->v;
    struct cell_vec vec = {v->vec, d->vec_size, v->vec_mask, vec_mxcsr_mask()};
    struct cell_regs r;

    put(v, &r);
    __atomic_store_n(&d->running, c, __ATOMIC_SEQ_CST);
    cell_run(c, &r, &vec, to_stop, v, e);
    __atomic_store_n(&d->running, NULL, __ATOMIC_SEQ_CST);
    if (e->signal && !e->nothing)
        take(v, &r);
    else
        take_pointers(v);
}

/* --- what came out --- */

/* There are BYTES in front of rip: it goes back to them, and the interpreter executes the
 * instruction once more. */
static bool back(struct vcpu *v, unsigned len, unsigned a, unsigned b) {
    uint8_t byte[2];

    if (mmu_read_slow(v, gva(v->rip - len), byte, len, false))
        return false;
    if (byte[0] != a || (len == 2 && byte[1] != b))
        return false;
    v->rip -= len;
    return true;
}

/* The program cannot go on as if nothing had happened: it gets the most general of all
 * faults, where it was seen last. */
static enum direct_out end_program(struct vcpu *v) {
    v->fault = (struct fault){.vector = X86_GP, .has_error = true};
    return sem_deliver(v) == SEM_SHUTDOWN ? DIRECT_SHUTDOWN : DIRECT_EVENTS;
}

#define SYS_SECCOMP 1 /* si_code, <asm-generic/siginfo.h> */
#define TRAP_TRACE 2
#define SI_KERNEL 0x80
#define VSYSCALL 0xffffffffff600000ull

static enum direct_out system_call(struct direct *d, const struct cell_exit *e) {
    struct vcpu *v = d->v;

    if (e->code != SYS_SECCOMP)
        return DIRECT_EVENTS; /* somebody has sent it */
    d->n.syscalls++;
    if (e->call_at - VSYSCALL < 4096) { /* the host has done the return of the call */
        v->rip = e->call_at;
        v->gpr[REG_RSP] -= 8;
        return DIRECT_INTERPRET;
    }
    if (e->i386 && !back(v, 2, 0xcd, 0x80))
        return end_program(v);
    if (!e->i386)
        v->rip -= 2;
    return DIRECT_INTERPRET;
}

static bool at_int1(struct vcpu *v) {
    uint8_t byte;

    return !mmu_read_slow(v, gva(v->rip), &byte, 1, false) && byte == 0xf1;
}

static enum direct_out trap(struct vcpu *v, const struct cell_exit *e) {
    if (e->trap == X86_BP) {
        if (!back(v, 1, 0xcc, 0))
            back(v, 2, 0xcd, 3);
        return DIRECT_INTERPRET;
    }
    if (e->trap != X86_DB)
        return DIRECT_EVENTS;
    if (e->code == TRAP_TRACE) {
        v->pending_db |= 1u << 14; /* DR6.BS */
        return DIRECT_EVENTS;
    }
    /* INT1. Some hosts show it in front of the instruction (docs/errata.md, int1). */
    if (!at_int1(v))
        back(v, 1, 0xf1, 0);
    return DIRECT_INTERPRET;
}

/* The interpreter executes what made the CPU stop, and finds the same. */
static enum direct_out other(struct direct *d, const struct cell_exit *e) {
    struct vcpu *v = d->v;

    switch (e->signal) {
    case CELL_SIGSYS:
        return system_call(d, e);
    case CELL_SIGTRAP:
        return trap(v, e);
    case CELL_SIGILL:
        /* Linux takes two numbers before it asks filters, and says so by a signal of its
         * own: uretprobe(2), uprobe(2). Which one it was is lost. */
        if (e->code == SI_KERNEL && v->gpr[REG_RAX] == UINT64_MAX &&
            back(v, 2, 0x0f, 0x05))
            v->gpr[REG_RAX] = 335;
        return DIRECT_INTERPRET;
    case CELL_SIGSEGV:
        if (e->trap == X86_OF && !back(v, 1, 0xce, 0)) /* INTO, of 32-bit code */
            back(v, 2, 0xcd, X86_OF);
        return DIRECT_INTERPRET;
    case CELL_SIGBUS:
    case CELL_SIGFPE:
        return DIRECT_INTERPRET;
    default:
        return DIRECT_EVENTS;
    }
}

#define USER_CS 0x33
#define USER_SS 0x2b

/* It has loaded segment registers by itself: what they hold is for the guest's tables to
 * say. */
static bool other_segments(const struct cell_exit *e) {
    return e->sel[SEG_ES] | e->sel[SEG_DS] | e->sel[SEG_FS] | e->sel[SEG_GS] ||
           e->sel[SEG_CS] != USER_CS || e->sel[SEG_SS] != USER_SS;
}

/* --- cells --- */

static bool never(void *arg) {
    return false;
}

/* The guest's state is taken up, and comes back: nothing is mapped there. */
static bool comes_out(struct cell *c) {
    static _Alignas(64) uint8_t image[VCPU_XSAVE_SIZE];
    struct cell_vec vec = {image, image_size(), 0, 0};
    struct cell_regs r = {.rip = UNMAPPED};
    struct cell_exit e;

    cell_run(c, &r, &vec, never, NULL, &e);
    return !e.nothing && e.signal == CELL_SIGSEGV && e.trap == X86_PF &&
           e.cr2 == UNMAPPED && r.rip == UNMAPPED;
}

const char *direct_lacks(struct cell_pool *p) {
    struct cell *c;
    bool out;
    int rc;

    if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
        return "it needs a host whose programs may set the bases of FS and GS (Linux "
               "5.9)";
    if (!(vec_supported() & X86_XCR0_AVX))
        return "it needs a host CPU with XSAVE and AVX";
    c = cell_new(p, -1, 0);
    rc = c ? cell_ready(c, true) : -EIO;
    out = rc > 0 && comes_out(c);
    if (c)
        cell_give_back(c);
    if (out)
        return NULL;
    if (rc > 0)
        return "code does not run in the process that was made for it, for a reason that "
               "we do not know";
    return "this host does not let us start a process that filters its system calls";
}

static void give_up(struct direct *d, struct space *s) {
    if (s->cell)
        cell_give_back(s->cell);
    s->cell = NULL;
    s->all_stale = true;
    direct_rest(d);
}

/* None that another program had left. */
static void free_others(struct direct *d) {
    for (unsigned n = 0; n < MMU_SPACES_MAX; n++)
        if (n != d->now && d->space[n].cell) {
            cell_give_back(d->space[n].cell);
            d->space[n].cell = NULL;
        }
}

#define TRIALS 8u
#define MOST_NS 20000u /* more: what was in the host's caches has gone */

/* What it takes to go in and come out, in CPU time: by the clock, the host may have had
 * other things to do. */
static void measure(struct direct *d, struct cell *c) {
    struct vcpu *v = d->v;
    uint64_t rip = v->rip;
    struct cell_exit e;
    unsigned n;

    d->measured_at = d->ran_at;
    for (n = 0; n < TRIALS && !vcpu_events(v); n++) {
        uint64_t own = os_thread_cpu_ns(), cells = cell_cpu_ns(c), in_cell;

        v->rip = NOWHERE;
        run_cell(d, c, &e);
        v->rip = rip;
        if (!e.nothing)
            return;
        in_cell = cell_cpu_ns(c) - cells;
        own = os_thread_cpu_ns() - own + in_cell;
        if (!d->exit_ns || own < d->exit_ns) {
            d->cell_ns = in_cell;
            d->exit_ns = own;
        }
    }
    if (n && d->exit_ns > MOST_NS) {
        d->cell_ns = d->cell_ns * MOST_NS / d->exit_ns;
        d->exit_ns = MOST_NS;
    }
}

static unsigned wanted_faults(struct direct *d) {
    const struct vcpu *v = d->v;

    return (v->tsc_base || (v->cr4 & X86_CR4_TSD) ? CELL_TSC_FAULTS : 0) |
           (direct_rewrites(d) ? CELL_CPUID_FAULTS : 0);
}

/* There is a cell that can run. */
static bool has_cell(struct direct *d, struct space *s) {
    unsigned faults = wanted_faults(d);
    int rc;

    if (s->cell && cell_faults(s->cell) != faults)
        give_up(d, s);
    direct_pin(d);
    if (!s->cell) {
        s->cell = cell_new(d->pool, d->cpu, faults);
        s->all_stale = true;
        d->n.cells++;
    }
    if (!s->cell) {
        free_others(d);
        return false;
    }
    rc = cell_ready(s->cell, d->mode == DIRECT_ON);
    if (rc < 0 || (rc == 1 && cell_move(s->cell, d->cpu))) {
        give_up(d, s);
        return false;
    }
    d->n.waits += !rc;
    if (rc == 1 && !cell_orders(s->cell) && /* which would be carried out then */
        (!d->exit_ns || d->ran_at - d->measured_at > d->patience))
        measure(d, s->cell);
    return rc == 1;
}

#define FRAME 0x000ffffffffff000ull
#define LEVELS                                                                           \
    3 /* down to the directory whose entries are 2 MiB each, as the cell is              \
       */

_Static_assert(CELL_HIGH - CELL_LOW == 1 << 21 && !(CELL_LOW & ((1 << 21) - 1)),
               "one entry of a page directory");

/* Nothing of the guest's is where the cell's own pages are. */
static bool stub_is_free(const struct vcpu *v) {
    uint64_t table = v->cr3, entry;

    if (v->cr4 & X86_CR4_LA57)
        return false;
    for (unsigned level = 0; level < LEVELS; level++) {
        const uint8_t *p = mem_host(
            v->mem, gpa((table & FRAME) + (CELL_LOW >> (39 - 9 * level) & 511) * 8), 8);

        if (!p)
            return false;
        entry = __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
        if (!(entry & X86_PTE_P))
            return true;
        if (level && entry & X86_PTE_PS)
            return false;
        table = entry;
    }
    return false;
}

/* --- running --- */

/* One turn. *AGAIN: and another. */
static enum direct_out turn(struct direct *d, struct space *s, bool *again) {
    struct vcpu *v = d->v;
    struct cell_exit e = {0};
    uint64_t start = os_tsc(), ticks;
    enum direct_out out;

    *again = d->comes_back = d->new_code = false;
    run_cell(d, s->cell, &e);
    d->ran_at = os_tsc();
    ticks = d->ran_at - start;
    d->ticks += ticks;
    d->n.exits++;
    direct_look_around(d, s->cell, ticks);
    if (!e.signal) {
        log_warn("a process that ran guest code directly has ended; the guest's program "
                 "that was in it gets a general-protection fault");
        d->n.died++;
        give_up(d, s);
        return end_program(v);
    }
    if (e.nothing && e.signal == CELL_SIGSEGV) { /* it cannot take up this state */
        give_up(d, s);
        return DIRECT_EVENTS;
    }
    if (e.refused && direct_map_anew(d, s))
        give_up(d, s);
    if (e.nothing) {
        d->n.kicks += !e.refused;
        return DIRECT_EVENTS;
    }
    if (unlikely(other_segments(&e)) && sem_adopt_segments(v, e.sel))
        return end_program(v);
    if (e.signal == CELL_SIGSEGV && e.trap == X86_PF)
        out = direct_page_fault(d, s, &e, again);
    else
        out = other(d, &e);
    d->n.kicks += e.signal == CELL_SIGUSR1;
    if (e.signal == CELL_SIGUSR1 && d->opt.splits && direct_at_split(v))
        direct_set_splits(d);
    if (s->cell && direct_judge(d, s->cell, *again && !d->comes_back))
        direct_rest(d);
    return out;
}

/* A canonical address of the lower half: the others are the interpreter's. */
static bool rip_is_low(const struct vcpu *v) {
    return v->rip < 0x00007ffffffff000ull;
}

enum direct_out direct_run(struct direct *d) {
    struct vcpu *v = d->v;
    struct space *s = &d->space[d->now];
    enum direct_out out = DIRECT_EVENTS;
    bool again = true;

    if (!rip_is_low(v))
        return DIRECT_INTERPRET;
    if (!stub_is_free(v)) {
        d->n.occupied++;
        direct_rest(d);
        return DIRECT_TRANSLATE;
    }
    if (!has_cell(d, s)) {
        direct_rest(d);
        return DIRECT_EVENTS;
    }
    if (d->expected.cr3 && d->opt.foresee)
        direct_foresee(d, s);
    while (again && !vcpu_events(v) && direct_wanted(d)) {
        if (direct_catch_up(d, s)) {
            give_up(d, s);
            return DIRECT_EVENTS;
        }
        out = turn(d, s, &again);
    }
    if (again)
        return DIRECT_EVENTS;
    d->n.interpreted += out == DIRECT_INTERPRET;
    return out;
}

void direct_kick(struct direct *d) {
    struct cell *c = __atomic_load_n(&d->running, __ATOMIC_SEQ_CST);

    if (c)
        cell_kick(c);
}

void direct_stats(const struct direct *d,
                  void (*emit)(void *arg, const char *name, uint64_t value), void *arg) {
#define COUNTER(name) emit(arg, "direct_" #name, d->n.name);
#include "direct/counters.def"
#undef COUNTER
    emit(arg, "direct_exit_ns", d->exit_ns);
    emit(arg, "direct_order_ns", d->order_ns);
    emit(arg, "direct_kticks", d->ticks / 1000);
}
