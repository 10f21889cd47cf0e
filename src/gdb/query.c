/* General queries (q) and settings (Q). */
#include <stdio.h>
#include <string.h>

#include "gdb/gdb_int.h"

typedef void query_fn(struct gdb *g, struct gdb_text t);

static void ok(struct gdb *g) {
    gdb_put(&g->reply, "OK");
}

/* --- q --- */

static void supported(struct gdb *g, struct gdb_text t) {
    while (gdb_left(&t)) {
        if (gdb_skip_word(&t, "swbreak+"))
            g->knows_swbreak = true;
        else if (gdb_skip_word(&t, "hwbreak+"))
            g->knows_hwbreak = true;
        else
            t.at++;
    }
    gdb_put(&g->reply,
            "PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;"
            "swbreak+;hwbreak+;binary-upload+",
            GDB_PACKET_MAX);
    if (machine_debug_can_go_back(g->m))
        gdb_put(&g->reply, ";ReverseStep+;ReverseContinue+");
}

static void attached(struct gdb *g, struct gdb_text t) {
    gdb_put(&g->reply, "1");
}

static void current_thread(struct gdb *g, struct gdb_text t) {
    gdb_put(&g->reply, "QC%x", g->told_cpu + 1);
}

static void first_threads(struct gdb *g, struct gdb_text t) {
    for (unsigned n = 0; n < machine_cpus(g->m); n++)
        gdb_put(&g->reply, "%c%x", n ? ',' : 'm', n + 1);
}

static void more_threads(struct gdb *g, struct gdb_text t) {
    gdb_put(&g->reply, "l");
}

static void thread_info(struct gdb *g, struct gdb_text t) {
    char text[64];
    unsigned cpu;
    const struct vcpu *v;

    if (!gdb_thread(g, &t, &cpu) || cpu == GDB_CPU_ALL) {
        gdb_put_error(&g->reply, GDB_ERROR_THREAD);
        return;
    }
    v = machine_debug_vcpu(g->m, cpu);
    snprintf(text, sizeof(text), "CPU %u: %s", cpu,
             machine_debug_waits(g->m, cpu) ? "not started"
             : v->halted                    ? "halted"
             : v->cpl == 3                  ? "in user mode"
                                            : "in the kernel");
    gdb_put_bytes(&g->reply, text, strlen(text));
}

static void features(struct gdb *g, struct gdb_text t) {
    uint64_t at, len;

    if (!gdb_number(&t, &at) || !gdb_skip(&t, ',') || !gdb_number(&t, &len) ||
        gdb_left(&t)) {
        gdb_put_error(&g->reply, GDB_ERROR_PARSE);
        return;
    }
    at = at < g->xml_len ? at : g->xml_len;
    len = len < g->xml_len - at ? len : g->xml_len - at;
    len = len < GDB_PACKET_MAX / 2 ? len : GDB_PACKET_MAX / 2;
    gdb_put(&g->reply, at + len < g->xml_len ? "m" : "l");
    gdb_put_binary(&g->reply, g->xml + at, len);
}

static void symbols(struct gdb *g, struct gdb_text t) {
    ok(g);
}

static void sstep_bits(struct gdb *g, struct gdb_text t) {
    gdb_put(&g->reply, "ENABLE=%x,NOIRQ=%x,NOTIMER=%x", GDB_SSTEP_ENABLE, GDB_SSTEP_NOIRQ,
            GDB_SSTEP_NOTIMER);
}

static void sstep(struct gdb *g, struct gdb_text t) {
    gdb_put(&g->reply, "0x%llx", (unsigned long long)g->sstep);
}

static void physical(struct gdb *g, struct gdb_text t) {
    gdb_put(&g->reply, "%u", g->physical);
}

/* --- Q --- */

static void no_ack(struct gdb *g, struct gdb_text t) {
    g->no_ack = true;
    ok(g);
}

static void set_sstep(struct gdb *g, struct gdb_text t) {
    uint64_t n;

    gdb_skip_word(&t, "0x");
    if (!gdb_number(&t, &n) || gdb_left(&t) || n > 7) {
        gdb_put_error(&g->reply, GDB_ERROR_REFUSED);
        return;
    }
    g->sstep = n;
    machine_debug_hold_interrupts(g->m, n & GDB_SSTEP_NOIRQ);
    ok(g);
}

static void set_physical(struct gdb *g, struct gdb_text t) {
    uint64_t n;

    if (!gdb_number(&t, &n) || gdb_left(&t) || n > 1) {
        gdb_put_error(&g->reply, GDB_ERROR_REFUSED);
        return;
    }
    g->physical = n;
    ok(g);
}

/* --- both --- */

struct query {
    const char *name;
    query_fn *run;
};

/* The longer of two that begin alike comes first. */
static const struct query queries[] = {
    {"Supported", supported},
    {"Attached", attached},
    {"fThreadInfo", first_threads},
    {"sThreadInfo", more_threads},
    {"ThreadExtraInfo,", thread_info},
    {"Xfer:features:read:target.xml:", features},
    {"Symbol:", symbols},
    {"Rcmd,", gdb_cmd_monitor},
    {"qemu.sstepbits", sstep_bits},
    {"qemu.sstep", sstep},
    {"qemu.PhyMemMode", physical},
    {"C", current_thread},
};

static const struct query settings[] = {
    {"StartNoAckMode", no_ack},
    {"qemu.sstep=", set_sstep},
    {"qemu.PhyMemMode:", set_physical},
};

/* What is not known has an empty reply. */
static void find(struct gdb *g, struct gdb_text t, const struct query *table,
                 size_t count) {
    for (size_t n = 0; n < count; n++)
        if (gdb_skip_word(&t, table[n].name)) {
            table[n].run(g, t);
            return;
        }
}

void gdb_cmd_query(struct gdb *g, struct gdb_text t) {
    find(g, t, queries, ARRAY_SIZE(queries));
}

void gdb_cmd_set(struct gdb *g, struct gdb_text t) {
    find(g, t, settings, ARRAY_SIZE(settings));
}
