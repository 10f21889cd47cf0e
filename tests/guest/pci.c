/*
 * PCI as a guest meets it: mechanism 1, who is there, and bars that it sizes, switches
 * off and on, and moves while it uses them. Where a bar was nobody answers any more;
 * where it is the same device does, at once.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define ADDRESS 0xcf8
#define DATA 0xcfc
#define IO_PLACE 0x9000u       /* where nothing is: ports */
#define MEM_PLACE 0xc8000000ul /* and memory */
#define COMMAND 0x04
#define IO_ON 1u
#define MEM_ON 2u

static unsigned slot, number, bars;

static uint32_t in32(uint16_t port) {
    uint32_t v;

    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static void out32(uint16_t port, uint32_t v) {
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}

static void select(unsigned at) {
    out32(ADDRESS, 0x80000000u | slot << 11 | number << 8 | (at & 0xfc));
}

static uint32_t get(unsigned at) {
    select(at);
    return in32(DATA);
}

static void put(unsigned at, uint32_t v) {
    select(at);
    out32(DATA, v);
}

static void set_command(uint32_t bits) {
    put(COMMAND, bits); /* the upper half is cleared by ones */
}

/* Bytes, words and doublewords of one register; what is not at 0xcf8 as a whole. */
static void mechanism(void) {
    slot = number = 0;
    uint32_t id = get(0);
    uint16_t word;

    check_eq("host bridge", id, 0x12378086);
    check_eq("address", in32(ADDRESS), 0x80000000u);
    for (unsigned n = 0; n < 4; n++)
        check_eq("a byte of it", inb(DATA + n), id >> 8 * n & 0xff);
    __asm__ volatile("inw %1, %0" : "=a"(word) : "Nd"((uint16_t)(DATA + 2)));
    check_eq("a word of it", word, 0x1237);
    outb(ADDRESS + 3, 0); /* no configuration cycle */
    check_eq("address after a byte's write", in32(ADDRESS), 0x80000000u);
    put(0, 0);
    check_eq("ids cannot be written", get(0), 0x12378086);
    out32(ADDRESS, 0);
    check_eq("without the enable bit", in32(DATA), 0xffffffff);
    slot = 31;
    check_eq("an empty slot", get(0), 0xffffffff);
    slot = 1;
    check_eq("ISA bridge", get(0), 0x70008086);
    check_eq("its class", get(8) >> 8, 0x060100);
    check_eq("a header for several functions", get(0x0c) >> 16 & 0xff, 0x80);
    number = 3;
    check_eq("power management", get(0), 0x71138086);
}

/* --- bars --- */

static void read_io(uint32_t at, uint32_t v[4], uint32_t size) {
    for (unsigned n = 0; n < 4; n++)
        v[n] = 4 * n < size ? in32((uint16_t)(at + 4 * n)) : 0;
}

static void read_mem(ulong at, uint32_t v[4]) {
    for (unsigned n = 0; n < 4; n++)
        v[n] = ((volatile uint32_t *)at)[n];
}

static void read_bar(uint32_t at, bool io, uint32_t size, uint32_t v[4]) {
    if (io)
        read_io(at, v, size);
    else
        read_mem(at, v);
}

static void same(const char *what, const uint32_t *got, const uint32_t *want) {
    for (unsigned n = 0; n < 4; n++)
        check(got[n] == want[n], "%u.%u %s: word %u is 0x%x, want 0x%x", slot, number,
              what, n, got[n], want[n]);
}

/* QEMU's memory reads as 0 where nothing is. */
static void nobody(const char *what, const uint32_t *got, uint32_t size) {
    for (unsigned n = 0; n < 4 && 4 * n < size; n++)
        check(got[n] == 0xffffffff || (cpu_is_tcg() && !got[n]),
              "%u.%u %s: word %u is 0x%x", slot, number, what, n, got[n]);
}

/* Back and forth, in a loop that translated code gets used to. */
static void move(unsigned at, uint32_t home, bool io, uint32_t size) {
    uint32_t place = io ? IO_PLACE : MEM_PLACE, want[4], got[4];
    uint32_t command = get(COMMAND) & 0xffff, on = io ? IO_ON : MEM_ON;

    set_command(command | on);
    read_bar(home, io, size, want);
    for (unsigned n = 0; n < 40; n++) {
        put(at, n & 1 ? home : place);
        read_bar(n & 1 ? home : place, io, size, got);
        same("moved", got, want);
        read_bar(n & 1 ? place : home, io, size, got);
        nobody("where it was", got, size);
    }
    for (unsigned n = 0; n < 20; n++) {
        set_command(command & ~on);
        read_bar(home, io, size, got);
        nobody("switched off", got, size);
        set_command(command | on);
        read_bar(home, io, size, got);
        same("switched on", got, want);
    }
    set_command(command);
    bars++;
}

/* "Address Maps": the size is what comes back of all ones. Bar N's register; how many
 * registers it has. */
static unsigned bar(unsigned n) {
    unsigned at = 0x10 + 4 * n;
    uint32_t home = get(at), command = get(COMMAND) & 0xffff, mask, size;
    bool io = home & 1, wide = !io && (home & 6) == 4;

    set_command(command & ~(IO_ON | MEM_ON));
    put(at, 0xffffffff);
    mask = get(at) & (io ? ~3u : ~15u);
    put(at, home);
    check_eq("a bar written back", get(at), home);
    set_command(command);
    size = io ? (uint16_t)-mask : -mask;
    if (!mask || (wide && get(at + 4)))
        return wide ? 2 : 1;
    check(!(size & (size - 1)), "%u.%u bar %u: size 0x%x", slot, number, n, size);
    if ((home & ~15u) && size <= 0x4000000)
        move(at, home & (io ? ~3u : ~15u), io, size);
    return wide ? 2 : 1;
}

static void function(void) {
    if ((get(0) & 0xffff) == 0xffff || (get(0x0c) >> 16 & 0x7f))
        return;
    for (unsigned n = 0; n < 6;)
        n += bar(n);
}

void guest_main(void) {
    mechanism();
    for (slot = 0; slot < 32; slot++) {
        number = 0;
        unsigned count = get(0x0c) >> 16 & 0x80 ? 8 : 1;

        for (number = 0; number < count; number++)
            function();
    }
    check(bars > 0, "no bar was moved");
    note("%u bars moved", bars);
}
