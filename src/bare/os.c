/*
 * base/os.h on the bare machine, but for its time (timer.c, calendar.c): memory, code
 * buffers, faults in code that runs for the guest. A CPU is what a thread is there: who
 * waits for another looks until it is so, and nobody need be woken. Whoever is waited for
 * goes on, on a CPU of its own: a turn (hv/sched.c) does not end amid anything.
 */
#include "base/os.h"

#include <errno.h>
#include <string.h>

#include "bare/bare_int.h"
#include "base/bug.h"
#include "mem/mem.h"
#include "x86/pte.h"

#define FAULT_RANGES 16u

static struct {
    uint64_t lo, hi;
    bool (*fn)(void *arg, struct os_fault *f);
    void *arg;
} range[FAULT_RANGES];

/* --- memory --- */

int os_large_page(void *p) {
    return -EINVAL; /* all of it is backed by them already */
}

int os_memfd_map(const char *name, uint64_t size, int *fd, void **map) {
    *fd = -1;
    *map = bare_frames(size, OS_LARGE_PAGE);
    return *map ? 0 : -ENOMEM;
}

/* Memory of a guest's is never given back (frames.c). */
void os_memfd_unmap(int fd, void *map, uint64_t size) {
}

int os_memfd_zero(int fd, void *map, uint64_t size) {
    memset(map, 0, size);
    return 0;
}

int os_memfd_zero_part(int fd, void *map, uint64_t off, uint64_t size) {
    memset((uint8_t *)map + off, 0, size);
    return 0;
}

/* There are no overlays: zeros are written. */
int os_memory_blank(uint8_t *map, uint64_t size) {
    memset(map, 0, size);
    return 0;
}

int os_sparse_alloc(uint64_t size, void **out) {
    *out = bare_demand(size);
    return *out ? 0 : -ENOMEM;
}

void os_sparse_free(void *p, uint64_t size) {
    bare_demand_free(p);
}

/* What was touched stays; nothing idles here so that it would be asked for. */
void os_sparse_zero(void *p, uint64_t size) {
    memset(p, 0, size);
}

int os_guarded_page(uint8_t **page) {
    *page = bare_demand(4096);
    return *page ? 0 : -ENOMEM;
}

int os_fenced_alloc(size_t size, void **out) {
    return os_sparse_alloc(size, out);
}

void os_fenced_free(void *p, size_t size) {
    bare_demand_free(p);
}

int os_nowhere_alloc(size_t size, void **out) {
    *out = (void *)(uintptr_t)BARE_NOWHERE;
    return 0;
}

/* --- code: the frames themselves are writable, aliases of them executable --- */

int os_code_map(size_t size, struct os_code *out) {
    uint8_t *rw = bare_frames(size, OS_LARGE_PAGE);
    uint64_t rx = bare_code_room((size + 4095) / 4096);

    if (!rw || !rx)
        return -ENOMEM;
    for (size_t at = 0; at < size; at += 4096)
        if (!bare_map(rx + at, (uintptr_t)rw + at, 0))
            return -ENOMEM;
    *out = (struct os_code){rw, (uint8_t *)(uintptr_t)rx, size, -1};
    return 0;
}

void os_code_unmap(struct os_code *c) {
    for (size_t at = 0; at < c->size; at += 4096)
        bare_unmap((uintptr_t)c->rx + at);
}

/* Who is here may write to all frames. */
int os_code_seal(const struct os_code *c) {
    return -ENOTSUP;
}

void os_code_open(const uint8_t *rw, size_t len) {
}

void os_code_close(const uint8_t *rw, size_t len) {
}

/* Pages are changed one by one. */
int os_code_large_page(const struct os_code *c, size_t at) {
    return -EINVAL;
}

/* --- faults --- */

int os_fault_range(const void *lo, const void *hi,
                   bool (*fn)(void *arg, struct os_fault *f), void *arg) {
    for (unsigned n = 0; n < FAULT_RANGES; n++) {
        if (range[n].hi)
            continue;
        range[n].lo = (uintptr_t)lo;
        range[n].fn = fn;
        range[n].arg = arg;
        range[n].hi = (uintptr_t)hi;
        return 0;
    }
    return -ENOSPC;
}

void os_fault_range_remove(const void *lo) {
    for (unsigned n = 0; n < FAULT_RANGES; n++)
        if (range[n].hi && range[n].lo == (uintptr_t)lo)
            range[n].hi = 0;
}

bool bare_offer_fault(struct bare_frame *f, uint64_t addr) {
    struct os_fault fault = {.trapno = (unsigned)f->vector,
                             .error = f->error,
                             .addr = addr,
                             .regs = {.rip = f->rip, .rflags = f->rflags}};

    for (unsigned n = 0; n < FAULT_RANGES; n++) {
        if (f->rip < range[n].lo || f->rip >= range[n].hi)
            continue;
        mem_copy(fault.regs.gpr, f->gpr, sizeof(f->gpr));
        if (!range[n].fn(range[n].arg, &fault))
            continue;
        mem_copy(f->gpr, fault.regs.gpr, sizeof(f->gpr));
        f->rsp = fault.regs.gpr[4];
        f->rip = fault.regs.rip;
        f->rflags = fault.regs.rflags;
        return true;
    }
    return false;
}

/* --- other CPUs --- */

unsigned os_cpus(void) {
    return bare_cpus();
}

int os_thread_id(void) {
    return (int)bare_cpu_number() + 1;
}

bool os_thread_waited(int fd, uint64_t *ns) {
    return false;
}

bool os_split_locks(void) {
    return true;
}

static void (*yields)(void);

void bare_on_yield(void (*fn)(void)) {
    yields = fn;
}

void os_yield(void) {
    __builtin_ia32_pause();
    if (yields)
        yields();
}

/* Where there is one CPU, who would have to wake us is us. */
void os_word_wait(uint32_t *word, uint32_t old) {
    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == old) {
        BUG_ON(bare_cpus() == 1);
        __builtin_ia32_pause();
    }
}

void os_word_wake(uint32_t *word, unsigned count) {
}

void os_mutex_wait(struct os_mutex *x) {
    while (!os_mutex_try(x)) {
        BUG_ON(bare_cpus() == 1);
        __builtin_ia32_pause();
    }
}

void os_mutex_wake(struct os_mutex *x) {
}
