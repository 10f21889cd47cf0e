/*
 * KVM's paravirtual clock, as Linux's Documentation/virt/kvm/x86/msr.rst describes it.
 *
 * Each CPU names a page; we write there once how system time follows from its TSC:
 * time = system_time + ((tsc - tsc_timestamp) << shift) * mult / 2^32. The TSC's
 * frequency is constant, so the page stays true until that TSC is set. All pages tell the
 * same line, through the same point (the reset, at system time 0): so no CPU sees a time
 * before one that another has seen, which the flag "stable" promises.
 *
 * Both structures are guarded by a version that is odd while they change. A CPU's own
 * thread writes its page; the wall clock is everybody's, under the board's lock.
 */
#include "dev/pv/pvclock.h"

#include <stdlib.h>

#include "base/os.h"
#include "snapshot/snapshot.h"
#include "x86/msr.h"

#define MSR_WALL_CLOCK_OLD 0x11u
#define MSR_SYSTEM_TIME_OLD 0x12u

#define SYSTEM_TIME_ENABLE 1u
#define FLAG_TSC_STABLE 1u
#define NS_PER_S 1000000000ull

struct time_info {
    uint32_t version;
    uint32_t pad0;
    uint64_t tsc_timestamp;
    uint64_t system_time;
    uint32_t mult;
    int8_t shift;
    uint8_t flags;
    uint8_t pad[2];
};
_Static_assert(sizeof(struct time_info) == 32, "ABI");

struct wall_clock {
    uint32_t version;
    uint32_t sec;
    uint32_t nsec;
};
_Static_assert(sizeof(struct wall_clock) == 12, "ABI");

struct pvclock {
    struct mem *mem;
    struct vclock *clock;
    struct pvclock_config cfg;
    struct counters *cnt;
    uint64_t wall_msr;
    uint64_t epoch; /* clock time at which system time is 0 */
    uint64_t ticks; /* of the clock's source at system time SINCE */
    uint64_t since; /* 0, but after a restore */
    uint32_t mult;
    int8_t shift;
    unsigned cpus;
    struct {
        uint64_t msr;
        uint32_t version;
    } cpu[];
};

bool pvclock_owns_msr(uint32_t msr) {
    return msr == MSR_WALL_CLOCK_OLD || msr == MSR_SYSTEM_TIME_OLD ||
           msr == X86_MSR_KVM_WALL_CLOCK_NEW || msr == X86_MSR_KVM_SYSTEM_TIME_NEW;
}

/* ns = (ticks << shift) * mult / 2^32 with mult in [2^31, 2^32). */
static void find_scale(uint64_t hz, uint32_t *mult, int8_t *shift) {
    unsigned __int128 m = ((unsigned __int128)NS_PER_S << 32) / hz;
    int s = 0;

    while (m > UINT32_MAX) {
        m >>= 1;
        s++;
    }
    while (m && m < 1u << 31 && s > -31) {
        s--;
        m = s < 0 ? ((unsigned __int128)NS_PER_S << (32 - s)) / hz : m << 1;
    }
    *mult = (uint32_t)m;
    *shift = (int8_t)s;
}

static void write_time(struct pvclock *p, unsigned n, const struct vclock *clock) {
    struct time_info t = {0};
    struct gpa at = gpa(p->cpu[n].msr & ~(uint64_t)SYSTEM_TIME_ENABLE);

    if (!(p->cpu[n].msr & SYSTEM_TIME_ENABLE))
        return;
    p->cpu[n].version += 2;
    t.version = p->cpu[n].version - 1;
    t.tsc_timestamp = vclock_tsc_at(clock, p->ticks);
    t.system_time = p->since;
    t.mult = p->mult;
    t.shift = p->shift;
    t.flags = FLAG_TSC_STABLE;
    if (!mem_write(p->mem, at, &t, sizeof(t)))
        return; /* the guest named what is not its memory */
    t.version++;
    mem_write(p->mem, at, &t.version, sizeof(t.version));
    p->cnt->pvclock_updates++;
}

/* Wall-clock time at which system time was 0. */
static void write_wall(struct pvclock *p) {
    uint64_t up = vclock_now(p->clock) - p->epoch;
    uint64_t real =
        p->cfg.realtime_ns ? p->cfg.realtime_ns(p->cfg.arg) : os_realtime_ns();
    uint64_t boot = real > up ? real - up : 0;
    struct gpa at = gpa(p->wall_msr);
    struct wall_clock w;
    uint32_t version;

    if (!mem_read(p->mem, at, &version, sizeof(version)))
        return;
    w.version = (version | 1) + 2;
    w.sec = (uint32_t)(boot / NS_PER_S);
    w.nsec = (uint32_t)(boot % NS_PER_S);
    if (!mem_write(p->mem, at, &w, sizeof(w)))
        return;
    w.version++;
    mem_write(p->mem, at, &w.version, sizeof(w.version));
    p->cnt->pvclock_updates++;
}

bool pvclock_msr(struct pvclock *p, unsigned n, const struct vclock *clock, uint32_t msr,
                 bool write, uint64_t *value) {
    bool wall = msr == MSR_WALL_CLOCK_OLD || msr == X86_MSR_KVM_WALL_CLOCK_NEW;

    if (!pvclock_owns_msr(msr))
        return false;
    if (!write) {
        *value = wall ? p->wall_msr : p->cpu[n].msr;
        return true;
    }
    if (wall) {
        p->wall_msr = *value;
        write_wall(p);
    } else {
        p->cpu[n].msr = *value;
        write_time(p, n, clock);
    }
    return true;
}

void pvclock_tsc_changed(struct pvclock *p, unsigned n, const struct vclock *clock) {
    write_time(p, n, clock);
}

void pvclock_reset(struct pvclock *p) {
    p->wall_msr = 0;
    for (unsigned n = 0; n < p->cpus; n++) {
        p->cpu[n].msr = 0;
        p->cpu[n].version = 0;
    }
    p->epoch = vclock_now(p->clock);
    p->ticks = vclock_ticks(p->clock);
    p->since = 0;
}

/* The host's counter may run at another pace here: what the guest computes begins where
 * its time is now, when its clocks are told (pvclock_tsc_changed()). In one that counts
 * nothing has changed. */
static void begin_here(struct pvclock *p) {
    uint64_t since = vclock_now(p->clock) - p->epoch;

    p->ticks = vclock_ticks(p->clock);
    p->since = since;
}

void pvclock_state(struct pvclock *p, struct snapshot *s) {
    uint64_t hz = vclock_tsc_hz(p->clock);
    uint32_t cpus = p->cpus;

    SNAPSHOT(s, cpus);
    snapshot_need(s, cpus == p->cpus);
    SNAPSHOT(s, p->wall_msr);
    SNAPSHOT(s, p->epoch);
    SNAPSHOT(s, p->ticks);
    SNAPSHOT(s, p->since);
    SNAPSHOT(s, hz);
    for (unsigned n = 0; n < p->cpus; n++) {
        SNAPSHOT(s, p->cpu[n].msr);
        SNAPSHOT(s, p->cpu[n].version);
    }
    if (snapshot_reading(s) && hz != vclock_tsc_hz(p->clock))
        begin_here(p);
}

struct pvclock *pvclock_new(struct mem *mem, struct vclock *clock, unsigned cpus,
                            const struct pvclock_config *cfg, struct counters *cnt) {
    struct pvclock *p = calloc(1, sizeof(*p) + cpus * sizeof(p->cpu[0]));

    if (!p)
        return NULL;
    p->mem = mem;
    p->clock = clock;
    p->cpus = cpus;
    if (cfg)
        p->cfg = *cfg;
    p->cnt = cnt;
    find_scale(vclock_tsc_hz(clock), &p->mult, &p->shift);
    pvclock_reset(p);
    return p;
}

void pvclock_free(struct pvclock *p) {
    free(p);
}
