/* The table of packets, and those that need no file of their own. */
#include "gdb/gdb_int.h"

#define SIGNAL_TRAP 5u

static unsigned cpu_of(const struct gdb *g) {
    return g->cpu == GDB_CPU_ALL ? 0 : g->cpu;
}

static void why(struct gdb *g, struct gdb_text t) {
    gdb_put_stop(g, SIGNAL_TRAP);
}

static void read_all(struct gdb *g, struct gdb_text t) {
    uint8_t bytes[16];

    for (unsigned n = 0; n < g->regs.count; n++) {
        if (g->regs.reg[n].feature == GDB_FEATURE_SYSTEM)
            continue;
        gdb_reg_get(g->m, cpu_of(g), &g->regs.reg[n], bytes);
        gdb_put_bytes(&g->reply, bytes, g->regs.reg[n].bytes);
    }
}

static void read_one(struct gdb *g, struct gdb_text t) {
    uint8_t bytes[16];
    uint64_t n;

    if (!gdb_number(&t, &n) || gdb_left(&t) || n >= g->regs.count) {
        gdb_put_error(&g->reply, GDB_ERROR_PARSE);
        return;
    }
    gdb_reg_get(g->m, cpu_of(g), &g->regs.reg[n], bytes);
    gdb_put_bytes(&g->reply, bytes, g->regs.reg[n].bytes);
}

static void settle(struct gdb *g, bool good) {
    if (good)
        gdb_put(&g->reply, "OK");
    else
        gdb_put_error(&g->reply, GDB_ERROR_REFUSED);
}

/* As many as there are. */
static void write_all(struct gdb *g, struct gdb_text t) {
    uint8_t bytes[16];
    bool good = true;

    for (unsigned n = 0; n < g->regs.count && gdb_left(&t); n++) {
        const struct gdb_reg *r = &g->regs.reg[n];

        if (r->feature == GDB_FEATURE_SYSTEM)
            continue;
        if (!gdb_bytes(&t, bytes, r->bytes)) {
            gdb_put_error(&g->reply, GDB_ERROR_PARSE);
            return;
        }
        good &= gdb_reg_set(g->m, cpu_of(g), r, bytes);
    }
    settle(g, good);
}

static void write_one(struct gdb *g, struct gdb_text t) {
    uint8_t bytes[16];
    uint64_t n;

    if (!gdb_number(&t, &n) || !gdb_skip(&t, '=') || n >= g->regs.count ||
        !gdb_bytes(&t, bytes, g->regs.reg[n].bytes) || gdb_left(&t))
        gdb_put_error(&g->reply, GDB_ERROR_PARSE);
    else
        settle(g, gdb_reg_set(g->m, cpu_of(g), &g->regs.reg[n], bytes));
}

static void choose_thread(struct gdb *g, struct gdb_text t) {
    bool go = gdb_skip(&t, 'c');
    unsigned cpu;

    if ((!go && !gdb_skip(&t, 'g')) || !gdb_thread(g, &t, &cpu)) {
        gdb_put_error(&g->reply, GDB_ERROR_THREAD);
        return;
    }
    *(go ? &g->cpu_go : &g->cpu) = cpu;
    gdb_put(&g->reply, "OK");
}

static void is_thread(struct gdb *g, struct gdb_text t) {
    unsigned cpu;

    if (gdb_thread(g, &t, &cpu) && !gdb_left(&t))
        gdb_put(&g->reply, "OK");
    else
        gdb_put_error(&g->reply, GDB_ERROR_THREAD);
}

static void detach(struct gdb *g, struct gdb_text t) {
    gdb_put(&g->reply, "OK");
    g->leaving = true;
}

/* The run ends, as if it were quit at the terminal. */
static void end(struct gdb *g, bool reply) {
    g->reply.none = !reply;
    if (reply)
        gdb_put(&g->reply, "OK");
    g->leaving = g->ends = true;
}

static void kill_without_reply(struct gdb *g, struct gdb_text t) {
    end(g, false);
}

static void kill_with_reply(struct gdb *g, struct gdb_text t) {
    end(g, true);
}

static void which_vcont(struct gdb *g, struct gdb_text t) {
    gdb_put(&g->reply, "vCont;c;C;s;S;t;r");
}

static const struct {
    const char *name;
    void (*run)(struct gdb *g, struct gdb_text t);
} table[] = {
    {"?", why},
    {"g", read_all},
    {"G", write_all},
    {"p", read_one},
    {"P", write_one},
    {"m", gdb_cmd_read_digits},
    {"x", gdb_cmd_read_binary},
    {"M", gdb_cmd_write_digits},
    {"X", gdb_cmd_write_binary},
    {"Z", gdb_cmd_insert},
    {"z", gdb_cmd_remove},
    {"H", choose_thread},
    {"T", is_thread},
    {"vCont?", which_vcont},
    {"vCont", gdb_cmd_vcont},
    {"vKill", kill_with_reply},
    {"bs", gdb_cmd_back_step},
    {"bc", gdb_cmd_back_continue},
    {"c", gdb_cmd_continue},
    {"C", gdb_cmd_continue_signal},
    {"s", gdb_cmd_step},
    {"S", gdb_cmd_step_signal},
    {"D", detach},
    {"k", kill_without_reply},
    {"q", gdb_cmd_query},
    {"Q", gdb_cmd_set},
};

void gdb_command(struct gdb *g) {
    struct gdb_text t = {g->frame.buf, g->frame.buf + g->frame.len};

    g->reply.len = 0;
    g->reply.full = g->reply.none = false;
    for (size_t n = 0; n < ARRAY_SIZE(table); n++)
        if (gdb_skip_word(&t, table[n].name)) {
            table[n].run(g, t);
            break;
        }
    if (g->reply.full) {
        g->reply.full = false;
        gdb_put_error(&g->reply, GDB_ERROR_FULL);
    }
}
