/*
 * The host's serial port, shared by the guests. With one guest bytes pass as they are.
 * With several, what they write is shown by lines, each behind its guest's number, and a
 * line that is not ended yet (a prompt) when its guest waits. What is typed goes to
 * one of them; Ctrl-A and a digit choose another, Ctrl-A twice is Ctrl-A.
 *
 * Locking: one lock, for guests run on several CPUs.
 */
#include <stdio.h>
#include <string.h>

#include "bare/bare.h"
#include "base/log.h"
#include "hv/hv_int.h"

#define ESCAPE 1u /* Ctrl-A */
#define LINE 256u

static struct {
    uint32_t lock;
    unsigned count; /* of guests */
    unsigned open;  /* whose line is on the screen, not ended; 0: nobody's */
    unsigned focus; /* who gets what is typed */
    bool escaped;   /* behind Ctrl-A */
    struct {
        uint8_t text[LINE];
        unsigned len;
    } line[HV_GUESTS + 1];
    struct {
        uint8_t bytes[256]; /* typed, not taken yet */
        unsigned first, count;
    } typed[HV_GUESTS + 1];
} con;

static void enter(void) {
    while (__atomic_exchange_n(&con.lock, 1, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
}

static void leave(void) {
    __atomic_store_n(&con.lock, 0, __ATOMIC_RELEASE);
}

void hv_console_start(unsigned guests) {
    con.count = guests;
    con.focus = 1;
}

/* --- output --- */

static void put(const void *bytes, size_t n) {
    bare_serial_write(bytes, n);
}

/* What GUEST has of a line goes out, behind its number if it begins there. */
static void show(unsigned guest, bool ends) {
    char head[16];

    if (con.open && con.open != guest)
        put("\r\n", 2);
    if (con.open != guest) {
        snprintf(head, sizeof(head), "[%u] ", guest);
        put(head, strlen(head));
    }
    put(con.line[guest].text, con.line[guest].len);
    con.line[guest].len = 0;
    con.open = ends ? 0 : guest;
}

static void take(unsigned guest, uint8_t c) {
    con.line[guest].text[con.line[guest].len++] = c;
    if (c == '\n' || con.line[guest].len == LINE)
        show(guest, c == '\n');
}

void hv_console_write(unsigned guest, const uint8_t *bytes, size_t n) {
    enter();
    if (con.count < 2)
        put(bytes, n);
    for (size_t k = 0; k < n && con.count > 1; k++)
        take(guest, bytes[k]);
    leave();
}

void hv_console_rest(unsigned guest) {
    enter();
    if (con.line[guest].len)
        show(guest, false);
    leave();
}

void hv_console_line(unsigned guest, const char *text) {
    enter();
    if (con.line[guest].len)
        show(guest, false);
    if (con.open)
        put("\r\n", 2);
    con.open = 0;
    if (con.count > 1)
        log_line(LOG_INFO, "guest %u: %s", guest, text);
    else
        log_line(LOG_INFO, "%s", text);
    leave();
}

/* --- input --- */

static void choose(uint8_t c) {
    if (c >= '1' && c < '1' + con.count)
        con.focus = c - '0';
}

/* C is for a guest. */
static bool is_typed(uint8_t c) {
    bool was = con.escaped;

    con.escaped = con.count > 1 && c == ESCAPE && !was;
    if (was && c != ESCAPE)
        choose(c);
    return !con.escaped && (!was || c == ESCAPE);
}

static void look(void) {
    uint8_t c;

    while (con.typed[con.focus].count < sizeof(con.typed->bytes) &&
           bare_serial_read(&c, 1)) {
        unsigned guest = con.focus;

        if (is_typed(c))
            con.typed[guest].bytes[(con.typed[guest].first + con.typed[guest].count++) %
                                   sizeof(con.typed->bytes)] = c;
    }
}

size_t hv_console_read(unsigned guest, uint8_t *buf, size_t room) {
    size_t n = 0;

    enter();
    look();
    while (n < room && con.typed[guest].count) {
        buf[n++] = con.typed[guest].bytes[con.typed[guest].first];
        con.typed[guest].first = (con.typed[guest].first + 1) % sizeof(con.typed->bytes);
        con.typed[guest].count--;
    }
    leave();
    return n;
}

bool hv_console_has(unsigned guest) {
    bool has;

    enter();
    look();
    has = con.typed[guest].count;
    leave();
    return has;
}
