/* Cells, seen from the VMM; see cell.h. */
#include "direct/cell.h"

#include <asm/prctl.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os.h"
#include "direct/abi.h"
#include "direct/cell_int.h"

static struct cell_orders *orders_of(uint8_t *slots, unsigned n) {
    return (struct cell_orders *)(slots + (size_t)n * CELL_SLOT);
}

/* --- the pool --- */

static void close_all(int *fd) {
    for (unsigned n = 0; n < CELLS_MAX; n++)
        if (fd[n] > 0)
            close(fd[n]);
}

static int open_all(int *fd) {
    for (unsigned n = 0; n < CELLS_MAX; n++) {
        fd[n] = eventfd(0, EFD_CLOEXEC);
        if (fd[n] < 0)
            return -errno;
    }
    return 0;
}

static int open_sockets(struct cell_pool *p) {
    for (unsigned n = 0; n < CELLS_MAX; n++) {
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
            return -errno;
        p->cfg.kick[n] = pair[0];
        p->cfg.kicks[n] = pair[1];
    }
    return 0;
}

static int open_descriptors(struct cell_pool *p) {
    int rc = open_all(p->cfg.ack);

    if (!rc)
        rc = open_all(p->cfg.out);
    if (!rc)
        rc = open_all(p->cfg.go);
    return rc ? rc : open_sockets(p);
}

static int make_memory(struct cell_pool *p) {
    size_t size = (size_t)CELLS_MAX * CELL_SLOT;
    void *map;
    int rc = os_memfd_map("bivisor-cells", size, &p->cfg.slots_fd, &map);

    if (rc)
        return rc;
    p->slots = map;
    if (p->cfg.slots_fd < 0)
        return -ENOMEM;
    map = mmap(NULL, CELLS_MAX * sizeof(*p->cfg.dead), PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return -errno;
    p->cfg.dead = map;
    return 0;
}

/* That CPUID is to be executed here, as it is, is refused only by a host that cannot have
 * it otherwise. */
static unsigned can_fault(void) {
    return CELL_TSC_FAULTS |
           (syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1) ? 0 : CELL_CPUID_FAULTS);
}

bool cell_pool_can_fault(const struct cell_pool *p, unsigned faults) {
    return !(faults & ~p->can_fault);
}

int cell_pool_new(int ram_fd, struct cell_pool **out) {
    struct cell_pool *p = calloc(1, sizeof(*p));
    int rc;

    if (!p)
        return -ENOMEM;
    p->cfg.ram_fd = ram_fd;
    p->cfg.slots_fd = -1;
    p->socket = -1;
    sched_getaffinity(0, sizeof(p->may), &p->may);
    p->can_fault = can_fault();
    rc = make_memory(p);
    if (!rc)
        rc = open_descriptors(p);
    for (unsigned n = 0; n < CELLS_MAX && !rc; n++) {
        struct cell *c = &p->cell[n];
        uint8_t *slot = p->slots + (size_t)n * CELL_SLOT;

        c->pool = p;
        c->slot = n;
        c->orders = orders_of(p->slots, n);
        c->resume = (struct cell_resume *)(slot + (CELL_RESUME - CELL_ORDERS));
        c->state = (struct cell_state *)(slot + CELL_ORDERS_SIZE);
        c->stack = slot + CELL_ORDERS_SIZE + CELL_STATE_SIZE;
    }
    if (!rc)
        rc = spawner_start(&p->cfg, &p->socket);
    if (rc) {
        cell_pool_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void cell_pool_free(struct cell_pool *p) {
    if (!p)
        return;
    if (p->socket >= 0)
        close(p->socket);
    close_all(p->cfg.ack);
    close_all(p->cfg.out);
    close_all(p->cfg.go);
    close_all(p->cfg.kick);
    close_all(p->cfg.kicks);
    if (p->cfg.dead)
        munmap(p->cfg.dead, CELLS_MAX * sizeof(*p->cfg.dead));
    if (p->slots)
        os_memfd_unmap(p->cfg.slots_fd, p->slots, (uint64_t)CELLS_MAX * CELL_SLOT);
    free(p);
}

struct cell_gate *cell_pool_gate(struct cell_pool *p) {
    return &p->gate;
}

/* --- where they run --- */

static uint32_t vcpus_at(const struct cell_pool *p, int cpu) {
    return __atomic_load_n(&p->pinned[cpu], __ATOMIC_RELAXED);
}

/* The one with the fewest vCPUs, beginning with FIRST; -1: there is none. */
static int emptiest(const struct cell_pool *p, int first) {
    int best = -1;

    for (int n = 0; n < CPU_SETSIZE; n++) {
        int cpu = (first + n) % CPU_SETSIZE;

        if (CPU_ISSET(cpu, &p->may) && (best < 0 || vcpus_at(p, cpu) < vcpus_at(p, best)))
            best = cpu;
    }
    return best;
}

static int pin_to(struct cell_pool *p, int cpu) {
    cpu_set_t one;

    if (cpu < 0)
        return -1;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof(one), &one))
        return -1;
    __atomic_add_fetch(&p->pinned[cpu], 1, __ATOMIC_RELAXED);
    return cpu;
}

int cell_pool_pin(struct cell_pool *p, int wanted) {
    int first = wanted < 0 || wanted >= CPU_SETSIZE ? sched_getcpu() : wanted;

    return pin_to(p, emptiest(p, first < 0 ? 0 : first));
}

int cell_pool_evade(struct cell_pool *p, int cpu) {
    int to = emptiest(p, cpu + 1 + (int)(os_tsc() >> 4 & 63));

    if (to < 0 || vcpus_at(p, to) >= vcpus_at(p, cpu))
        return cpu;
    cell_pool_unpin(p, cpu);
    return pin_to(p, to);
}

void cell_pool_unpin(struct cell_pool *p, int cpu) {
    if (cpu < 0)
        return;
    __atomic_sub_fetch(&p->pinned[cpu], 1, __ATOMIC_RELAXED);
    sched_setaffinity(0, sizeof(p->may), &p->may);
}

/* --- orders --- */

static void wake_helper(struct cell *c) {
    __atomic_add_fetch(&c->orders->word, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &c->orders->word, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0);
}

/* What an eventfd has got since it was read. It waits for something. */
static uint64_t await(int fd) {
    uint64_t value;

    while (read(fd, &value, sizeof(value)) != sizeof(value))
        if (errno != EINTR)
            return CELL_ACK_DEAD;
    return value;
}

/* The same from C's process or its spawner, which may end before it has said anything: a
 * filter outside of us may not let it go on. */
static uint64_t await_made(const struct cell *c, int fd) {
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = c->pool->socket}};

    while (poll(p, 2, -1) < 0)
        if (errno != EINTR)
            return CELL_ACK_DEAD;
    return p[0].revents ? await(fd) : CELL_ACK_DEAD;
}

static void put_down(int fd, uint64_t value) {
    while (write(fd, &value, sizeof(value)) < 0 && errno == EINTR)
        ;
}

unsigned cell_orders(const struct cell *c) {
    return c->orders->count;
}

/* The helper answers by GO, or by ACK. */
static void send_orders(struct cell *c, bool go) {
    c->orders->go = go;
    __atomic_add_fetch(&c->orders->batch, 1, __ATOMIC_SEQ_CST);
    wake_helper(c);
}

int cell_sync(struct cell *c) {
    uint64_t said;

    if (!c->orders->count)
        return 0;
    if (c->is != CELL_USED)
        return -EIO;
    send_orders(c, false);
    said = await(c->pool->cfg.ack[c->slot]);
    c->orders->count = 0;
    if (said >= CELL_ACK_DEAD) {
        c->is = CELL_DEAD;
        return -EIO;
    }
    return said >= CELL_ACK_FAILED ? -ENOMEM : 0;
}

static int order(struct cell *c, struct cell_order o) {
    int rc = c->orders->count == CELL_O_MAX ? cell_sync(c) : 0;

    if (!rc)
        c->orders->order[c->orders->count++] = o;
    return rc;
}

static int map_as(struct cell *c, uint64_t at, uint64_t pages, int prot, int how,
                  uint64_t offset) {
    return order(c, (struct cell_order){
                        .call = SYS_mmap,
                        .arg = {at, pages << 12, (uint64_t)prot},
                        .flags = (uint32_t)(how | MAP_FIXED | MAP_POPULATE),
                        .offset = offset,
                    });
}

int cell_map(struct cell *c, uint64_t at, uint64_t pages, int prot, uint64_t offset) {
    return map_as(c, at, pages, prot, MAP_SHARED, offset);
}

int cell_map_copy(struct cell *c, uint64_t at, uint64_t offset, const uint16_t *place,
                  unsigned count, uint8_t value) {
    int rc = map_as(c, at, 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, offset);

    for (unsigned n = 0; n < count && !rc; n++)
        rc = order(c,
                   (struct cell_order){.call = CELL_POKE, .arg = {at + place[n], value}});
    return rc ? rc
              : order(c, (struct cell_order){.call = SYS_mprotect,
                                             .arg = {at, 4096, PROT_READ | PROT_EXEC}});
}

int cell_unmap(struct cell *c, uint64_t at, uint64_t pages) {
    return order(c, (struct cell_order){.call = SYS_munmap, .arg = {at, pages << 12}});
}

int cell_unmap_all(struct cell *c) {
    int rc = cell_unmap(c, 0, CELL_BASE >> 12);

    return rc ? rc : cell_unmap(c, CELL_END, (CELL_TOP - CELL_END) >> 12);
}

uint64_t cell_cpu_ns(const struct cell *c) {
    return os_process_cpu_ns((uint32_t)c->thread);
}

uint64_t cell_pool_cpu_ns(struct cell_pool *p) {
    for (unsigned n = 0; n < CELLS_MAX; n++) {
        uint64_t thread = __atomic_load_n(&p->cell[n].thread, __ATOMIC_RELAXED), ns;

        if (!thread)
            continue;
        if (thread != p->counted[n])
            p->had_ns[n] = 0;
        p->counted[n] = thread;
        ns = os_process_cpu_ns((uint32_t)thread); /* 0: it has ended */
        if (ns <= p->had_ns[n])
            continue;
        p->cpu_ns += ns - p->had_ns[n];
        p->had_ns[n] = ns;
    }
    return p->cpu_ns;
}

static int order_affinity(struct cell *c, uint64_t thread) {
    return order(c, (struct cell_order){
                        .call = SYS_sched_setaffinity,
                        .arg = {thread, CELL_O_MASK_SIZE, CELL_ORDERS + CELL_O_MASK},
                    });
}

int cell_move(struct cell *c, int cpu) {
    int rc;

    if (cpu == c->cpu || cpu < 0 || cpu >= CELL_O_MASK_SIZE * 8)
        return 0;
    rc = cell_sync(c);
    if (rc)
        return rc;
    c->cpu = cpu;
    memset(c->orders->mask, 0, CELL_O_MASK_SIZE);
    c->orders->mask[cpu / 64] = 1ull << cpu % 64;
    rc = order_affinity(c, c->thread);
    if (!rc)
        rc = order_affinity(c, 0);
    return rc ? rc : cell_sync(c);
}

/* --- life --- */

static int ask(struct cell *c, enum spawner_what what, int cpu) {
    struct spawner_request r = {.what = (uint8_t)what,
                                .slot = (uint8_t)c->slot,
                                .tsc_faults = c->faults & CELL_TSC_FAULTS,
                                .cpuid_faults = c->faults & CELL_CPUID_FAULTS,
                                .pinned = cpu >= 0,
                                .cpu = (uint16_t)(cpu < 0 ? 0 : cpu)};

    return write(c->pool->socket, &r, sizeof(r)) == sizeof(r) ? 0 : -EIO;
}

/* Of its end: the next cell in this slot would take it for its own. False: the spawner
 * has ended. */
static bool all_is_said(const struct cell *c) {
    const uint32_t *dead = &c->pool->cfg.dead[c->slot];
    struct pollfd p = {.fd = c->pool->socket};

    while (__atomic_load_n(dead, __ATOMIC_SEQ_CST) != SPAWNER_DEAD_AND_TOLD)
        if (poll(&p, 1, 1) > 0)
            return false;
    return true;
}

/* No process is left of it. */
static void bury(struct cell *c) {
    uint32_t *dead = &c->pool->cfg.dead[c->slot];

    if (c->is == CELL_NONE)
        return;
    if (!__atomic_load_n(dead, __ATOMIC_SEQ_CST) && ask(c, SPAWNER_KILL, 0)) {
        c->is = CELL_LOST; /* the spawner has ended, and the cells with it */
        return;
    }
    while (!__atomic_load_n(dead, __ATOMIC_SEQ_CST))
        if (await_made(c, c->pool->cfg.ack[c->slot]) == CELL_ACK_DEAD &&
            !__atomic_load_n(dead, __ATOMIC_SEQ_CST)) {
            c->is = CELL_LOST;
            return;
        }
    if (!all_is_said(c)) {
        c->is = CELL_LOST;
        return;
    }
    __atomic_store_n(&c->is, CELL_NONE, __ATOMIC_SEQ_CST);
}

/* Empties an eventfd. */
static void drain(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};

    while (poll(&p, 1, 0) > 0 && await(fd))
        ;
}

static void start(struct cell *c, int cpu) {
    const struct spawner_config *cfg = &c->pool->cfg;

    drain(cfg->ack[c->slot]);
    drain(cfg->out[c->slot]);
    drain(cfg->go[c->slot]);
    memset(c->state, 0, CELL_STATE_SIZE);
    memset(c->orders, 0, CELL_ORDERS_SIZE);
    __atomic_store_n(&cfg->dead[c->slot], 0, __ATOMIC_SEQ_CST);
    c->is = ask(c, SPAWNER_MAKE, cpu) ? CELL_LOST : CELL_STARTS;
}

#define WHATEVER UINT32_MAX

/* Takes a cell that is in state FROM, if it is idle with FAULTS only. */
static struct cell *take(struct cell_pool *p, unsigned from, unsigned faults) {
    for (unsigned n = 0; n < CELLS_MAX; n++) {
        struct cell *c = &p->cell[n];
        unsigned is = from;

        if (from == CELL_IDLE && faults != WHATEVER && c->faults != faults)
            continue;
        if (__atomic_compare_exchange_n(&c->is, &is, CELL_USED, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST))
            return c;
    }
    return NULL;
}

struct cell *cell_new(struct cell_pool *p, int cpu, unsigned faults) {
    struct cell *c = take(p, CELL_IDLE, faults);

    if (c && c->faults == faults && !cell_move(c, cpu))
        return c;
    if (c)
        bury(c);
    c = take(p, CELL_NONE, faults);
    if (!c) { /* all places may have cells of other kinds */
        struct cell *other = take(p, CELL_IDLE, WHATEVER);

        if (other)
            bury(other);
        c = take(p, CELL_NONE, faults);
    }
    if (!c)
        return NULL;
    c->faults = faults;
    c->cpu = cpu;
    start(c, cpu);
    return c;
}

int cell_ready(struct cell *c, bool wait) {
    int fd = c->pool->cfg.out[c->slot];
    struct pollfd p = {.fd = fd, .events = POLLIN};

    if (c->is == CELL_USED)
        return 1;
    if (c->is != CELL_STARTS)
        return -EIO;
    if (!wait && poll(&p, 1, 0) <= 0)
        return 0;
    if (await_made(c, fd) == CELL_ACK_DEAD ||
        __atomic_load_n(&c->pool->cfg.dead[c->slot], __ATOMIC_SEQ_CST)) {
        c->is = CELL_DEAD;
        return -EIO;
    }
    __atomic_store_n(&c->thread, c->state->thread, __ATOMIC_RELAXED);
    c->is = CELL_USED;
    return 1;
}

unsigned cell_faults(const struct cell *c) {
    return c->faults;
}

void cell_give_back(struct cell *c) {
    c->orders->count = 0;
    if (c->is == CELL_USED && !cell_unmap_all(c) && !cell_sync(c))
        __atomic_store_n(&c->is, CELL_IDLE, __ATOMIC_SEQ_CST);
    else
        bury(c);
}

/* --- turns --- */

void cell_turn_begin(struct cell *c) {
    __atomic_add_fetch(&c->orders->turn, 1, __ATOMIC_SEQ_CST);
}

int cell_turn(struct cell *c) {
    uint64_t said;

    if (c->orders->count)
        send_orders(c, true);
    else
        put_down(c->pool->cfg.go[c->slot], 1);
    said = await(c->pool->cfg.out[c->slot]);
    c->orders->count = 0;
    if (!__atomic_load_n(&c->pool->cfg.dead[c->slot], __ATOMIC_SEQ_CST))
        return said >= CELL_ACK_FAILED ? -ENOMEM : 0;
    c->is = CELL_DEAD;
    return -EIO;
}

void cell_turn_end(struct cell *c) {
    uint32_t turn = __atomic_fetch_add(&c->orders->turn, 1, __ATOMIC_SEQ_CST);
    char byte;

    if (__atomic_load_n(&c->orders->kick, __ATOMIC_SEQ_CST) == turn)
        while (read(c->pool->cfg.kick[c->slot], &byte, 1) > 0)
            ;
}

void cell_kick(struct cell *c) {
    uint32_t turn = __atomic_load_n(&c->orders->turn, __ATOMIC_SEQ_CST);

    if (turn & 1 &&
        __atomic_exchange_n(&c->orders->kick, turn, __ATOMIC_SEQ_CST) != turn) {
        put_down(c->pool->cfg.kicks[c->slot], 1);
        wake_helper(c); /* who sees to it that it comes out */
    }
}
