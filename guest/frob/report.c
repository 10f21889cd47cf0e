/* The serial port, the text screen, numbers, the command line, and the end. */
#include "frob.h"

#define COM1 0x3f8
#define LSR_THR_EMPTY 0x20
#define DEBUG_EXIT 0xf4

#define SCREEN ((volatile uint16_t *)0xb8000)
#define SCREEN_COLUMNS 80
#define SCREEN_ROWS 25

static bool on_screen;
static unsigned column;
static char command_line[512];

void report_open(bool screen) {
    /* 115,200 bits a second, 8 data bits, no parity: PC16550D data sheet, "Line Control
     * Register" and "Programmable Baud Generator". */
    static const uint8_t setup[][2] = {{1, 0}, {3, 0x80}, {0, 1}, {1, 0},
                                       {3, 3}, {2, 7},    {4, 3}};

    for (unsigned i = 0; i < COUNT(setup); i++)
        outb((uint16_t)(COM1 + setup[i][0]), setup[i][1]);
    on_screen = screen;
}

static void scroll(void) {
    for (unsigned i = 0; i < SCREEN_COLUMNS * (SCREEN_ROWS - 1); i++)
        SCREEN[i] = SCREEN[i + SCREEN_COLUMNS];
    for (unsigned i = 0; i < SCREEN_COLUMNS; i++)
        SCREEN[SCREEN_COLUMNS * (SCREEN_ROWS - 1) + i] = 0x0720;
    column = 0;
}

static void put(char c) {
    while (!(inb(COM1 + 5) & LSR_THR_EMPTY))
        ;
    outb(COM1, (uint8_t)c);
    if (!on_screen || c == '\r')
        return;
    if (c == '\n' || column == SCREEN_COLUMNS)
        scroll();
    if (c != '\n')
        SCREEN[SCREEN_COLUMNS * (SCREEN_ROWS - 1) + column++] = 0x0700 | (uint8_t)c;
}

void report_text(const char *s) {
    for (; *s; s++) {
        if (*s == '\n')
            put('\r');
        put(*s);
    }
}

/* By hand: there is no library of 64-bit division for 32 bits here. */
uint64_t div_u64(uint64_t n, uint32_t d) {
    uint32_t high = (uint32_t)(n >> 32), low = (uint32_t)n, qh = high / d, rem = high % d;

    __asm__("divl %2" : "+a"(low), "+d"(rem) : "r"(d));
    return (uint64_t)qh << 32 | low;
}

void report_uint(uint64_t v) {
    char text[24];
    unsigned n = sizeof(text) - 1;

    text[n] = 0;
    do {
        uint64_t q = div_u64(v, 10);

        text[--n] = (char)('0' + (unsigned)(v - q * 10));
        v = q;
    } while (v);
    report_text(text + n);
}

void report_hex(uint64_t v) {
    char text[19] = "0x";
    unsigned n = 2;

    for (int shift = 60; shift >= 0; shift -= 4)
        if (v >> shift || !shift)
            text[n++] = "0123456789abcdef"[v >> shift & 15];
    text[n] = 0;
    report_text(text);
}

void report_hundredths(uint64_t v) {
    uint64_t whole = div_u64(v, 100);
    unsigned part = (unsigned)(v - whole * 100);
    char text[4] = {'.', (char)('0' + part / 10), (char)('0' + part % 10), 0};

    report_uint(whole);
    report_text(text);
}

_Noreturn void report_end(unsigned code) {
    outb(DEBUG_EXIT, (uint8_t)code);
    /* Still here: this is no virtual machine of ours. */
    report_text("frob has finished and halts; the machine may be switched off\n");
    for (;;)
        __asm__ volatile("cli\nhlt");
}

/* --- the command line --- */

/* The loader's text lies in memory that we are going to use. */
void option_init(const char *cmdline) {
    for (size_t n = 0; cmdline[n] && n < sizeof(command_line) - 1; n++)
        command_line[n] = cmdline[n];
}

const char *option(const char *key, size_t *len) {
    for (const char *at = command_line; *at;) {
        const char *p = at, *k = key;

        while (*k && *p == *k)
            p++, k++;
        if (!*k && (*p == '=' || *p == ' ' || !*p)) {
            if (*p == '=')
                p++;
            for (*len = 0; p[*len] && p[*len] != ' ';)
                ++*len;
            return p;
        }
        while (*at && *at != ' ')
            at++;
        while (*at == ' ')
            at++;
    }
    return NULL;
}

uint32_t option_uint(const char *key, uint32_t otherwise) {
    size_t len;
    const char *p = option(key, &len);
    uint32_t v = 0;

    if (!p || !len || len > 9)
        return otherwise;
    for (size_t i = 0; i < len; i++) {
        if (p[i] < '0' || p[i] > '9')
            return otherwise;
        v = v * 10 + (uint32_t)(p[i] - '0');
    }
    return v;
}
