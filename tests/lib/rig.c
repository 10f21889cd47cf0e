#include "lib/rig.h"

#include <string.h>

#include "lib/need.h"

static uint64_t clock_now(void *arg) {
    return ((struct rig *)arg)->now;
}

static uint64_t clock_ticks(void *arg) {
    return ((struct rig *)arg)->now * (RIG_TSC_HZ / 1000000000u);
}

static void on_line(void *arg, unsigned n, bool level) {
    struct rig *r = arg;

    r->rises[n] += level && !r->line[n];
    r->line[n] = level;
}

static void on_reset(void *arg) {
    ((struct rig *)arg)->resets++;
}

static void on_poweroff(void *arg) {
    ((struct rig *)arg)->poweroffs++;
}

static void on_debug_exit(void *arg, uint32_t value) {
    ((struct rig *)arg)->exit_value = value;
}

static void on_a20(void *arg, bool on) {
    struct rig *r = arg;

    r->a20 = on;
    r->a20_moves++;
}

void rig_new(struct rig *r) {
    struct vclock_source src = {
        .now_ns = clock_now, .ticks = clock_ticks, .tick_hz = RIG_TSC_HZ, .arg = r};

    memset(r, 0, sizeof(*r));
    r->now = 1000000000;
    r->a20 = true;
    r->host = (struct dev_host){.poweroff = on_poweroff,
                                .reset = on_reset,
                                .debug_exit = on_debug_exit,
                                .a20 = on_a20,
                                .arg = r};
    r->clock = vclock_new(&src);
    r->bus = bus_new();
    need(r->clock && r->bus, "no bus or no clock");
}

void rig_free(struct rig *r) {
    need(vclock_next(r->clock) == VCLOCK_NEVER, "a device left a timer behind");
    bus_free(r->bus);
    vclock_free(r->clock);
}

struct irq_line rig_line(struct rig *r, unsigned n) {
    return (struct irq_line){.set = on_line, .arg = r, .n = n};
}

uint64_t rig_realtime(void *rig) {
    return RIG_REALTIME_NS + ((struct rig *)rig)->now - 1000000000;
}

void rig_pass(struct rig *r, uint64_t ns) {
    uint64_t end = r->now + ns;

    while (vclock_next(r->clock) <= end) {
        if (vclock_next(r->clock) > r->now)
            r->now = vclock_next(r->clock);
        vclock_run(r->clock);
    }
    r->now = end;
}

void rig_out(struct rig *r, unsigned port, unsigned value) {
    bus_pio_write(r->bus, (uint16_t)port, 1, value);
}

unsigned rig_in(struct rig *r, unsigned port) {
    return bus_pio_read(r->bus, (uint16_t)port, 1);
}

void rig_out16(struct rig *r, unsigned port, unsigned value) {
    bus_pio_write(r->bus, (uint16_t)port, 2, value);
}

unsigned rig_in16(struct rig *r, unsigned port) {
    return bus_pio_read(r->bus, (uint16_t)port, 2);
}

void rig_out32(struct rig *r, unsigned port, uint32_t value) {
    bus_pio_write(r->bus, (uint16_t)port, 4, value);
}

uint32_t rig_in32(struct rig *r, unsigned port) {
    return bus_pio_read(r->bus, (uint16_t)port, 4);
}

void rig_write(struct rig *r, uint64_t at, uint32_t value) {
    bus_mmio_write(r->bus, gpa(at), 4, value);
}

uint32_t rig_read(struct rig *r, uint64_t at) {
    return (uint32_t)bus_mmio_read(r->bus, gpa(at), 4);
}
