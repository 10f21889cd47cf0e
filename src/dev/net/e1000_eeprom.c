/*
 * The EEPROM and the PHY. Manual, "EEPROM Interface" and "PHY Functionality and
 * Features".
 *
 * The EEPROM has 64 words, whose sum is 0xbaba. It is read by a register (EERD), or bit
 * by bit at its pins (EECD): chip select, then on each rising clock a bit in: a one, two
 * of operation (10: read), six of address; from the next rising clock on the word comes
 * out, the high bit first, and the next word after it.
 */
#include "dev/net/e1000_int.h"

#define EEPROM_SUM 0xbaba
#define WORDS 64u
#define OP_READ 6u /* with the one in front */
#define OP_BITS 9u

enum { EE_CLOCK = 1, EE_SELECT = 2, EE_IN = 4, EE_OUT = 8, EE_FLASH = 0x30 };
enum { EE_REQUEST = 0x40, EE_GRANT = 0x80, EE_PRESENT = 0x100 };
#define EERD_START (1u << 0)
#define EERD_DONE (1u << 4)

void e1000_eeprom_fill(struct e1000 *e, const uint8_t mac[NET_MAC_SIZE]) {
    uint16_t sum = 0;

    for (unsigned n = 0; n < WORDS; n++)
        e->eeprom[n] = 0xffff;
    for (unsigned n = 0; n < 3; n++)
        e->eeprom[n] = (uint16_t)(mac[2 * n] | mac[2 * n + 1] << 8);
    e->eeprom[0x03] = 0;      /* compatibility: nothing */
    e->eeprom[0x0a] = 0x6403; /* initialization control 1: ids below are used */
    e->eeprom[0x0b] = (uint16_t)pci_config(&e->pci, PCI_SUB_DEVICE, 2);
    e->eeprom[0x0c] = (uint16_t)pci_config(&e->pci, PCI_SUB_VENDOR, 2);
    e->eeprom[0x0d] = (uint16_t)pci_config(&e->pci, PCI_DEVICE, 2);
    e->eeprom[0x0e] = (uint16_t)pci_config(&e->pci, PCI_VENDOR, 2);
    e->eeprom[0x0f] = 0x3040; /* initialization control 2: pause frames are understood */
    e->eeprom[0x24] = 0;      /* control 3: no wake-up */
    for (unsigned n = 0; n < WORDS - 1; n++)
        sum = (uint16_t)(sum + e->eeprom[n]);
    e->eeprom[WORDS - 1] = (uint16_t)(EEPROM_SUM - sum);
}

/* --- pins --- */

static void clock_rises(struct e1000 *e, bool in) {
    if (e->serial.reading) {
        if (++e->serial.out > 16) {
            e->serial.out = 1;
            e->serial.address = (e->serial.address + 1) % WORDS;
        }
        return;
    }
    e->serial.in = e->serial.in << 1 | in;
    if (!e->serial.bits && !in) /* it waits for the one */
        return;
    if (++e->serial.bits == OP_BITS && (e->serial.in >> 6 & 7) == OP_READ) {
        e->serial.reading = true;
        e->serial.address = e->serial.in % WORDS;
    }
}

void e1000_eecd_write(struct e1000 *e, uint32_t value) {
    uint32_t before = *e1000_reg(e, R_EECD);

    *e1000_reg(e, R_EECD) =
        value & (EE_CLOCK | EE_SELECT | EE_IN | EE_FLASH | EE_REQUEST);
    if (!(value & EE_SELECT)) {
        e->serial.in = 0;
        e->serial.bits = e->serial.out = 0;
        e->serial.reading = false;
    } else if (value & ~before & EE_CLOCK) {
        clock_rises(e, value & EE_IN);
    }
}

uint32_t e1000_eecd_read(const struct e1000 *e) {
    uint32_t value = e->reg[R_EECD / 4] | EE_PRESENT;

    if (value & EE_REQUEST)
        value |= EE_GRANT;
    if (!e->serial.reading)
        return value | EE_OUT; /* pulled up */
    /* A zero goes before the word. */
    if (e->serial.out && (e->eeprom[e->serial.address] >> (16 - e->serial.out) & 1))
        value |= EE_OUT;
    return value;
}

void e1000_eerd_write(struct e1000 *e, uint32_t value) {
    uint32_t address = value >> 8 & 0xff;
    uint32_t word = address < WORDS ? e->eeprom[address] : 0xffff;

    *e1000_reg(e, R_EERD) =
        value & EERD_START ? word << 16 | address << 8 | EERD_DONE : value & 0xff00;
}

/* --- PHY --- */

enum {
    PHY_CONTROL = 0,
    PHY_STATUS = 1,
    PHY_ID = 2,
    PHY_ADVERTISE = 4,
    PHY_PARTNER = 5,
    PHY_EXPANSION = 6,
    PHY_GIGABIT_CONTROL = 9,
    PHY_GIGABIT_STATUS = 10,
    PHY_EXTENDED_STATUS = 15,
    PHY_M88_CONTROL = 16,
    PHY_M88_STATUS = 17,
    PHY_M88_INTERRUPTS = 18,
    PHY_M88_EXTENDED = 20,
};
#define PHY_RESET 0x8000u
#define PHY_RESTART 0x0200u
#define STATUS_LINK 0x0024u  /* it is up, and negotiation is done */
#define M88_RESOLVED 0xac00u /* 1000 Mbit/s, full duplex, resolved, up */
#define M88_UNRESOLVED 0x8000u

#define MDIC_REGISTER(v) ((v) >> 16 & 31)
#define MDIC_PHY(v) ((v) >> 21 & 31)
#define MDIC_OP(v) ((v) >> 26 & 3)
#define MDIC_WRITE 1u
#define MDIC_READ 2u
#define MDIC_READY (1u << 28)
#define MDIC_INTERRUPT (1u << 29)
#define MDIC_ERROR (1u << 30)
#define PHY_ADDRESS 1u

void e1000_phy_link(struct e1000 *e, bool up) {
    e->phy[PHY_STATUS] =
        (uint16_t)((e->phy[PHY_STATUS] & ~STATUS_LINK) | (up ? STATUS_LINK : 0));
    e->phy[PHY_M88_STATUS] = up ? M88_RESOLVED : M88_UNRESOLVED;
    e->phy[PHY_PARTNER] = up ? 0x45e1 : 0; /* it can what we can */
    e->phy[PHY_GIGABIT_STATUS] = up ? 0x3c00 : 0;
}

void e1000_phy_reset(struct e1000 *e) {
    for (unsigned n = 0; n < 32; n++)
        e->phy[n] = 0;
    e->phy[PHY_CONTROL] = 0x1140; /* negotiates; 1000 Mbit/s, full duplex */
    e->phy[PHY_STATUS] = 0x7949;
    e->phy[PHY_ID] = 0x0141;
    e->phy[PHY_ID + 1] = 0x0c20;
    e->phy[PHY_ADVERTISE] = 0x0de1;
    e->phy[PHY_GIGABIT_CONTROL] = 0x0e00;
    e->phy[PHY_EXTENDED_STATUS] = 0x3000;
    e->phy[PHY_M88_CONTROL] = 0x0360;
    e->phy[PHY_M88_EXTENDED] = 0x0d60;
    e1000_phy_link(e, net_link(e->net));
}

static void phy_write(struct e1000 *e, unsigned n, uint16_t value) {
    switch (n) {
    case PHY_CONTROL:
        if (value & PHY_RESET) {
            e1000_phy_reset(e);
            break;
        }
        if (value & PHY_RESTART)
            e1000_raise(e, CAUSE_LSC);
        e->phy[n] = (uint16_t)(value & ~(PHY_RESET | PHY_RESTART | 0x3fu));
        break;
    case PHY_ADVERTISE:
    case PHY_GIGABIT_CONTROL:
    case PHY_M88_CONTROL:
    case PHY_M88_INTERRUPTS:
    case PHY_M88_EXTENDED:
    case 29: /* page and value of what only its maker knows */
    case 30:
        e->phy[n] = value;
        break;
    default:
        break;
    }
}

/* "MDI Control Register" */
void e1000_mdic_write(struct e1000 *e, uint32_t value) {
    unsigned n = MDIC_REGISTER(value), op = MDIC_OP(value);
    uint32_t result = (value & ~(MDIC_ERROR | 0xffffu)) | MDIC_READY;

    if (MDIC_PHY(value) != PHY_ADDRESS || (op != MDIC_READ && op != MDIC_WRITE)) {
        result |= MDIC_ERROR;
    } else if (op == MDIC_READ) {
        result |= e->phy[n];
    } else {
        result |= value & 0xffff;
        phy_write(e, n, (uint16_t)value);
    }
    *e1000_reg(e, R_MDIC) = result;
    if (value & MDIC_INTERRUPT)
        e1000_raise(e, CAUSE_MDAC);
}
