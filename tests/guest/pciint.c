/*
 * Interrupts of a PCI device, each way that a guest can have them: its line through the
 * 8259s and through the I/O APIC, held back by the command register; messages, masked and
 * let go. The device is the board's virtio source of entropy, by its legacy interface
 * (virtio 1.2, "Legacy Interfaces: A Note on PCI Device Layout"): a buffer that is
 * offered comes back at once, with an interrupt.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define LAPIC 0xfee00000ul
#define IOAPIC 0xfec00000ul
#define APIC_SVR 0xf0
#define APIC_EOI 0xb0
#define APIC_ISR 0x100 /* 32 vectors in 16 bytes */
#define PIC_BASE 0x20
#define BY_PIN 0x50
#define BY_MESSAGE 0x51
#define RTE_REMOTE_IRR 0x4000u
#define RTE_LEVEL 0x8000u
#define RTE_MASKED 0x10000u

/* Configuration space. */
#define COMMAND 0x04
#define COMMAND_ALL 0x07u
#define NO_INTX 0x400u
#define STATUS_INTX (1u << 19) /* in the same doubleword */
#define MSIX_ON 0x80000000u    /* of the capability's first doubleword */
#define MSIX_MASK_ALL 0x40000000u

/* Ports of bar 0. */
enum { FEATURES = 4, QUEUE_PLACE = 8, QUEUE_SIZE = 12, QUEUE_SELECT = 14, NOTIFY = 16 };
enum { STATUS = 18, ISR = 19, QUEUE_VECTOR = 22 };

struct buffer {
    uint64_t address;
    uint32_t len;
    uint16_t flags, next;
};

static unsigned slot, line, msix;
static uint16_t port;
static volatile uint32_t *table; /* of messages; pending bits are half a bar behind */
static uint8_t rings[16384] __attribute__((aligned(4096)));
static uint8_t bytes[64];
static unsigned queue_size, used_seen;
static volatile unsigned count[256];
static volatile unsigned ended_early, came_again; /* see on_pin() */

static uint32_t config(unsigned at) {
    uint32_t v;

    __asm__ volatile("outl %0, %1"
                     :
                     : "a"(0x80000000u | slot << 11 | at), "Nd"((uint16_t)0xcf8));
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"((uint16_t)0xcfc));
    return v;
}

static void set_config(unsigned at, uint32_t v) {
    __asm__ volatile("outl %0, %1"
                     :
                     : "a"(0x80000000u | slot << 11 | at), "Nd"((uint16_t)0xcf8));
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"((uint16_t)0xcfc));
}

static void out16(unsigned at, uint16_t v) {
    __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"((uint16_t)(port + at)));
}

static uint16_t in16(unsigned at) {
    uint16_t v;

    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"((uint16_t)(port + at)));
    return v;
}

static void out32(unsigned at, uint32_t v) {
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"((uint16_t)(port + at)));
}

static uint32_t ioapic(unsigned reg, bool write, uint32_t v) {
    *(volatile uint32_t *)IOAPIC = reg;
    if (write)
        *(volatile uint32_t *)(IOAPIC + 0x10) = v;
    return *(volatile uint32_t *)(IOAPIC + 0x10);
}

static void eoi(void) {
    *(volatile uint32_t *)(LAPIC + APIC_EOI) = 0;
}

/* --- handlers --- */

static bool in_service(unsigned vector) {
    return *(volatile uint32_t *)(LAPIC + APIC_ISR + vector / 32 * 16) >> vector % 32 & 1;
}

/*
 * The I/O APIC sends again if the line is still high at the end of the interrupt. Some
 * local APICs (docs/kvm.md) end it of themselves, sometimes before the line is let go
 * here, and then it comes again with nothing in the device. These are counted apart.
 */
static bool on_pin(struct frame *f) {
    unsigned bits = inb(port + ISR); /* which lets the line go */

    if (!in_service(f->vector))
        ended_early++;
    if (bits)
        count[f->vector]++;
    else
        came_again++;
    count[0] += bits;
    eoi();
    return true;
}

static bool on_message(struct frame *f) {
    count[f->vector]++;
    eoi();
    return true;
}

static bool on_pic(struct frame *f) {
    count[f->vector]++;
    count[0] += inb(port + ISR);
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
    return true;
}

/* --- the device --- */

/* Its queue is new, and it has the buffer's place. */
static void start(void) {
    struct buffer *b = (struct buffer *)rings;

    memset(rings, 0, sizeof(rings));
    outb(port + STATUS, 0);
    outb(port + STATUS, 3);
    out32(FEATURES, 0);
    out16(QUEUE_SELECT, 0);
    queue_size = in16(QUEUE_SIZE);
    used_seen = 0;
    out32(QUEUE_PLACE, (uint32_t)(ulong)rings >> 12);
    outb(port + STATUS, 7);
    *b = (struct buffer){(ulong)bytes, sizeof(bytes), 2, 0};
}

/* Offers the buffer, which comes back. */
static void request(const char *what) {
    volatile uint16_t *avail = (uint16_t *)(rings + 16 * queue_size);
    volatile uint16_t *used =
        (uint16_t *)(rings + 4096 * ((18 * queue_size + 4 + 4095) / 4096));

    avail[1]++;
    out16(NOTIFY, 0);
    used_seen++;
    check(used[1] == (uint16_t)used_seen, "%s: %u buffers came back, want %u", what,
          used[1], used_seen);
}

/* Interrupts are taken until WANT have come by VECTOR (a host may be slow to bring one),
 * or for a while, if they have. */
static void expect_count(const char *what, unsigned vector, unsigned want) {
    for (unsigned n = 0; n < 200 || (count[vector] < want && n < 5000000); n++)
        __asm__ volatile("sti; nop; nop; nop; cli" : : : "memory");
    check(count[vector] == want, "%s: %u interrupts, want %u", what, count[vector], want);
}

/* What comes again, if anything does, has come. */
static void settle(void) {
    for (unsigned n = 0; n < 5000000; n++) {
        __asm__ volatile("sti; nop; nop; nop; cli" : : : "memory");
        if (!(ioapic(0x10 + 2 * line, false, 0) & RTE_REMOTE_IRR))
            return;
    }
    check(false, "the I/O APIC waits for ever for the end of its interrupt");
}

static bool find(void) {
    for (slot = 0; slot < 32; slot++)
        if ((config(0) & 0xffff) == 0x1af4 && (config(0x2c) >> 16) == 4 &&
            (config(0x10) & 1))
            return true;
    return false;
}

static void find_parts(void) {
    unsigned at;

    port = (uint16_t)(config(0x10) & ~3u);
    line = config(0x3c) & 0xff;
    for (at = config(0x34) & 0xff; at && (config(at) & 0xff) != 0x11;)
        at = config(at) >> 8 & 0xff;
    msix = at;
    table = (volatile uint32_t *)(ulong)(config(0x10 + 4 * (config(at + 4) & 7)) & ~15u);
    set_config(COMMAND, COMMAND_ALL);
}

/* --- the ways --- */

static void by_ioapic(void) {
    hooks[BY_PIN] = on_pin;
    ioapic(0x11 + 2 * line, true, 0);
    ioapic(0x10 + 2 * line, true, RTE_LEVEL | BY_PIN);
    start();
    for (unsigned n = 1; n <= 20; n++) {
        request("I/O APIC");
        expect_count("I/O APIC", BY_PIN, n);
    }
    check_eq("ISR's bits in all", count[0], 20);
    settle();
    set_config(COMMAND, COMMAND_ALL | NO_INTX);
    request("held back");
    expect_count("held back", BY_PIN, 20);
    check(config(COMMAND) & STATUS_INTX, "the status register does not show it");
    set_config(COMMAND, COMMAND_ALL);
    expect_count("let go", BY_PIN, 21);
    check(!(config(COMMAND) & STATUS_INTX), "the status register shows it still");
    settle();
    check(came_again <= ended_early, "%u came again, and %u ended early", came_again,
          ended_early);
    if (ended_early)
        note("%u interrupts were ended by the local APIC, not by the guest", ended_early);
    ioapic(0x10 + 2 * line, true, RTE_MASKED);
}

static void by_8259(void) {
    unsigned vector = PIC_BASE + line;

    hooks[vector] = on_pic;
    outb(0x20, 0x11), outb(0x21, PIC_BASE), outb(0x21, 4), outb(0x21, 1);
    outb(0xa0, 0x11), outb(0xa1, PIC_BASE + 8), outb(0xa1, 2), outb(0xa1, 1);
    outb(0x21, 0xfb);
    outb(0xa1, (uint8_t) ~(1u << (line - 8)));
    check(inb(0x4d1) & 1u << (line - 8), "line %u is no level", line);
    start();
    for (unsigned n = 1; n <= 20; n++) {
        request("8259");
        expect_count("8259", vector, n);
    }
    outb(0xa1, 0xff);
    outb(0x21, 0xff);
}

static void by_message(void) {
    uint32_t control = config(msix);
    volatile uint32_t *pending =
        table + (config(msix + 8) & ~7u) / 4 - (config(msix + 4) & ~7u) / 4;

    hooks[BY_MESSAGE] = on_message;
    table[0] = LAPIC;
    table[1] = 0;
    table[2] = BY_MESSAGE;
    table[3] = 0;
    set_config(msix, control | MSIX_ON);
    start();
    out16(QUEUE_VECTOR, 0);
    check_eq("the queue's vector", in16(QUEUE_VECTOR), 0);
    for (unsigned n = 1; n <= 20; n++) {
        request("message");
        expect_count("message", BY_MESSAGE, n);
    }
    table[3] = 1;
    request("masked");
    expect_count("masked", BY_MESSAGE, 20);
    check_eq("pending", pending[0] & 1, 1);
    table[3] = 0;
    expect_count("unmasked", BY_MESSAGE, 21);
    check_eq("pending", pending[0] & 1, 0);
    set_config(msix, control | MSIX_ON | MSIX_MASK_ALL);
    request("all masked");
    expect_count("all masked", BY_MESSAGE, 21);
    set_config(msix, control | MSIX_ON);
    expect_count("all unmasked", BY_MESSAGE, 22);
    set_config(msix, control);
    check_eq("by its line meanwhile", count[BY_PIN], 21);
}

void guest_main(void) {
    if (!check(find() || cpu_is_tcg(), "there is no virtio source of entropy") ||
        slot == 32) {
        note("not on this board");
        return;
    }
    find_parts();
    if (!check(line >= 8 && line < 16 && msix && table, "line %u, MSI-X at 0x%x", line,
               msix))
        return;
    *(volatile uint32_t *)(LAPIC + APIC_SVR) = 0x1ff;
    by_ioapic();
    by_8259();
    by_message();
}
