/*
 * The VNC server's process: libvncserver, which speaks with the clients, and our socket.
 * The library is loaded here, so that no other run of bivisor pays for it and for those
 * it wants.
 *
 * A client that stalls lets the others wait (CLIENT_PATIENCE_MS at most, then it is
 * dropped), and nobody else. Everything libvncserver knows to do with files is off, and
 * the jail (base/os_jail_viewer.c) would not let it.
 */
#ifdef HAVE_LIBVNCSERVER
#include <dlfcn.h>
#include <errno.h>
#include <rfb/rfb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/os.h"
#include "dev/virtio/input.h"
#include "viewer/keys.h"
#include "viewer/viewer_int.h"

#define LIBRARY "libvncserver.so.1"
#define CLIENTS 16
#define CLIENT_PATIENCE_MS 3000
#define FIRST_WIDTH 720
#define FIRST_HEIGHT 400

/* What we call of it; the names of some are macros. */
#define CALLS(X)                                                                         \
    X(rfbGetScreen)                                                                      \
    X(rfbInitServer)                                                                     \
    X(rfbProcessEvents)                                                                  \
    X(rfbNewClient)                                                                      \
    X(rfbNewFramebuffer)                                                                 \
    X(rfbMarkRectAsModified)                                                             \
    X(rfbCheckPasswordByList)                                                            \
    X(rfbRandomBytes)                                                                    \
    X(rfbEncryptBytes)                                                                   \
    X(rfbLogEnable)
#define TEXT_OF(name) #name
#define FIELD(name) __typeof__(&name) name;

struct server {
    struct {
        CALLS(FIELD)
    } call;
    struct arena *arena;
    int fd, listener;
    rfbScreenInfoPtr screen;
    char *passwords[2];
    unsigned clients;
    /* The picture that clients have: as it came, and in libvncserver's order of bytes. */
    unsigned width, height;
    uint32_t *seen, *shown;
    bool wanted;  /* and nobody has answered yet */
    bool changed; /* the last picture was another than that before */
    /* what was typed and pointed at */
    uint8_t down[256]; /* keys, by their codes */
    bool caps;
    bool pointed; /* there is a place before */
    int x, y;
    int mask;
};

static void say(struct server *s, const struct message *m) {
    if (write(s->fd, m, sizeof(*m)) < 0 && errno != EAGAIN && errno != EINTR)
        _exit(0); /* nobody is there any more */
}

/* --- keys --- */

static void put_key(struct server *s, unsigned code, bool down) {
    const struct message m = {.kind = KEY, .a = (uint16_t)code, .b = down};

    s->down[code] = down;
    say(s, &m);
}

static bool holds(const struct server *s, unsigned code) {
    return s->down[code];
}

/* A viewer whose keyboard is another types a character with a shift where an American one
 * needs none, or the other way round; and some send no shift at all. */
static void press_shifted(struct server *s, const struct keys_key *key) {
    bool held = holds(s, KEYS_LEFT_SHIFT) || holds(s, KEYS_RIGHT_SHIFT);
    bool want = (key->shift == KEYS_SHIFTED) != (key->letter && s->caps);
    bool left = holds(s, KEYS_LEFT_SHIFT), right = holds(s, KEYS_RIGHT_SHIFT);

    if (held == want || key->shift == KEYS_ANY || holds(s, KEYS_LEFT_CONTROL) ||
        holds(s, KEYS_LEFT_ALT)) {
        put_key(s, key->code, true);
        return;
    }
    if (want)
        put_key(s, KEYS_LEFT_SHIFT, true);
    if (left)
        put_key(s, KEYS_LEFT_SHIFT, false);
    if (right)
        put_key(s, KEYS_RIGHT_SHIFT, false);
    put_key(s, key->code, true);
    if (want || left)
        put_key(s, KEYS_LEFT_SHIFT, left);
    if (right)
        put_key(s, KEYS_RIGHT_SHIFT, true);
}

static void on_key(rfbBool down, rfbKeySym symbol, rfbClientPtr cl) {
    struct server *s = cl->screen->screenData;
    struct keys_key key = keys_of_symbol(symbol);

    if (!key.code)
        return;
    if (down && key.code == KEYS_CAPS_LOCK && !holds(s, KEYS_CAPS_LOCK))
        s->caps = !s->caps;
    if (down)
        press_shifted(s, &key);
    else if (holds(s, key.code))
        put_key(s, key.code, false);
}

static void release_all(struct server *s) {
    for (unsigned code = 0; code < sizeof(s->down); code++)
        if (s->down[code])
            put_key(s, code, false);
}

/* --- the pointer --- */

/* A viewer's buttons 4 and 5 are the wheel. */
static int wheel(int mask, int before) {
    int pressed = mask & ~before;

    return (pressed & 0x10 ? 1 : 0) - (pressed & 0x08 ? 1 : 0);
}

/* AT of SIZE, from edge to edge of a tablet. */
static uint16_t scale(int at, int size) {
    if (at <= 0 || size < 2)
        return 0;
    return (uint16_t)(at >= size
                          ? VIRTIO_INPUT_MAX
                          : (unsigned)at * VIRTIO_INPUT_MAX / ((unsigned)size - 1));
}

static void on_pointer(int mask, int x, int y, rfbClientPtr cl) {
    struct server *s = cl->screen->screenData;
    struct message m = {.kind = POINTER,
                        .x = scale(x, cl->screen->width),
                        .y = scale(y, cl->screen->height)};

    if (s->pointed) {
        m.a = (uint16_t)(x - s->x);
        m.b = (uint16_t)(y - s->y);
        m.c = (uint16_t)wheel(mask, s->mask);
    }
    m.d = (uint16_t)((mask & 1) | (mask & 2) << 1 | (mask & 4) >> 1);
    s->pointed = true;
    s->x = x;
    s->y = y;
    s->mask = mask;
    say(s, &m);
}

/* --- clients --- */

static void on_gone(rfbClientPtr cl) {
    struct server *s = cl->screen->screenData;

    s->clients--;
    s->pointed = false;
    if (!s->clients)
        release_all(s);
}

static enum rfbNewClientAction on_new(rfbClientPtr cl) {
    struct server *s = cl->screen->screenData;

    s->clients++;
    cl->clientGoneHook = on_gone;
    return RFB_CLIENT_ACCEPT;
}

static void take_client(struct server *s) {
    int fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (s->clients >= CLIENTS)
        close(fd);
    else
        s->call.rfbNewClient(s->screen, fd);
}

/* --- the picture --- */

static bool resize(struct server *s, unsigned width, unsigned height) {
    uint32_t *seen = calloc((size_t)width * height, sizeof(*seen));
    uint32_t *shown = calloc((size_t)width * height, sizeof(*shown));
    uint32_t *old = s->shown;

    if (!seen || !shown) {
        free(seen);
        free(shown);
        return false;
    }
    free(s->seen);
    s->seen = seen;
    s->shown = shown;
    s->width = width;
    s->height = height;
    if (s->screen)
        s->call.rfbNewFramebuffer(s->screen, (char *)shown, (int)width, (int)height, 8, 3,
                                  4);
    free(old);
    return true;
}

/* Line Y, if it is another than before; the columns in which it is, added to FROM, TO. */
static bool take_line(struct server *s, unsigned y, unsigned *from, unsigned *to) {
    const uint32_t *line = s->arena->pixels + (size_t)y * s->width;
    uint32_t *seen = s->seen + (size_t)y * s->width;
    uint32_t *shown = s->shown + (size_t)y * s->width;
    unsigned first = s->width, last = 0;

    if (!memcmp(line, seen, s->width * sizeof(*line)))
        return false;
    for (unsigned x = 0; x < s->width; x++) {
        uint32_t c = line[x];

        if (c == seen[x])
            continue;
        first = x < first ? x : first;
        last = x + 1;
        seen[x] = c;
        shown[x] = (c & 0xff) << 16 | (c & 0xff00) | (c >> 16 & 0xff);
    }
    *from = first < *from ? first : *from;
    *to = last > *to ? last : *to;
    return last;
}

static void mark(struct server *s, unsigned from, unsigned top, unsigned to,
                 unsigned bottom) {
    if (from < to)
        s->call.rfbMarkRectAsModified(s->screen, (int)from, (int)top, (int)to,
                                      (int)bottom);
    s->changed |= from < to;
}

/* Lines next to each other that have changed are told of together. */
static void take_picture(struct server *s) {
    unsigned from = s->width, to = 0, top = 0;

    s->changed = false;
    for (unsigned y = 0; y < s->height; y++) {
        if (take_line(s, y, &from, &to))
            continue;
        mark(s, from, top, to, y);
        from = s->width;
        to = 0;
        top = y + 1;
    }
    mark(s, from, top, to, s->height);
}

/* False: our process has ended, or has gone mad. */
static bool hear(struct server *s) {
    struct message m;
    ssize_t n = read(s->fd, &m, sizeof(m));

    if (n < 0 && errno == EINTR)
        return true;
    if (n != sizeof(m) || m.kind != PICTURE || !s->wanted || !m.a || !m.b ||
        m.a > VGA_WIDTH || m.b > VGA_HEIGHT)
        return false;
    s->wanted = false;
    if ((m.a != s->width || m.b != s->height) && !resize(s, m.a, m.b))
        return false;
    take_picture(s);
    return true;
}

static void want(struct server *s) {
    const struct message m = {.kind = WANT, .a = s->changed};

    s->wanted = true;
    say(s, &m);
}

/* --- the process --- */

static bool load(struct server *s) {
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    bool whole = library;

#define FIND(name)                                                                       \
    *(void **)&s->call.name = library ? dlsym(library, TEXT_OF(name)) : NULL;            \
    whole = whole && s->call.name;
    CALLS(FIND)
#undef FIND
    return whole;
}

/* What it asks for a password with opens files when it is used for the first time. */
static int set_password(struct server *s, const char *password) {
    unsigned char bytes[CHALLENGESIZE];

    s->passwords[0] = strdup(password);
    if (!s->passwords[0])
        return -ENOMEM;
    s->call.rfbRandomBytes(bytes);
    s->call.rfbEncryptBytes(bytes, s->passwords[0]);
    s->screen->authPasswdData = s->passwords;
    s->screen->passwordCheck = s->call.rfbCheckPasswordByList;
    return 0;
}

static int make_screen(struct server *s, const char *password) {
    rfbScreenInfoPtr screen;

    s->call.rfbLogEnable(0);
    if (!resize(s, FIRST_WIDTH, FIRST_HEIGHT))
        return -ENOMEM;
    screen = s->call.rfbGetScreen(NULL, NULL, FIRST_WIDTH, FIRST_HEIGHT, 8, 3, 4);
    if (!screen)
        return -ENOMEM;
    s->screen = screen;
    screen->screenData = s;
    screen->frameBuffer = (char *)s->shown;
    screen->desktopName = "bivisor";
    screen->port = screen->ipv6port = 0; /* we listen */
    screen->httpDir = NULL;
    screen->cursor = NULL; /* the guest draws its own */
    screen->alwaysShared = TRUE;
    screen->permitFileTransfer = FALSE;
    screen->deferUpdateTime = screen->deferPtrUpdateTime = 0;
    screen->maxClientWait = CLIENT_PATIENCE_MS;
    screen->kbdAddEvent = on_key;
    screen->ptrAddEvent = on_pointer;
    screen->newClientHook = on_new;
    s->call.rfbInitServer(screen);
    return *password ? set_password(s, password) : 0;
}

static int larger(int a, int b) {
    return a > b ? a : b;
}

static void run(struct server *s) {
    for (;;) {
        fd_set ready = s->screen->allFds; /* the clients' */
        int most = larger(s->screen->maxFd, larger(s->fd, s->listener));

        FD_SET(s->fd, &ready);
        FD_SET(s->listener, &ready);
        if (select(most + 1, &ready, NULL, NULL, NULL) < 0) {
            if (errno == EINTR)
                continue;
            return;
        }
        if (FD_ISSET(s->fd, &ready) && !hear(s))
            return;
        if (FD_ISSET(s->listener, &ready))
            take_client(s);
        s->call.rfbProcessEvents(s->screen, 0);
        if (s->clients && !s->wanted)
            want(s);
    }
}

static int lock_up(const struct vnc_config *cfg, int listener) {
    int rc = cfg->jail == JAIL_OFF ? 0 : os_jail_viewer(listener);

    return cfg->jail == JAIL_ON ? rc : 0; /* the machine's own jail will warn */
}

_Noreturn void vnc_server_be(const struct vnc_config *cfg, const char *password,
                             struct arena *arena, int fd, int listener) {
    const int keep[] = {fd, listener, STDERR_FILENO};
    struct server s = {.arena = arena, .fd = fd, .listener = listener};
    struct word w = {.rc = -ENOENT, .library = true};

    os_helper_begin("bivisor-vnc", keep, ARRAY_SIZE(keep));
    if (load(&s)) {
        w.library = false;
        w.rc = make_screen(&s, password);
    }
    if (!w.rc) {
        w.rc = lock_up(cfg, listener);
        w.jail = w.rc;
    }
    if (write(fd, &w, sizeof(w)) == sizeof(w) && !w.rc)
        run(&s);
    _exit(0);
}

#endif
