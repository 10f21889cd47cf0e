/*
 * The guest of the command-line tests: 32-bit multiboot, interrupts off, serial port
 * polled. It says READY and then takes one letter, from the command line (do=LETTER) or
 * from the serial port:
 *
 *   e  echo what comes, until Ctrl-D          p  power off through ACPI's PM1a control
 *   s  count and sum what comes, until Ctrl-D r  reset through port 0xcf9
 *   c  chatter without end                    k  reset through the keyboard controller
 *   h  halt for ever                          t  triple fault
 *   l  loop for ever                          x  write the next two hex digits to 0xf4
 *   w  switch tasks for ever                  f  write 400,000 characters, patiently
 *
 * After e, s and f it powers off.
 */
#include <stdint.h>

#include "dev/pc/pm.h"
#include "dev/pc/ports.h"
#include "dev/pc/uart.h"

#define COM1 UART_COM1_PORT
#define LSR (COM1 + 5)
#define THRE 0x20
#define CTRL_D 4

/* The multiboot header, and a stack. */
asm(".section .multiboot, \"a\"\n"
    ".align 4\n"
    ".long 0x1badb002, 0, -0x1badb002\n"
    ".text\n"
    ".globl start\n"
    "start:\n"
    "    cli\n"
    "    cld\n"
    "    mov $stack_top, %esp\n"
    "    push %ebx\n"
    "    call guest_main\n"
    "1:  hlt\n"
    "    jmp 1b\n"
    ".bss\n"
    ".align 16\n"
    ".skip 4096\n"
    "stack_top:\n"
    ".text\n");

static uint8_t inb(uint16_t port) {
    uint8_t v;

    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

static void outb(uint16_t port, uint8_t v) {
    asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}

static void put(char c) {
    outb(COM1, (uint8_t)c);
}

static void puts(const char *s) {
    while (*s)
        put(*s++);
}

static void put_number(uint32_t n) {
    char text[11];
    unsigned at = sizeof(text);

    text[--at] = 0;
    do {
        text[--at] = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    puts(text + at);
}

static uint8_t get(void) {
    while (!(inb(LSR) & 1))
        ;
    return inb(COM1);
}

/* The letter after "do=" on the command line (multiboot information: bit 2 of the flags,
 * the address at offset 16), or the next one typed. */
static const char *given;

static void find_given(const uint32_t *info) {
    const char *s = info[0] & 4 ? (const char *)(uintptr_t)info[4] : "";

    for (; *s; s++)
        if (s[0] == 'd' && s[1] == 'o' && s[2] == '=') {
            given = s + 3;
            return;
        }
}

static uint8_t letter(void) {
    return given && *given ? (uint8_t)*given++ : get();
}

static void power_off(void) {
    asm volatile("outw %w0, %w1"
                 :
                 : "a"((uint16_t)(PM_S5_TYPE << 10 | 1 << 13)), "Nd"(PM_CNT_PORT));
}

static void echo(void) {
    for (;;) {
        uint8_t c = get();

        if (c == CTRL_D)
            return;
        put((char)c);
    }
}

static void sum(void) {
    uint32_t count = 0, total = 0;

    for (;;) {
        uint8_t c = get();

        if (c == CTRL_D)
            break;
        count++;
        total = total * 31 + c;
    }
    puts("count=");
    put_number(count);
    puts(" sum=");
    put_number(total);
    puts("\r\n");
}

/* As patient drivers do, which wait for THRE. */
static void fill(void) {
    for (uint32_t n = 0; n < 400000; n++) {
        while (!(inb(LSR) & THRE))
            ;
        put("0123456789abcdef"[n % 16]);
    }
}

static void triple_fault(void) {
    const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) nothing = {0, 0};

    asm volatile("lidt %0; int3" : : "m"(nothing));
}

/* Task gates for #DB and #GP lead to two tasks whose T bits are set. The first
 * instruction of neither is ever reached: its #DB goes to the one task, and since that is
 * busy, its #GP goes to the other. Each TSS saves ESI and EDI where its own descriptor
 * is, which makes it available again. */
static uint32_t tables[256] __attribute__((aligned(8)));
static uint32_t gates[28] __attribute__((aligned(8)));

static void tss_descriptor(uint32_t *at, const void *tss) {
    uint32_t base = (uint32_t)(uintptr_t)tss;

    at[0] = base << 16 | 0x67;
    at[1] = base >> 24 << 24 | 0x8900 | (base >> 16 & 0xff);
}

static void looping_task(uint32_t *tss) {
    static uint8_t stack[64];

    tss_descriptor(tss + 16, tss);
    tss[8] = (uint32_t)(uintptr_t)puts;
    tss[9] = 2;
    tss[14] = (uint32_t)(uintptr_t)(stack + sizeof(stack));
    tss[18] = tss[20] = tss[21] = 0x10;
    tss[19] = 0x08;
    tss[25] = 1;
}

static void task_loop(void) {
    const struct {
        uint16_t limit;
        uint32_t base;
    } __attribute__((packed)) gdt = {sizeof(tables) - 1, (uint32_t)(uintptr_t)tables},
                              idt = {sizeof(gates) - 1, (uint32_t)(uintptr_t)gates};
    static uint8_t old[104];

    tables[2] = tables[4] = 0xffff;
    tables[3] = 0xcf9b00;
    tables[5] = 0xcf9300;
    tss_descriptor(tables + 8, old);
    looping_task(tables + 48); /* its selector is 0x100 */
    looping_task(tables + 112);
    gates[2] = 0x100u << 16;
    gates[26] = 0x200u << 16;
    gates[3] = gates[27] = 0x8500;
    asm volatile("lgdt %0; lidt %1; ltr %w2; .byte 0xf1"
                 :
                 : "m"(gdt), "m"(idt), "r"(0x20)
                 : "memory");
}

static uint32_t hex_digit(void) {
    uint8_t c = letter();

    return (uint32_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

static void debug_exit(void) {
    uint32_t high = hex_digit(), low = hex_digit();

    outb(PORTS_DEBUG_EXIT, (uint8_t)(high << 4 | low));
}

static void act(uint8_t c) {
    switch (c) {
    case 'e':
        echo();
        power_off();
        break;
    case 's':
        sum();
        power_off();
        break;
    case 'c':
        for (;;)
            puts("all work and no play makes a dull guest\r\n");
    case 'f':
        fill();
        power_off();
        break;
    case 'h':
        for (;;)
            asm volatile("hlt");
    case 'l':
        for (;;)
            asm volatile("" ::: "memory");
    case 'p':
        power_off();
        break;
    case 'r':
        outb(PORTS_RESET, 2);
        outb(PORTS_RESET, 6);
        break;
    case 'k':
        outb(0x64, 0xfe);
        break;
    case 't':
        triple_fault();
        break;
    case 'w':
        task_loop();
        break;
    case 'x':
        debug_exit();
        break;
    default:
        puts("?\r\n");
    }
}

void guest_main(const uint32_t *info);

void guest_main(const uint32_t *info) {
    outb(COM1 + 2, 1); /* FIFOs on */
    find_given(info);
    puts("READY\r\n");
    for (;;)
        act(letter());
}
