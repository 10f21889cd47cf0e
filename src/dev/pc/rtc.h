/* MC146818 real-time clock with CMOS RAM (ports 0x70 to 0x73), and the NMI mask. */
#ifndef DEV_RTC_H
#define DEV_RTC_H

#include "base/counters.h"
#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/irq.h"

struct rtc;
struct snapshot;

struct rtc_config {
    /* Nanoseconds since 1970, UTC; NULL: the host's clock. Read once a reset; from there
     * the clock runs on the virtual clock. */
    uint64_t (*realtime_ns)(void *arg);
    void *arg;
    uint64_t ram_size; /* bytes, for the memory-size cells */
    unsigned cpus;     /* for the cell that firmware counts processors by; 0: one */
};

/* NULL when out of memory or of places on the bus. */
struct rtc *rtc_new(struct bus *bus, struct vclock *clock, struct irq_line irq,
                    const struct rtc_config *cfg, struct counters *cnt);
void rtc_free(struct rtc *r);
void rtc_reset(struct rtc *r);

/* Bit 7 of port 0x70: NMIs from outside the CPU are held back. */
bool rtc_nmi_masked(const struct rtc *r);

/* Its record of a snapshot (snapshot/snapshot.h). When it is read the date has gone on by
 * as much as the host's has. */
void rtc_state(struct rtc *r, struct snapshot *s);

#endif
