/*
 * Inside the e1000: its registers, and what its files call of each other.
 *
 * `reg` has a place for each doubleword of the register file up to REGS. Registers that
 * are more than a place are dealt with in e1000.c. What the guest writes into rings and
 * registers is believed by nobody: positions are looked at when they are used.
 */
#ifndef DEV_E1000_INT_H
#define DEV_E1000_INT_H

#include "dev/net/e1000.h"

#define E1000_REGS 0x6000u /* bytes */

/* Offsets; the manual's "Register Summary". */
enum {
    R_CTRL = 0x0000,
    R_STATUS = 0x0008,
    R_EECD = 0x0010,
    R_EERD = 0x0014,
    R_CTRL_EXT = 0x0018,
    R_MDIC = 0x0020,
    R_FCAL = 0x0028,
    R_FCAH = 0x002c,
    R_FCT = 0x0030,
    R_VET = 0x0038,
    R_ICR = 0x00c0,
    R_ITR = 0x00c4,
    R_ICS = 0x00c8,
    R_IMS = 0x00d0,
    R_IMC = 0x00d8,
    R_RCTL = 0x0100,
    R_FCTTV = 0x0170,
    R_TXCW = 0x0178,
    R_TCTL = 0x0400,
    R_TIPG = 0x0410,
    R_AIT = 0x0458,
    R_LEDCTL = 0x0e00,
    R_PBA = 0x1000,
    R_FCRTL = 0x2160,
    R_FCRTH = 0x2168,
    R_RDBAL = 0x2800,
    R_RDBAH = 0x2804,
    R_RDLEN = 0x2808,
    R_RDH = 0x2810,
    R_RDT = 0x2818,
    R_RDTR = 0x2820,
    R_RXDCTL = 0x2828,
    R_RADV = 0x282c,
    R_RSRPD = 0x2c00,
    R_TDBAL = 0x3800,
    R_TDBAH = 0x3804,
    R_TDLEN = 0x3808,
    R_TDH = 0x3810,
    R_TDT = 0x3818,
    R_TIDV = 0x3820,
    R_TXDCTL = 0x3828,
    R_TADV = 0x382c,
    R_TSPMT = 0x3830,
    R_STATISTICS = 0x4000, /* to 0x40ff; cleared by a read */
    R_MPC = 0x4010,
    R_ROC = 0x40ac,
    R_GPRC = 0x4074,
    R_BPRC = 0x4078,
    R_MPRC = 0x407c,
    R_GPTC = 0x4080,
    R_GORC = 0x4088, /* 64 bits, as are: */
    R_GOTC = 0x4090,
    R_TOR = 0x40c0,
    R_TOT = 0x40c8,
    R_TPR = 0x40d0,
    R_TPT = 0x40d4,
    R_MPTC = 0x40f0,
    R_BPTC = 0x40f4,
    R_TSCTC = 0x40f8,
    R_RXCSUM = 0x5000,
    R_MTA = 0x5200,  /* 128 of multicast hashes */
    R_RA = 0x5400,   /* 16 addresses, two each */
    R_VFTA = 0x5600, /* 128 of VLANs */
    R_WUC = 0x5800,
    R_WUFC = 0x5808,
    R_WUS = 0x5810,
    R_MANC = 0x5820,
};

/* Interrupt causes. */
enum {
    CAUSE_TXDW = 1u << 0, /* a descriptor was written back */
    CAUSE_TXQE = 1u << 1, /* the ring is empty */
    CAUSE_LSC = 1u << 2,
    CAUSE_RXDMT0 = 1u << 4, /* few receive descriptors are left */
    CAUSE_RXO = 1u << 6,    /* none was */
    CAUSE_RXT0 = 1u << 7,
    CAUSE_MDAC = 1u << 9,
};

#define CTRL_VME (1u << 30) /* VLAN tags are put in and taken out */
#define DESCRIPTOR 16u
#define E1000_RX_MAX 16384u       /* the longest frame that is received */
#define E1000_FRAME NET_FRAME_MAX /* and sent */

struct e1000 {
    struct pci_function pci;
    struct mem *mem;
    struct net *net;
    uint32_t reg[E1000_REGS / 4];
    uint32_t io_address; /* of the window in ports */
    uint16_t eeprom[64];
    struct { /* its serial interface */
        uint32_t in;
        unsigned bits; /* that came in */
        unsigned out;  /* bits that went out of the word at `address`, and the next */
        unsigned address;
        bool reading;
    } serial;
    uint16_t phy[32];
    struct e1000_tx {
        struct e1000_context {
            uint8_t ip_start, ip_place, l4_start, l4_place;
            uint16_t ip_end, l4_end; /* the last byte; 0: to the frame's end */
            uint8_t command, header; /* header: bytes before the payload */
            uint16_t mss;
        } context[2];   /* of checksums alone, of segmentation */
        uint8_t *frame; /* being put together, E1000_FRAME bytes */
        uint32_t len;   /* of it so far */
        bool started;   /* the first descriptor has been seen, which says: */
        bool extended;
        bool segment;
        uint8_t options; /* checksums to be put in */
        bool bad;        /* too long, or not in memory: it is none */
        bool ready;      /* whole, with what is in `offload` left to do */
        bool busy;       /* transmitting */
        struct net_offload offload;
    } tx;
    bool had_link;                /* as a snapshot says */
    uint8_t rx[E1000_RX_MAX + 8]; /* a frame as it goes into the ring */
};

static inline uint32_t *e1000_reg(struct e1000 *e, unsigned at) {
    return &e->reg[at / 4];
}

/* --- e1000_eeprom.c: the EEPROM and the PHY, behind registers --- */

void e1000_eeprom_fill(struct e1000 *e, const uint8_t mac[NET_MAC_SIZE]);
void e1000_eecd_write(struct e1000 *e, uint32_t value);
uint32_t e1000_eecd_read(const struct e1000 *e);
void e1000_eerd_write(struct e1000 *e, uint32_t value);
void e1000_mdic_write(struct e1000 *e, uint32_t value);
void e1000_phy_reset(struct e1000 *e);
/* What the PHY says of the cable. */
void e1000_phy_link(struct e1000 *e, bool up);

/* --- e1000_rings.c: what both directions have --- */

/* The causes that are on and not masked make the interrupt. */
void e1000_update_irq(struct e1000 *e);
void e1000_raise(struct e1000 *e, uint32_t causes);
/* Statistics stop at their end. */
void e1000_count(struct e1000 *e, unsigned reg, uint32_t n);
void e1000_count64(struct e1000 *e, unsigned reg, uint64_t n);

struct e1000_ring {
    uint64_t base;
    uint32_t count; /* descriptors; 0: none, or the registers make no sense */
    uint32_t head, tail;
};
/* REGS is R_RDBAL or R_TDBAL. */
struct e1000_ring e1000_ring(const struct e1000 *e, unsigned regs);
static inline struct gpa e1000_descriptor(const struct e1000_ring *r, uint32_t n) {
    return gpa(r->base + (uint64_t)n * DESCRIPTOR);
}

/* --- e1000_receive.c, e1000_transmit.c --- */

bool e1000_receive(void *e1000, const struct net_offload *off, const uint8_t *frame,
                   size_t len);
/* Sends what there is to send. */
void e1000_transmit(struct e1000 *e);
void e1000_transmit_reset(struct e1000 *e);

#endif
