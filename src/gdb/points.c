/*
 * Breakpoints and watchpoints: Z and z.
 *
 * Software and hardware breakpoints are the same here: the engine's. What the client
 * calls them is remembered, to tell it that one of that kind was hit.
 */
#include "gdb/gdb_int.h"

enum { SOFTWARE, HARDWARE, WRITE, READ, ACCESS };

static unsigned find_break(const struct vcpu_stops *s, uint64_t at) {
    unsigned n = 0;

    while (n < s->breaks && s->at[n] != at)
        n++;
    return n;
}

static unsigned find_watch(const struct vcpu_stops *s, const struct vcpu_watch *w) {
    unsigned n = 0;

    while (n < s->watches &&
           (s->watch[n].at != w->at || s->watch[n].len != w->len ||
            s->watch[n].read != w->read || s->watch[n].write != w->write))
        n++;
    return n;
}

static void note_pages(struct vcpu_stops *s) {
    s->pages = 0;
    for (unsigned n = 0; n < s->breaks; n++)
        s->pages |= 1ull << (s->at[n] >> 12 & 63);
}

static bool add_break(struct gdb_points *p, uint64_t at, bool hardware) {
    unsigned n = find_break(&p->stops, at);

    if (n == VCPU_BREAKS)
        return false;
    if (n == p->stops.breaks) {
        p->stops.at[p->stops.breaks++] = at;
        p->hardware[n] = p->software[n] = false;
    }
    *(hardware ? &p->hardware[n] : &p->software[n]) = true;
    note_pages(&p->stops);
    return true;
}

static void remove_break(struct gdb_points *p, uint64_t at, bool hardware) {
    unsigned n = find_break(&p->stops, at), last;

    if (n == p->stops.breaks)
        return;
    *(hardware ? &p->hardware[n] : &p->software[n]) = false;
    if (p->hardware[n] || p->software[n])
        return;
    last = --p->stops.breaks;
    p->stops.at[n] = p->stops.at[last];
    p->hardware[n] = p->hardware[last];
    p->software[n] = p->software[last];
    note_pages(&p->stops);
}

static bool add_watch(struct gdb_points *p, const struct vcpu_watch *w) {
    if (find_watch(&p->stops, w) < p->stops.watches)
        return true;
    if (p->stops.watches == VCPU_WATCHES)
        return false;
    p->stops.watch[p->stops.watches++] = *w;
    return true;
}

static void remove_watch(struct gdb_points *p, const struct vcpu_watch *w) {
    unsigned n = find_watch(&p->stops, w);

    if (n < p->stops.watches)
        p->stops.watch[n] = p->stops.watch[--p->stops.watches];
}

/* As gdb sees addresses: without long mode they have 32 bits. */
static bool parse(struct gdb_text *t, uint64_t *type, struct vcpu_watch *w) {
    uint64_t kind;

    if (!gdb_number(t, type) || !gdb_skip(t, ',') || !gdb_number(t, &w->at) ||
        !gdb_skip(t, ',') || !gdb_number(t, &kind))
        return false;
    w->len = kind;
    w->write = *type == WRITE || *type == ACCESS;
    w->read = *type == READ || *type == ACCESS;
    return *type <= HARDWARE || (*type <= ACCESS && kind && kind <= VCPU_WATCH_MAX &&
                                 w->at + (kind - 1) >= w->at);
}

/* To the machine; where that cannot, all is as it was. */
static void settle(struct gdb *g, const struct gdb_points *old, bool good) {
    if (good && !machine_debug_set(g->m, &g->points.stops)) {
        gdb_put(&g->reply, "OK");
        return;
    }
    g->points = *old;
    gdb_put_error(&g->reply, GDB_ERROR_FULL);
}

static void change(struct gdb *g, struct gdb_text t, bool add) {
    struct gdb_points old = g->points;
    struct vcpu_watch w;
    uint64_t type;
    bool good = true;

    if (!parse(&t, &type, &w)) {
        gdb_put_error(&g->reply, GDB_ERROR_PARSE);
        return;
    }
    if (type <= HARDWARE && add)
        good = add_break(&g->points, w.at, type == HARDWARE);
    else if (type <= HARDWARE)
        remove_break(&g->points, w.at, type == HARDWARE);
    else if (add)
        good = add_watch(&g->points, &w);
    else
        remove_watch(&g->points, &w);
    settle(g, &old, good);
}

void gdb_cmd_insert(struct gdb *g, struct gdb_text t) {
    change(g, t, true);
}

void gdb_cmd_remove(struct gdb *g, struct gdb_text t) {
    change(g, t, false);
}
