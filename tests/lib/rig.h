/*
 * What a device is plugged into when it is tested by itself: a bus, a clock that the test
 * moves, interrupt lines that are looked at, and a host that counts what it is asked.
 *
 * No threads and no time but the test's: rig_pass() runs the timers on the way, each at
 * its moment, as an idle machine does. A test that moves `now` itself is a machine that
 * was late.
 */
#ifndef LIB_RIG_H
#define LIB_RIG_H

#include "base/counters.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/irq.h"
#include "dev/host.h"

#define RIG_TSC_HZ 2000000000u
/* 2023-11-14 22:13:20 UTC, a Tuesday, when the rig is new. */
#define RIG_REALTIME_NS (1700000000ull * 1000000000u)

struct rig {
    uint64_t now; /* nanoseconds; a second when new, the TSC at twice that */
    struct vclock *clock;
    struct bus *bus;
    struct counters cnt;
    bool line[16];      /* levels */
    unsigned rises[16]; /* edges from low to high */
    unsigned resets, poweroffs, a20_moves;
    bool a20; /* as the host was told last */
    uint32_t exit_value;
    struct dev_host host;
};

void rig_new(struct rig *r);
/* After the devices: the clock has to be idle, or the program ends. */
void rig_free(struct rig *r);

struct irq_line rig_line(struct rig *r, unsigned n);
/* Calendar time that goes on with `now`; ARG is the rig. Of the shape of realtime_ns. */
uint64_t rig_realtime(void *rig);
/* NS later. */
void rig_pass(struct rig *r, uint64_t ns);

/* Accesses of one byte, of two, of four. */
void rig_out(struct rig *r, unsigned port, unsigned value);
unsigned rig_in(struct rig *r, unsigned port);
void rig_out16(struct rig *r, unsigned port, unsigned value);
unsigned rig_in16(struct rig *r, unsigned port);
void rig_out32(struct rig *r, unsigned port, uint32_t value);
uint32_t rig_in32(struct rig *r, unsigned port);
/* Doublewords of MMIO. */
void rig_write(struct rig *r, uint64_t at, uint32_t value);
uint32_t rig_read(struct rig *r, uint64_t at);

#endif
