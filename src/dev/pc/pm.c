/*
 * ACPI fixed hardware. ACPI Specification 6, "Fixed Hardware Registers".
 *
 * Register widths: PM1a_STS, PM1a_EN and PM1a_CNT are 16 bits, PM_TMR is 32, GPE0 is two
 * bytes of status and two of enable. All are byte-addressable.
 *
 * TMR_STS is set when bit 31 of the timer changes; it is worked out from the clock when
 * it is looked at, and a timer raises the SCI in time when it is enabled.
 *
 * The SCI is on while SCI_EN is set and an enabled status bit is.
 */
#include "dev/pc/pm.h"
#include "snapshot/snapshot.h"

#include <stdlib.h>

#define STS_TMR 0x0001u
#define STS_GBL 0x0020u
#define STS_PWRBTN 0x0100u
#define STS_SLPBTN 0x0200u
#define STS_RTC 0x0400u
#define STS_WAK 0x8000u
#define EN_MASK (STS_TMR | STS_GBL | STS_PWRBTN | STS_SLPBTN | STS_RTC)
#define STS_MASK (EN_MASK | STS_WAK)

#define CNT_SCI_EN 0x0001u
#define CNT_BM_RLD 0x0002u
#define CNT_GBL_RLS 0x0004u
#define CNT_SLP_TYP_SHIFT 10
#define CNT_SLP_TYP 0x1c00u
#define CNT_SLP_EN 0x2000u

#define BLOCKS 4u

struct pm {
    struct vclock *clock;
    struct irq_line sci;
    struct dev_host host;
    uint16_t sts, en, cnt;
    uint16_t gpe_sts, gpe_en;
    uint8_t smi[2];
    uint64_t epoch; /* clock time at which PM_TMR was 0 */
    uint64_t seen;  /* count of changes of bit 31 that TMR_STS knows of */
    struct vtimer overflow;
    struct bus_range *second[BLOCKS]; /* where pm_place() said */
};

static uint64_t ticks(const struct pm *p) {
    unsigned __int128 ns = vclock_now(p->clock) - p->epoch;

    return (uint64_t)(ns * PM_TMR_HZ / 1000000000u);
}

static void update_sci(struct pm *p) {
    bool on =
        (p->cnt & CNT_SCI_EN) && ((p->sts & p->en & EN_MASK) || (p->gpe_sts & p->gpe_en));

    irq_set(&p->sci, on);
}

/* Brings TMR_STS up to date and arms for the next change of bit 31 when that matters. */
static void sync_timer(struct pm *p) {
    uint64_t changes = ticks(p) >> 31;
    unsigned __int128 next;

    if (changes != p->seen) {
        p->seen = changes;
        p->sts |= STS_TMR;
    }
    if (!(p->en & STS_TMR) || (p->sts & STS_TMR)) {
        vtimer_cancel(p->clock, &p->overflow);
        return;
    }
    next = ((unsigned __int128)(changes + 1) << 31) * 1000000000u;
    vtimer_arm(p->clock, &p->overflow, p->epoch + (uint64_t)(next / PM_TMR_HZ) + 1);
}

static void overflow_due(void *arg) {
    struct pm *p = arg;

    sync_timer(p);
    update_sci(p);
}

void pm_power_button(struct pm *p) {
    p->sts |= STS_PWRBTN;
    update_sci(p);
}

void pm_event(struct pm *p, unsigned n) {
    p->gpe_sts |= (uint16_t)(1u << n);
    update_sci(p);
}

/* The type that ACPI tells, or the PIIX4's own (Intel 82371AB, "PMCNTRL"), which firmware
 * that knows the chip writes. */
static bool is_soft_off(uint32_t value) {
    unsigned type = (value & CNT_SLP_TYP) >> CNT_SLP_TYP_SHIFT;

    return type == PM_S5_TYPE || type == PM_PIIX4_S5_TYPE;
}

static void write_cnt(struct pm *p, uint16_t value) {
    p->cnt = (uint16_t)((p->cnt & CNT_SCI_EN) | (value & (CNT_BM_RLD | CNT_SLP_TYP)));
    /* SCI_EN is the firmware's, set through the SMI port; GBL_RLS and SLP_EN read as 0.
     */
    if ((value & CNT_SLP_EN) && is_soft_off(value) && p->host.poweroff)
        p->host.poweroff(p->host.arg);
}

/* --- the block as 16-bit registers, accessed by byte --- */

static uint8_t byte_of(uint32_t value, uint64_t addr, unsigned mask) {
    return (uint8_t)(value >> ((addr & mask) * 8));
}

static uint16_t put_byte(uint16_t value, uint64_t addr, uint8_t byte) {
    unsigned shift = (addr & 1) * 8;

    return (uint16_t)((value & ~(0xffu << shift)) | (unsigned)byte << shift);
}

static uint64_t evt_read(void *dev, uint64_t addr, unsigned size) {
    struct pm *p = dev;

    sync_timer(p);
    update_sci(p);
    return byte_of(addr < 2 ? p->sts : p->en, addr, 1);
}

static void evt_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct pm *p = dev;
    uint16_t clear = (uint16_t)((value & 0xff) << ((addr & 1) * 8));

    sync_timer(p);
    if (addr < 2) /* write 1 to clear */
        p->sts &= (uint16_t) ~(clear & STS_MASK);
    else
        p->en = put_byte(p->en, addr, (uint8_t)value) & EN_MASK;
    sync_timer(p);
    update_sci(p);
}

static uint64_t cnt_read(void *dev, uint64_t addr, unsigned size) {
    struct pm *p = dev;

    return byte_of(p->cnt, addr, 1);
}

static void cnt_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct pm *p = dev;

    write_cnt(p, size == 1 ? put_byte(p->cnt, addr, (uint8_t)value) : (uint16_t)value);
    update_sci(p);
}

static uint64_t cnt_read_any(void *dev, uint64_t addr, unsigned size) {
    return size == 1 ? cnt_read(dev, addr, 1)
                     : cnt_read(dev, 0, 1) | cnt_read(dev, 1, 1) << 8;
}

static uint64_t tmr_read(void *dev, uint64_t addr, unsigned size) {
    struct pm *p = dev;

    return (uint32_t)ticks(p) >> (addr * 8);
}

static void tmr_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    /* read-only */
}

static uint64_t gpe_read(void *dev, uint64_t addr, unsigned size) {
    struct pm *p = dev;

    return byte_of(addr < 2 ? p->gpe_sts : p->gpe_en, addr, 1);
}

static void gpe_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct pm *p = dev;

    if (addr < 2)
        p->gpe_sts &= (uint16_t) ~((value & 0xff) << (addr * 8));
    else
        p->gpe_en = put_byte(p->gpe_en, addr, (uint8_t)value);
    update_sci(p);
}

static uint64_t smi_read(void *dev, uint64_t addr, unsigned size) {
    struct pm *p = dev;

    return p->smi[addr & 1];
}

/* What firmware's SMI handler would do. ACPI Specification, "SMI Command Port". */
static void smi_write(void *dev, uint64_t addr, unsigned size, uint64_t value) {
    struct pm *p = dev;

    p->smi[addr & 1] = (uint8_t)value;
    if (addr)
        return;
    if (value == PM_ACPI_ENABLE)
        p->cnt |= CNT_SCI_EN;
    else if (value == PM_ACPI_DISABLE)
        p->cnt &= (uint16_t)~CNT_SCI_EN;
    update_sci(p);
}

static const struct bus_ops evt_ops = {.read = evt_read, .write = evt_write, .width = 1};
static const struct bus_ops cnt_ops = {
    .read = cnt_read_any, .write = cnt_write, .width = 2};
static const struct bus_ops tmr_ops = {.read = tmr_read, .write = tmr_write, .width = 4};
static const struct bus_ops gpe_ops = {.read = gpe_read, .write = gpe_write, .width = 1};
static const struct bus_ops smi_ops = {.read = smi_read, .write = smi_write, .width = 1};

static const struct block {
    uint8_t at, len;
    const struct bus_ops *ops;
    const char *name;
} blocks[BLOCKS] = {
    {PM_EVT, 4, &evt_ops, "PM1a event"},
    {PM_CNT, 2, &cnt_ops, "PM1a control"},
    {PM_TMR, 4, &tmr_ops, "PM timer"},
    {PM_GPE0, PM_GPE0_LEN, &gpe_ops, "GPE0"},
};

void pm_place(struct pm *p, uint16_t base, bool on) {
    for (unsigned n = 0; n < BLOCKS; n++) {
        bus_range_move(p->second[n], (uint64_t)base + blocks[n].at);
        bus_range_enable(p->second[n], on);
    }
}

static struct bus_range *attach_block(struct pm *p, struct bus *bus, unsigned n) {
    const struct block *b = &blocks[n];

    return bus_attach_pio(bus, (uint16_t)(PM_BASE + b->at), b->len, b->ops, p, b->name);
}

static bool attach(struct pm *p, struct bus *bus) {
    for (unsigned n = 0; n < BLOCKS; n++) {
        bool first = attach_block(p, bus, n);

        p->second[n] = attach_block(p, bus, n);
        if (!first || !p->second[n])
            return false;
    }
    pm_place(p, PM_BASE, false);
    return bus_attach_pio(bus, PM_SMI_PORT, 2, &smi_ops, p, "SMI command");
}

void pm_reset(struct pm *p) {
    p->sts = p->en = p->cnt = 0;
    p->gpe_sts = p->gpe_en = 0;
    p->smi[0] = p->smi[1] = 0;
    p->epoch = vclock_now(p->clock);
    p->seen = 0;
    vtimer_cancel(p->clock, &p->overflow);
    update_sci(p);
}

void pm_state(struct pm *p, struct snapshot *s) {
    SNAPSHOT(s, p->sts);
    SNAPSHOT(s, p->en);
    SNAPSHOT(s, p->cnt);
    SNAPSHOT(s, p->gpe_sts);
    SNAPSHOT(s, p->gpe_en);
    snapshot_bytes(s, p->smi, sizeof(p->smi));
    SNAPSHOT(s, p->epoch);
    SNAPSHOT(s, p->seen);
    vtimer_state(p->clock, &p->overflow, s);
}

struct pm *pm_new(struct bus *bus, struct vclock *clock, struct irq_line sci,
                  const struct dev_host *host) {
    struct pm *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->clock = clock;
    p->sci = sci;
    p->host = *host;
    p->overflow = (struct vtimer){.fire = overflow_due, .arg = p};
    if (!attach(p, bus)) {
        free(p);
        return NULL;
    }
    pm_reset(p);
    return p;
}

void pm_free(struct pm *p) {
    if (!p)
        return;
    vtimer_cancel(p->clock, &p->overflow);
    free(p);
}
