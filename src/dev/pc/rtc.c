/*
 * MC146818 real-time clock. Motorola MC146818A data sheet; the PC's CMOS cells as in the
 * PS/2 and AT BIOS.
 *
 * Time: `base_sec` is the clock's time (seconds since 1970, as if its digits were UTC) at
 * virtual time `base_ns`; it is the host's at reset and moves when the guest sets it. The
 * ten time registers are worked out when they are read. While SET is on, the guest's
 * digits lie in `regs` and become the time when SET goes off.
 *
 * One timer stands for the periodic, alarm and update interrupts; it is armed only for
 * those that are enabled, so an idle clock costs nothing. Periodic ticks that were missed
 * are not made up for: PF is one bit.
 */
#include "dev/pc/rtc.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/os.h"
#include "snapshot/snapshot.h"

#define NS_PER_S 1000000000ull
#define UPDATE_NS 244000ull /* UIP is on so long before an update */

enum {
    R_SEC,
    R_SEC_ALARM,
    R_MIN,
    R_MIN_ALARM,
    R_HOUR,
    R_HOUR_ALARM,
    R_WDAY,
    R_MDAY,
    R_MONTH,
    R_YEAR,
    R_A,
    R_B,
    R_C,
    R_D,
    R_CENTURY = 0x32,
};

#define A_UIP 0x80u
#define B_SET 0x80u
#define B_PIE 0x40u
#define B_AIE 0x20u
#define B_UIE 0x10u
#define B_BINARY 0x04u
#define B_24H 0x02u
#define C_IRQF 0x80u
#define C_PF 0x40u
#define C_AF 0x20u
#define C_UF 0x10u
#define D_VALID 0x80u
#define HOUR_PM 0x80u

struct rtc {
    struct vclock *clock;
    struct irq_line irq;
    struct rtc_config cfg;
    struct counters *cnt;
    uint8_t index;    /* port 0x70, bit 7: NMI mask */
    uint8_t index_hi; /* port 0x72 */
    uint8_t regs[256];
    int64_t base_sec;
    uint64_t base_ns;
    uint64_t periodic_at; /* next tick, while PIE */
    int64_t seen_sec; /* the second up to which alarm and update have been looked at */
    struct vtimer timer;
};

static int64_t now_sec(const struct rtc *r) {
    return r->base_sec + (int64_t)((vclock_now(r->clock) - r->base_ns) / NS_PER_S);
}

static bool stopped(const struct rtc *r) {
    return (r->regs[R_B] & B_SET) ||
           (r->regs[R_A] >> 4 & 7) > 2; /* SET, or divider held */
}

static uint8_t encode(const struct rtc *r, unsigned v) {
    return (uint8_t)(r->regs[R_B] & B_BINARY ? v : v / 10 % 10 << 4 | v % 10);
}

static unsigned decode(const struct rtc *r, uint8_t v) {
    return r->regs[R_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, unsigned h) {
    if (r->regs[R_B] & B_24H)
        return encode(r, h);
    return encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? HOUR_PM : 0);
}

static unsigned decode_hour(const struct rtc *r, uint8_t v) {
    if (r->regs[R_B] & B_24H)
        return decode(r, v);
    return decode(r, v & 0x7f) % 12 + (v & HOUR_PM ? 12 : 0);
}

/* The time as digits into `regs`. */
static void to_regs(struct rtc *r, int64_t sec) {
    time_t t = (time_t)sec;
    struct tm tm;

    if (!gmtime_r(&t, &tm))
        return; /* a year beyond int: the digits stay */
    r->regs[R_SEC] = encode(r, (unsigned)tm.tm_sec);
    r->regs[R_MIN] = encode(r, (unsigned)tm.tm_min);
    r->regs[R_HOUR] = encode_hour(r, (unsigned)tm.tm_hour);
    r->regs[R_WDAY] = encode(r, (unsigned)tm.tm_wday + 1);
    r->regs[R_MDAY] = encode(r, (unsigned)tm.tm_mday);
    r->regs[R_MONTH] = encode(r, (unsigned)tm.tm_mon + 1);
    r->regs[R_YEAR] = encode(r, (unsigned)tm.tm_year % 100);
    r->regs[R_CENTURY] = encode(r, (unsigned)(tm.tm_year + 1900) / 100 % 100);
}

/* The digits as a time; what a calendar does not have (February 31) is carried over. */
static void from_regs(struct rtc *r) {
    struct tm tm = {
        .tm_sec = (int)decode(r, r->regs[R_SEC]),
        .tm_min = (int)decode(r, r->regs[R_MIN]),
        .tm_hour = (int)decode_hour(r, r->regs[R_HOUR]),
        .tm_mday = (int)decode(r, r->regs[R_MDAY]),
        .tm_mon = (int)decode(r, r->regs[R_MONTH]) - 1,
        .tm_year =
            (int)(decode(r, r->regs[R_CENTURY]) * 100 + decode(r, r->regs[R_YEAR])) -
            1900,
    };

    r->base_sec = timegm(&tm);
    r->base_ns = vclock_now(r->clock);
    r->seen_sec = r->base_sec;
}

/* Two top bits set: any value matches. */
static bool alarm_field(uint8_t alarm, uint8_t now) {
    return (alarm & 0xc0) == 0xc0 || alarm == now;
}

static bool alarm_matches(const struct rtc *r, int64_t sec) {
    unsigned s = (unsigned)(((sec % 86400) + 86400) % 86400);

    return alarm_field(r->regs[R_SEC_ALARM], encode(r, s % 60)) &&
           alarm_field(r->regs[R_MIN_ALARM], encode(r, s / 60 % 60)) &&
           alarm_field(r->regs[R_HOUR_ALARM], encode_hour(r, s / 3600));
}

static uint64_t period_ns(const struct rtc *r) {
    unsigned rate = r->regs[R_A] & 15;

    if (!rate)
        return 0;
    if (rate < 3)
        rate += 7; /* with a 32.768 kHz crystal */
    return (NS_PER_S << (rate - 1)) / 32768;
}

/* Sets the flags for what has happened; a day's alarm is found whatever was missed. */
static void collect(struct rtc *r) {
    uint64_t now = vclock_now(r->clock), p = period_ns(r);
    int64_t sec = now_sec(r), s;

    if (p && now >= r->periodic_at) {
        r->regs[R_C] |= C_PF;
        r->periodic_at += ((now - r->periodic_at) / p + 1) * p;
    }
    if (stopped(r) || sec <= r->seen_sec)
        return;
    r->regs[R_C] |= C_UF;
    s = sec - r->seen_sec > 86400 ? sec - 86400 : r->seen_sec;
    while (!(r->regs[R_C] & C_AF) && s < sec)
        if (alarm_matches(r, ++s))
            r->regs[R_C] |= C_AF;
    r->seen_sec = sec;
}

static void update_irq(struct rtc *r) {
    bool before = r->regs[R_C] & C_IRQF;
    bool on = r->regs[R_C] & r->regs[R_B] & (C_PF | C_AF | C_UF);

    r->regs[R_C] = (uint8_t)((r->regs[R_C] & ~C_IRQF) | (on ? C_IRQF : 0));
    r->cnt->irq_rtc += on && !before;
    irq_set(&r->irq, on);
}

/* Arms for the next thing that would raise the interrupt. */
static void schedule(struct rtc *r) {
    uint8_t b = r->regs[R_B], c = r->regs[R_C];
    uint64_t at = VCLOCK_NEVER, next;

    if ((b & B_PIE) && !(c & C_PF) && period_ns(r))
        at = r->periodic_at;
    if ((((b & B_UIE) && !(c & C_UF)) || ((b & B_AIE) && !(c & C_AF))) && !stopped(r)) {
        next = r->base_ns + (uint64_t)(r->seen_sec + 1 - r->base_sec) * NS_PER_S;
        at = next < at ? next : at;
    }
    vtimer_arm(r->clock, &r->timer, at);
}

static void refresh(struct rtc *r) {
    collect(r);
    update_irq(r);
    schedule(r);
}

static void timer_due(void *arg) {
    refresh(arg);
}

bool rtc_nmi_masked(const struct rtc *r) {
    return r->index & 0x80;
}

/* --- registers --- */

static bool is_time(uint8_t i) {
    return i == R_SEC || i == R_MIN || i == R_HOUR || (i >= R_WDAY && i <= R_YEAR) ||
           i == R_CENTURY;
}

static uint8_t reg_read(struct rtc *r, uint8_t i) {
    uint64_t into;
    uint8_t v;

    if (is_time(i) && !stopped(r))
        to_regs(r, now_sec(r));
    switch (i) {
    case R_A:
        into = (vclock_now(r->clock) - r->base_ns) % NS_PER_S;
        return r->regs[R_A] | (!stopped(r) && into >= NS_PER_S - UPDATE_NS ? A_UIP : 0);
    case R_C:
        collect(r);
        update_irq(r);
        v = r->regs[R_C];
        r->regs[R_C] = 0;
        update_irq(r);
        schedule(r);
        return v;
    case R_D:
        return D_VALID;
    default:
        return r->regs[i];
    }
}

static void write_a(struct rtc *r, uint8_t value) {
    bool was = stopped(r);

    if (!was)
        to_regs(r, now_sec(r));
    r->regs[R_A] = value & 0x7f;
    if (was && !stopped(r))
        from_regs(r);
    r->periodic_at = vclock_now(r->clock) + period_ns(r);
    refresh(r);
}

static void write_b(struct rtc *r, uint8_t value) {
    bool was = stopped(r);

    collect(r);
    if (!was)
        to_regs(r, now_sec(r));
    if (value & B_SET)
        value &= (uint8_t)~B_UIE;
    if ((value & ~r->regs[R_B]) & B_PIE)
        r->periodic_at = vclock_now(r->clock) + period_ns(r);
    r->regs[R_B] = value;
    if (was && !stopped(r))
        from_regs(r);
    refresh(r);
}

/* A digit was written while the clock runs: it takes effect at once. */
static void write_time(struct rtc *r, uint8_t i, uint8_t value) {
    bool running = !stopped(r);

    if (running)
        to_regs(r, now_sec(r));
    r->regs[i] = value;
    if (running)
        from_regs(r);
    refresh(r);
}

static void reg_write(struct rtc *r, uint8_t i, uint8_t value) {
    if (is_time(i)) {
        write_time(r, i, value);
        return;
    }
    switch (i) {
    case R_A:
        write_a(r, value);
        break;
    case R_B:
        write_b(r, value);
        break;
    case R_C:
    case R_D:
        break;
    default: /* alarm and RAM */
        r->regs[i] = value;
        if (i < R_A)
            refresh(r);
        break;
    }
}

static uint64_t io_read(void *dev, uint64_t reg, unsigned size) {
    struct rtc *r = dev;

    switch (reg) {
    case 0:
        return r->index;
    case 1:
        return reg_read(r, r->index & 0x7f);
    case 2:
        return r->index_hi;
    default: /* the upper bank has the lower one's registers in its first half */
        return r->index_hi & 0x80 ? r->regs[r->index_hi] : reg_read(r, r->index_hi);
    }
}

static void io_write(void *dev, uint64_t reg, unsigned size, uint64_t data) {
    struct rtc *r = dev;
    uint8_t value = (uint8_t)data;

    switch (reg) {
    case 0:
        r->index = value;
        break;
    case 1:
        reg_write(r, r->index & 0x7f, value);
        break;
    case 2:
        r->index_hi = value;
        break;
    default:
        if (r->index_hi & 0x80)
            r->regs[r->index_hi] = value;
        else
            reg_write(r, r->index_hi, value);
        break;
    }
}

static const struct bus_ops ops = {.read = io_read, .write = io_write, .width = 1};

static void put16(struct rtc *r, unsigned at, uint64_t value, uint64_t max) {
    if (value > max)
        value = max;
    r->regs[at] = (uint8_t)value;
    r->regs[at + 1] = (uint8_t)(value >> 8);
}

/* Memory sizes as BIOSes leave them: base and extended KiB, then 64 KiB pieces above 16
 * MiB; and the sum that guards 0x10 to 0x2d. */
static void fill_cmos(struct rtc *r) {
    uint64_t ram = r->cfg.ram_size, low = ram > 0xc0000000u ? 0xc0000000u : ram;
    uint64_t above_1m = low > 0x100000 ? (low - 0x100000) >> 10 : 0;
    uint64_t above_16m = low > 0x1000000 ? (low - 0x1000000) >> 16 : 0;
    unsigned i, sum = 0;

    r->regs[0x14] = 0x06; /* equipment: FPU, VGA */
    r->regs[0x38] = 0x11; /* boot: no signature check of floppies, which come third */
    r->regs[0x3d] = 0x32; /* first the hard disk, then the CD-ROM */
    r->regs[0x5f] = (uint8_t)(r->cfg.cpus ? r->cfg.cpus - 1 : 0);
    put16(r, 0x15, 640, 640);
    put16(r, 0x17, above_1m, 0xffff);
    put16(r, 0x30, above_1m, 0xffff);
    put16(r, 0x34, above_16m, 0xffff);
    if (ram > low) { /* 64 KiB pieces above 4 GiB */
        put16(r, 0x5b, (ram - low) >> 16 & 0xffff, 0xffff);
        r->regs[0x5d] = (uint8_t)((ram - low) >> 32);
    }
    for (i = 0x10; i <= 0x2d; i++)
        sum += r->regs[i];
    r->regs[0x2e] = (uint8_t)(sum >> 8);
    r->regs[0x2f] = (uint8_t)sum;
}

void rtc_reset(struct rtc *r) {
    uint64_t real =
        r->cfg.realtime_ns ? r->cfg.realtime_ns(r->cfg.arg) : os_realtime_ns();

    memset(r->regs, 0, sizeof(r->regs));
    r->regs[R_A] = 0x26; /* 32.768 kHz crystal, 1024 Hz */
    r->regs[R_B] = B_24H;
    r->index = r->index_hi = 0;
    fill_cmos(r);
    r->base_sec = (int64_t)(real / NS_PER_S);
    /* Virtual time may be younger than the fraction of the second: then it wraps, which
     * the unsigned differences allow. */
    r->base_ns = vclock_now(r->clock) - real % NS_PER_S;
    r->seen_sec = r->base_sec;
    r->periodic_at = vclock_now(r->clock) + period_ns(r);
    to_regs(r, r->base_sec);
    update_irq(r);
    schedule(r);
}

/* Seconds since 1970 that the calendar is for: of some thirty thousand years. */
#define SECONDS_MAX (1ll << 40)

void rtc_state(struct rtc *r, struct snapshot *s) {
    uint64_t real =
        r->cfg.realtime_ns ? r->cfg.realtime_ns(r->cfg.arg) : os_realtime_ns();
    uint64_t then = real;

    SNAPSHOT(s, r->index);
    SNAPSHOT(s, r->index_hi);
    snapshot_bytes(s, r->regs, sizeof(r->regs));
    SNAPSHOT(s, r->base_sec);
    SNAPSHOT(s, r->base_ns);
    SNAPSHOT(s, r->periodic_at);
    SNAPSHOT(s, r->seen_sec);
    SNAPSHOT(s, then);
    vtimer_state(r->clock, &r->timer, s);
    snapshot_need(s, r->base_sec > -SECONDS_MAX && r->base_sec < SECONDS_MAX &&
                         r->seen_sec > -SECONDS_MAX && r->seen_sec < SECONDS_MAX);
    if (!snapshot_reading(s) || !snapshot_good(s) || real <= then)
        return;
    /* The date has gone on meanwhile, as that of a computer that was switched off. What
     * was due in between is not: alarms are looked for from now on. */
    r->base_sec += (int64_t)((real - then) / NS_PER_S);
    r->base_ns -= (real - then) % NS_PER_S;
    r->seen_sec += (int64_t)((real - then) / NS_PER_S);
}

struct rtc *rtc_new(struct bus *bus, struct vclock *clock, struct irq_line irq,
                    const struct rtc_config *cfg, struct counters *cnt) {
    struct rtc *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->clock = clock;
    r->irq = irq;
    r->cfg = *cfg;
    r->cnt = cnt;
    r->timer = (struct vtimer){.fire = timer_due, .arg = r};
    if (!bus_attach_pio(bus, 0x70, 4, &ops, r, "rtc")) {
        free(r);
        return NULL;
    }
    rtc_reset(r);
    return r;
}

void rtc_free(struct rtc *r) {
    if (!r)
        return;
    vtimer_cancel(r->clock, &r->timer);
    free(r);
}
