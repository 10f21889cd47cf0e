/* --display; see display_option.h. */
#include "ctl/display_option.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/text.h"

bool display_option_help(const char *value) {
    if (strcmp(value, "help") != 0)
        return false;
    printf(
        "--display none|text|vnc=ADDR[,password=FILE][,tablet]\n"
        "\n"
        "Who sees the guest's screen, and has a keyboard and a mouse at it.\n"
        "\n"
        "  none  nobody, unless `bivisor screenshot` asks; as without --display\n"
        "  text  this terminal shows the text screen; what is typed is the guest's,\n"
        "        but Ctrl-A x quits, Ctrl-A l draws the screen anew, Ctrl-A a is a\n"
        "        Ctrl-A. The first serial port goes nowhere, unless --serial says "
        "where\n"
        "  vnc   VNC clients, text and graphics. ADDR is [HOST]:N, N being the\n"
        "        display's number, HOST::PORT or unix:PATH; HOST is a numeric address\n"
        "        (127.0.0.1). Whoever can connect sees and types, unless he has to\n"
        "        know the first line of FILE\n"
        "\n"
        "With vnc=ADDR,tablet the guest has a tablet over virtio: its pointer is the "
        "client's.\n"
        "\n"
        "A kernel without --append writes to the screen as well: its command line is\n"
        "'console=tty0', for vnc 'console=tty0 console=ttyS0'.\n");
    return true;
}

static bool parse_vnc(struct display_option *o) {
    char *word, *rest;

    o->kind = DISPLAY_VNC;
    o->address = o->text + 4;
    for (rest = text_cut(o->text + 4); (word = rest);) {
        rest = text_cut(word);
        if (!strcmp(word, "tablet")) {
            o->tablet = true;
            continue;
        }
        if (strncmp(word, "password=", 9) != 0 || !word[9])
            return false;
        o->password = word + 9;
    }
    return *o->address;
}

static bool parse(struct display_option *o) {
    if (!strcmp(o->text, "none"))
        o->kind = DISPLAY_NONE;
    else if (!strcmp(o->text, "text"))
        o->kind = DISPLAY_TEXT;
    else
        return !strncmp(o->text, "vnc=", 4) && parse_vnc(o);
    return true;
}

bool display_option_take(struct display_option *o, const char *value) {
    display_option_free(o);
    o->text = strdup(value);
    if (!o->text) {
        log_error("out of memory");
        return false;
    }
    if (parse(o))
        return true;
    log_error(
        "--display wants none, text or vnc=ADDR[,password=FILE][,tablet], not '%s'; "
        "`--display help` tells more",
        value);
    return false;
}

void display_option_free(struct display_option *o) {
    free(o->text);
    *o = (struct display_option){0};
}

const char *display_option_append(const struct display_option *o) {
    static const char *const lines[] = {
        [DISPLAY_NONE] = "console=ttyS0",
        [DISPLAY_TEXT] = "console=tty0",
        [DISPLAY_VNC] = "console=tty0 console=ttyS0",
    };

    return lines[o->kind];
}

int display_option_open(struct display_option *o, enum jail_want jail,
                        struct machine_config *cfg) {
    const struct vnc_config vnc = {
        .address = o->address, .password = o->password, .jail = jail};
    const char *bad = o->kind == DISPLAY_TEXT ? terminal_refusal() : NULL;
    char why[512];
    int rc;

    cfg->display = o->kind != DISPLAY_NONE;
    cfg->tablet = o->tablet;
    if (bad) {
        log_error("--display text: %s", bad);
        return -EINVAL;
    }
    rc = o->kind == DISPLAY_VNC ? vnc_open(&vnc, &o->vnc, why, sizeof(why)) : 0;
    if (rc)
        log_error("--display: %s", why);
    return rc;
}

bool display_option_start(struct display_option *o, uint8_t escape, struct machine *m,
                          void (*quit)(void *arg), void *arg) {
    const struct terminal_config terminal = {escape, quit, arg};
    int rc = 0;

    if (o->kind == DISPLAY_TEXT)
        rc = terminal_open(&terminal, m, &o->terminal);
    else if (o->vnc)
        rc = vnc_start(o->vnc, m);
    if (rc)
        log_error("--display: cannot start it: %s", strerror(-rc));
    return !rc;
}

void display_option_stop(struct display_option *o) {
    terminal_close(o->terminal);
    o->terminal = NULL;
    if (o->vnc)
        vnc_stop(o->vnc);
}

void display_option_close(struct display_option *o) {
    vnc_close(o->vnc);
    o->vnc = NULL;
}
