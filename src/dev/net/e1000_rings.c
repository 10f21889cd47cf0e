/* What both directions have: causes of interrupts, statistics, the rings' registers. */
#include "dev/net/e1000_int.h"

#define RING_LEN 0x000fff80u /* bytes, in units of eight descriptors */

void e1000_update_irq(struct e1000 *e) {
    pci_irq(&e->pci, *e1000_reg(e, R_ICR) & *e1000_reg(e, R_IMS));
}

void e1000_raise(struct e1000 *e, uint32_t causes) {
    *e1000_reg(e, R_ICR) |= causes;
    e1000_update_irq(e);
}

void e1000_count(struct e1000 *e, unsigned reg, uint32_t n) {
    uint32_t *c = e1000_reg(e, reg);

    *c = *c > ~0u - n ? ~0u : *c + n;
}

void e1000_count64(struct e1000 *e, unsigned reg, uint64_t n) {
    uint64_t c = *e1000_reg(e, reg) | (uint64_t)*e1000_reg(e, reg + 4) << 32;

    c = c > ~0ull - n ? ~0ull : c + n;
    *e1000_reg(e, reg) = (uint32_t)c;
    *e1000_reg(e, reg + 4) = (uint32_t)(c >> 32);
}

struct e1000_ring e1000_ring(const struct e1000 *e, unsigned regs) {
    const uint32_t *r = &e->reg[regs / 4];
    struct e1000_ring ring = {
        .base = (uint64_t)r[1] << 32 | (r[0] & ~0xfu),
        .count = (r[2] & RING_LEN) / DESCRIPTOR,
        .head = r[(R_RDH - R_RDBAL) / 4] & 0xffff,
        .tail = r[(R_RDT - R_RDBAL) / 4] & 0xffff,
    };

    if (ring.head >= ring.count || ring.tail >= ring.count)
        ring.count = 0;
    return ring;
}
