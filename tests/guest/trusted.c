/*
 * A serial port of the host's that the guest has (docs/svm.md, "Devices of the host's"):
 * COM2, or with `pci=1` QEMU's pci-serial, wherever its bar is. It talks by interrupts
 * alone, through the I/O APIC, or with `pic=1` through the 8259s: each line that comes
 * goes back in capitals, and `end` is the last one. Of a PCI function it looks, too, at
 * what may not be there: bus mastering, memory, capabilities.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define LAPIC 0xfee00000ul
#define IOAPIC 0xfec00000ul
#define APIC_SVR 0xf0
#define APIC_EOI 0xb0
#define PIC_BASE 0x20
#define PIC2_BASE 0x28
#define BY_PIN 0x50
#define RTE_LEVEL 0x8000u
#define RTE_MASKED 0x10000u
#define COM2 0x2f8
#define COM2_LINE 3u
#define MOVED 0x9000u /* where nothing is */
#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc
#define COMMAND 0x04
#define COMMAND_ALL 0x07u
#define COMMAND_IO 0x01u
#define STATUS_CAPABILITIES (1u << 20) /* in the same doubleword */
#define BAR0 0x10
#define CAPABILITIES 0x34
#define LINE 0x3c
#define PCI_SERIAL 0x00021b36u

/* A 16550. */
enum { DATA = 0, IER = 1, IIR = 2, LCR = 3, MCR = 4 };
#define IER_RECEIVED 1u
#define IER_EMPTY 2u
#define NOTHING 1u /* in IIR */
#define EMPTY 2u

static uint16_t port;
static unsigned line, slot;
static unsigned reads = 5000; /* without an exit, where the host has it: svm_exit_io */
static char in_line[80], out_line[80];
static volatile unsigned got, sent, to_send, interrupts, idle_ones;
static volatile bool complete;

/* --- configuration space --- */

static uint32_t get(unsigned at) {
    uint32_t v;

    __asm__ volatile("outl %0, %1"
                     :
                     : "a"(0x80000000u | slot << 11 | at),
                       "Nd"((uint16_t)CONFIG_ADDRESS));
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"((uint16_t)CONFIG_DATA));
    return v;
}

static void put(unsigned at, uint32_t v) {
    get(at);
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"((uint16_t)CONFIG_DATA));
}

/* --- the handler --- */

static void take(char c) {
    if (complete)
        return;
    complete = c == '\n';
    if (got < sizeof(in_line) - 1 && !complete)
        in_line[got++] = c;
}

static void serve(void) {
    unsigned why = inb(port + IIR);

    interrupts++;
    idle_ones += why & NOTHING;
    for (; !(why & NOTHING); why = inb(port + IIR)) {
        if ((why & 6) != EMPTY)
            take((char)inb(port + DATA));
        else if (sent < to_send)
            outb(port + DATA, (uint8_t)out_line[sent++]);
        else
            outb(port + IER, IER_RECEIVED);
    }
}

static bool on_pin(struct frame *f) {
    serve();
    *(volatile uint32_t *)(LAPIC + APIC_EOI) = 0;
    return true;
}

static bool on_pic(struct frame *f) {
    serve();
    if (line >= 8)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
    return true;
}

static void wait_until(volatile bool *so) {
    __asm__ volatile("cli");
    while (!*so)
        __asm__ volatile("sti; hlt; cli");
}

/* --- its ways in --- */

static void use_pin(bool level) {
    hooks[BY_PIN] = on_pin;
    *(volatile uint32_t *)(LAPIC + APIC_SVR) = 0x1ff;
    *(volatile uint32_t *)IOAPIC = 0x10 + 2 * line + 1;
    *(volatile uint32_t *)(IOAPIC + 0x10) = 0;
    *(volatile uint32_t *)IOAPIC = 0x10 + 2 * line;
    *(volatile uint32_t *)(IOAPIC + 0x10) = BY_PIN | (level ? RTE_LEVEL : 0);
}

static void use_pic(void) {
    static const uint8_t init[2][4] = {{0x11, PIC_BASE, 4, 1}, {0x11, PIC2_BASE, 2, 1}};

    for (unsigned chip = 0; chip < 2; chip++)
        for (unsigned n = 0; n < 4; n++)
            outb((uint16_t)((chip ? 0xa0 : 0x20) + (n != 0)), init[chip][n]);
    hooks[(line < 8 ? PIC_BASE : PIC2_BASE - 8) + line] = on_pic;
    outb(0x21, (uint8_t) ~(line < 8 ? 1u << line : 4u));
    outb(0xa1, (uint8_t) ~(line < 8 ? 0 : 1u << (line - 8)));
}

static bool find_function(void) {
    for (slot = 1; slot < 32; slot++)
        if (get(0) == PCI_SERIAL)
            return true;
    return false;
}

static void look_at_function(void) {
    uint32_t bar = get(BAR0);

    put(COMMAND, COMMAND_ALL);
    check_eq("command: ports alone", get(COMMAND) & 0xffff, COMMAND_IO);
    check_eq("no capabilities", get(COMMAND) & STATUS_CAPABILITIES, 0);
    check_eq("nor where they are", get(CAPABILITIES) & 0xff, 0);
    put(BAR0, ~0u);
    check_eq("its size", get(BAR0), 0xfffffff9u);
    put(BAR0, bar);
    check_eq("its place", get(BAR0), bar);
    for (unsigned at = BAR0 + 4; at < BAR0 + 24; at += 4)
        check_eq("no other bar", get(at), 0);
    port = (uint16_t)(bar & ~3u);
    line = get(LINE) & 0xff;
}

/* --- talk --- */

static void answer(void) {
    unsigned n = 0;

    for (; n < got; n++)
        out_line[n] =
            (char)(in_line[n] >= 'a' && in_line[n] <= 'z' ? in_line[n] - 32 : in_line[n]);
    out_line[n++] = '\n';
    sent = 0;
    to_send = n;
    outb(port + IER, IER_RECEIVED | IER_EMPTY);
}

static bool is_end(void) {
    return got == 3 && in_line[0] == 'e' && in_line[1] == 'n' && in_line[2] == 'd';
}

/* Until `end` comes, which is answered, too. */
static unsigned talk(void) {
    unsigned lines = 0;
    bool last = false;

    while (!last) {
        wait_until(&complete);
        last = is_end();
        answer();
        got = 0;
        complete = false;
        lines++;
    }
    while (sent < to_send)
        __asm__ volatile("sti; hlt; cli");
    return lines;
}

static void start(void) {
    outb(port + IER, 0);
    outb(port + LCR, 3);
    outb(port + IIR, 7);
    outb(port + MCR, 0x0b);
    outb(port + IER, IER_RECEIVED);
}

static void talk_there(const char *where) {
    unsigned lines;

    start();
    for (unsigned n = 0; n < reads; n++)
        inb(port + LCR);
    printf("READY %s\n", where);
    lines = talk();
    check(lines >= 3, "%s: %u lines", where, lines);
    /* One with nothing to do may come at the end of a transmission. */
    check(interrupts >= lines && idle_ones * 2 <= interrupts,
          "%s: %u interrupts, of which %u for nothing", where, interrupts, idle_ones);
}

void guest_main(void) {
    bool pci = guest_option("pci", 0);

    port = COM2;
    line = COM2_LINE;
    if (pci && !check(find_function(), "the function is there"))
        guest_exit();
    if (pci)
        look_at_function();
    if (guest_option("pic", 0))
        use_pic();
    else
        use_pin(pci);
    talk_there("where it is");
    reads = 0;
    if (pci) {
        put(BAR0, MOVED);
        port = MOVED;
        talk_there("elsewhere");
    }
    guest_exit();
}
