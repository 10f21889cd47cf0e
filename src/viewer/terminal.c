/*
 * The guest's text screen in the user's terminal, with the keyboard; see viewer.h. On the
 * loop's thread.
 *
 * The output is opened once more, for us alone, with O_NONBLOCK: a terminal that takes
 * nothing lets nobody wait, and sees the newest screen when it goes on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/os_loop.h"
#include "machine/machine.h"
#include "viewer/cells.h"
#include "viewer/typed.h"
#include "viewer/viewer.h"

#define FAST_NS 20000000ull
#define SLOW_NS 100000000ull
#define ESC_NS 60000000ull /* an ESC that nothing follows for so long is a key */
#define CTRL_A 0x01
#define OUT_SIZE 32768u

struct terminal {
    struct machine *m;
    struct terminal_config cfg;
    int fd; /* the output */
    struct os_watch input, full;
    struct os_timer timer;
    uint64_t pause;
    uint64_t typed_at;
    bool escape;    /* it was typed */
    unsigned taken; /* os_tty_taken(), when all of it was drawn last */
    struct vga_picture *now, *before;
    bool drawn; /* BEFORE is what is shown */
    struct typed typed;
    struct cells cells;
    size_t len, at;
    char out[OUT_SIZE];
};

/* --- output --- */

static void on_room(void *arg, unsigned ready);

/* Is all of it written? */
static bool flush(struct terminal *t) {
    while (t->at < t->len) {
        ssize_t n = write(t->fd, t->out + t->at, t->len - t->at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN && !t->full.loop)
            os_watch_start(&t->full, machine_loop(t->m), t->fd, OS_WRITE, on_room, t);
        if (n < 0)
            return false;
        t->at += (size_t)n;
    }
    t->at = t->len = 0;
    return true;
}

static void draw(struct terminal *t) {
    struct vga_picture *p = t->now;
    bool whole = true;
    char text[128];

    if (p->kind == VGA_TEXT) {
        t->len = cells_draw(&t->cells, p, t->out, sizeof(t->out), &whole);
    } else {
        snprintf(text, sizeof(text),
                 "The guest shows a picture of %u by %u, as --display vnc=:0 would.",
                 p->width, p->height);
        t->len = cells_say(&t->cells, text, t->out, sizeof(t->out));
    }
    t->drawn = whole;
    t->now = t->before;
    t->before = p;
}

/* Another size, or somebody else had the terminal. */
static bool is_new_terminal(struct terminal *t) {
    struct winsize w = {0};
    unsigned taken = os_tty_taken();

    ioctl(t->fd, TIOCGWINSZ, &w);
    w.ws_col = w.ws_col ?: 80;
    w.ws_row = w.ws_row ?: 25;
    if (w.ws_col == t->cells.columns && w.ws_row == t->cells.rows && taken == t->taken)
        return false;
    t->taken = taken;
    cells_resize(&t->cells, w.ws_col, w.ws_row);
    return true;
}

static bool is_new_picture(const struct terminal *t) {
    const struct vga_picture *a = t->now, *b = t->before;

    if (!t->drawn || a->kind != b->kind)
        return true;
    if (a->kind != VGA_TEXT)
        return a->width != b->width || a->height != b->height;
    return memcmp(a, b, sizeof(*a)) != 0;
}

static void show(struct terminal *t) {
    bool anew = is_new_terminal(t);

    if (!flush(t))
        return;
    machine_look(t->m, t->now);
    if (anew || is_new_picture(t)) {
        draw(t);
        flush(t);
        t->pause = FAST_NS;
    } else if (t->pause < SLOW_NS) {
        t->pause += FAST_NS / 4;
    }
}

/* --- keys --- */

static void feed(struct terminal *t) {
    struct typed *k = &t->typed;

    while (k->count &&
           machine_key(t->m, k->keys[k->first].code, k->keys[k->first].down)) {
        k->first = (k->first + 1) % TYPED_KEYS;
        k->count--;
    }
    if (t->input.loop && typed_has_room(k))
        os_watch_events(&t->input, OS_READ);
}

/* What follows the escape key. */
static void take_command(struct terminal *t, uint8_t byte) {
    t->escape = false;
    if ((byte | 0x20) == 'x') {
        t->cfg.quit(t->cfg.arg);
    } else if ((byte | 0x20) == 'l') {
        t->cells.known = t->drawn = false;
    } else {
        typed_byte(&t->typed, t->cfg.escape);
        if ((byte | 0x20) != 'a' && byte != t->cfg.escape)
            typed_byte(&t->typed, byte);
    }
}

static void take_typed(struct terminal *t, const uint8_t *bytes, size_t len) {
    for (size_t n = 0; n < len; n++) {
        if (t->escape)
            take_command(t, bytes[n]);
        else if (bytes[n] == t->cfg.escape)
            t->escape = true;
        else
            typed_byte(&t->typed, bytes[n]);
    }
}

static void on_input(void *arg, unsigned ready) {
    struct terminal *t = arg;
    uint8_t bytes[TYPED_READ];
    ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));

    if (!n || (n < 0 && errno != EINTR && errno != EAGAIN)) {
        os_watch_stop(&t->input); /* nobody is there any more */
        return;
    }
    if (n > 0)
        take_typed(t, bytes, (size_t)n);
    if (!typed_has_room(&t->typed))
        os_watch_events(&t->input, 0);
    t->typed_at = os_monotonic_ns();
    t->pause = FAST_NS;
    feed(t);
    os_timer_set(&t->timer, t->typed_at + t->pause);
}

/* --- the clock --- */

static void on_time(void *arg) {
    struct terminal *t = arg;
    uint64_t now = os_monotonic_ns();

    if (now - t->typed_at >= ESC_NS)
        typed_pause(&t->typed);
    feed(t);
    show(t);
    if (t->typed.count || t->typed.held_len)
        t->pause = FAST_NS;
    os_timer_set(&t->timer, now + t->pause);
}

static void on_room(void *arg, unsigned ready) {
    struct terminal *t = arg;

    os_watch_stop(&t->full);
    show(t);
}

/* --- the terminal --- */

const char *terminal_refusal(void) {
    const char *term = getenv("TERM");

    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return "standard input and output are no terminal";
    if (!term || !*term || !strcmp(term, "dumb"))
        return "TERM says that this terminal cannot move its cursor";
    return NULL;
}

static bool has_utf8(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};

    for (unsigned n = 0; n < ARRAY_SIZE(names); n++) {
        const char *value = getenv(names[n]);

        if (value && *value)
            return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
    }
    return false;
}

static struct terminal *make(const struct terminal_config *cfg, struct machine *m) {
    struct terminal *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    t->m = m;
    t->cfg = *cfg;
    t->cfg.escape = cfg->escape ? cfg->escape : CTRL_A;
    t->pause = FAST_NS;
    t->cells.utf8 = has_utf8();
    t->now = calloc(1, sizeof(*t->now));
    t->before = calloc(1, sizeof(*t->before));
    t->fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (t->fd < 0)
        t->fd = dup(STDOUT_FILENO);
    if (t->now && t->before && t->fd >= 0)
        return t;
    terminal_close(t);
    return NULL;
}

int terminal_open(const struct terminal_config *cfg, struct machine *m,
                  struct terminal **out) {
    struct terminal *t = make(cfg, m);
    bool is_tty;
    int rc;

    if (!t)
        return -ENOMEM;
    os_tty_screen(STDOUT_FILENO, CELLS_ENTER, CELLS_LEAVE);
    rc = os_tty_raw(STDIN_FILENO, &is_tty);
    if (!rc)
        rc = os_watch_start(&t->input, machine_loop(m), STDIN_FILENO, OS_READ, on_input,
                            t);
    if (!rc)
        rc = os_timer_open(&t->timer, machine_loop(m), on_time, t);
    if (rc) {
        terminal_close(t);
        return rc;
    }
    os_timer_set(&t->timer, os_monotonic_ns());
    *out = t;
    return 0;
}

void terminal_close(struct terminal *t) {
    if (!t)
        return;
    os_watch_stop(&t->input);
    os_watch_stop(&t->full);
    os_timer_close(&t->timer);
    os_tty_restore();
    if (t->fd >= 0)
        close(t->fd);
    free(t->now);
    free(t->before);
    free(t);
}
