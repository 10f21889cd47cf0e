/* -display, -vga, -vnc; see qemu_int.h. */
#include <string.h>

#include "qemu/qemu_int.h"

/* A display's number without a host is all the host's addresses, with QEMU. */
static const char *vnc_address(struct qemu *q, const char *text) {
    if (*text == ':')
        return qemu_format(q, "0.0.0.0%s", text);
    if (!strncmp(text, "localhost:", 10))
        return qemu_format(q, "127.0.0.1%s", text + 9);
    return text;
}

bool qemu_take_vnc(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;

    if (!qemu_split(q, &l, option, value, NULL))
        return false;
    if (l.head && strchr(l.head, ','))
        return qemu_refuse(q, "%s: a path with a comma, '%s'", option, l.head);
    q->vnc = l.head && strcmp(l.head, "none") != 0 ? vnc_address(q, l.head) : NULL;
    q->display_none |= !q->vnc;
    return qemu_rest(q, &l, "share lock-key-sync power-control non-adaptive ");
}

bool qemu_take_display(struct qemu *q, const char *option, const char *value) {
    static const char *const windows[] = {"gtk",       "sdl",  "cocoa",  "egl-headless",
                                          "spice-app", "dbus", "default"};
    size_t len;

    if (!strcmp(option, "-curses") || (value && !strcmp(value, "curses"))) {
        q->curses = true;
        return true;
    }
    if (!value) { /* -sdl, -full-screen */
        q->window = true;
        return true;
    }
    if (!strncmp(value, "vnc=", 4))
        return qemu_take_vnc(q, option, value + 4);
    len = strcspn(value, ",");
    if (len == 4 && !strncmp(value, "none", 4)) {
        q->display_none = true;
        return true;
    }
    for (size_t n = 0; n < ARRAY_SIZE(windows); n++) {
        if (strlen(windows[n]) == len && !strncmp(value, windows[n], len)) {
            q->window = true;
            return true;
        }
    }
    return qemu_refuse(q, "%s: bivisor has none, curses and vnc=ADDR, not '%s'", option,
                       value);
}

bool qemu_take_vga(struct qemu *q, const char *option, const char *value) {
    if (strcmp(value, "none") != 0 && strcmp(value, "std") != 0)
        qemu_note(q, "%s %s: the guest has a standard VGA", option, value);
    return true;
}
