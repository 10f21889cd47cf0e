/*
 * KVM's steal time, as Linux's Documentation/virt/kvm/x86/msr.rst describes it
 * (MSR_KVM_STEAL_TIME), and the flush of TLBs that rests on it (cpuid.rst,
 * KVM_FEATURE_PV_TLB_FLUSH).
 *
 * Each CPU names a record of 64 bytes in guest memory. `steal` grows by what its thread
 * has waited for a CPU of the host's: not by what it slept, nor by what the guest waited
 * for. `version` is odd while that changes. It is brought up to date when the CPU's
 * timers run, at most once a UPDATE_NS: the guest looks at its ticks.
 *
 * `preempted` says that the CPU executes nothing. Others, who would send it an interrupt
 * so that it flushes its TLB, and wait, then leave it a bit there instead, by a locked
 * exchange; and it takes both away by another before it executes again. So either they
 * see it run, or it sees the bit. It is set while the CPU sleeps in HLT and while it lets
 * others run (vcpu_hooks.away). When the host takes its processor from it, nobody tells
 * us, and nothing is lost but the shortcut.
 *
 * The record is guest memory: what is read there is taken as any number. Not here: whose
 * time it is (the host's, steal_host), what flushing means (the MMU's).
 */
#include "dev/pv/steal.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define ENABLE 1ull
#define RESERVED 0x3eull /* with ENABLE, below the record's address */
#define PREEMPTED 1u
#define FLUSH_TLB 2u
#define UPDATE_NS 1000000u

struct record {
    uint64_t steal;
    uint32_t version;
    uint32_t flags;
    uint8_t preempted;
    uint8_t pad[47];
};
_Static_assert(sizeof(struct record) == 64, "ABI");

struct steal {
    struct mem *mem;
    struct vclock *clock;
    struct steal_host host;
    struct counters *cnt;
    uint64_t msr;
    uint64_t waited; /* as far as the record tells */
    uint64_t next;   /* when to look again, of the clock */
};

static bool enabled(const struct steal *s) {
    return s->msr & ENABLE;
}

static struct gpa at(const struct steal *s, size_t off) {
    return gpa((s->msr & ~(ENABLE | RESERVED)) + off);
}

static bool put_version(struct steal *s, uint32_t version) {
    return mem_write(s->mem, at(s, offsetof(struct record, version)), &version,
                     sizeof(version));
}

/* What another thread of the guest's sees is in this order: mem_write() of so many bytes
 * is one store. */
static void write_record(struct steal *s) {
    uint64_t waited = s->host.waited_ns(s->host.arg), steal;
    uint32_t version;

    if (!mem_read(s->mem, at(s, offsetof(struct record, version)), &version,
                  sizeof(version)) ||
        !mem_read(s->mem, at(s, offsetof(struct record, steal)), &steal, sizeof(steal)))
        return; /* the guest named what is not its memory */
    version |= 1;
    if (!put_version(s, version))
        return;
    steal += waited > s->waited ? waited - s->waited : 0;
    s->waited = waited;
    mem_write(s->mem, at(s, offsetof(struct record, steal)), &steal, sizeof(steal));
    put_version(s, version + 1);
    s->cnt->steal_updates++;
}

void steal_update(struct steal *s) {
    uint64_t now;

    if (likely(!enabled(s)))
        return;
    now = vclock_now(s->clock);
    if (now < s->next)
        return;
    s->next = now + UPDATE_NS;
    write_record(s);
}

bool steal_msr(struct steal *s, bool write, uint64_t *value) {
    if (!write) {
        *value = s->msr;
        return true;
    }
    if (*value & RESERVED)
        return false;
    s->msr = *value;
    if (!enabled(s))
        return true;
    s->waited = s->host.waited_ns(s->host.arg); /* what was before is not this record's */
    s->next = 0;
    mem_exchange(s->mem, at(s, offsetof(struct record, preempted)), 0);
    write_record(s);
    return true;
}

void steal_away(struct steal *s) {
    if (enabled(s))
        mem_exchange(s->mem, at(s, offsetof(struct record, preempted)), PREEMPTED);
}

bool steal_back(struct steal *s) {
    int was;

    if (likely(!enabled(s)))
        return false;
    was = mem_exchange(s->mem, at(s, offsetof(struct record, preempted)), 0);
    if (was < 0 || !(was & (int)FLUSH_TLB))
        return false;
    s->cnt->steal_flushes++;
    return true;
}

void steal_reset(struct steal *s) {
    s->msr = 0;
}

/* What the CPU has waited for so far is in the guest's memory. */
void steal_state(struct steal *s, struct snapshot *snap) {
    SNAPSHOT(snap, s->msr);
    snapshot_need(snap, !(s->msr & RESERVED));
    if (!snapshot_reading(snap))
        return;
    s->waited = s->host.waited_ns(s->host.arg);
    s->next = 0;
}

struct steal *steal_new(struct mem *mem, struct vclock *clock,
                        const struct steal_host *host, struct counters *cnt) {
    struct steal *s = calloc(1, sizeof(*s));

    if (s)
        *s = (struct steal){.mem = mem, .clock = clock, .host = *host, .cnt = cnt};
    return s;
}

void steal_free(struct steal *s) {
    free(s);
}
