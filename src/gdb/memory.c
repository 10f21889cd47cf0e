/* The guest's memory: m and x read, M and X write. */
#include <string.h>

#include "gdb/gdb_int.h"

/* ADDRESS,LENGTH; a reply has two characters for a byte at the most. */
static bool range(struct gdb_text *t, uint64_t *at, uint64_t *len) {
    return gdb_number(t, at) && gdb_skip(t, ',') && gdb_number(t, len) &&
           *len <= GDB_PACKET_MAX / 2;
}

static unsigned cpu_of(const struct gdb *g) {
    return g->cpu == GDB_CPU_ALL ? 0 : g->cpu;
}

/* How many bytes came, or false after an error. */
static bool fetch(struct gdb *g, struct gdb_text t, uint8_t *buf, uint64_t *len) {
    uint64_t at, wanted;

    if (!range(&t, &at, &wanted) || gdb_left(&t)) {
        gdb_put_error(&g->reply, GDB_ERROR_PARSE);
        return false;
    }
    *len = machine_debug_read(g->m, cpu_of(g), g->physical, at, buf, wanted);
    if (wanted && !*len) {
        gdb_put_error(&g->reply, GDB_ERROR_MEMORY);
        return false;
    }
    return true;
}

void gdb_cmd_read_digits(struct gdb *g, struct gdb_text t) {
    uint8_t buf[GDB_PACKET_MAX / 2];
    uint64_t len;

    if (fetch(g, t, buf, &len))
        gdb_put_bytes(&g->reply, buf, len);
}

void gdb_cmd_read_binary(struct gdb *g, struct gdb_text t) {
    uint8_t buf[GDB_PACKET_MAX / 2];
    uint64_t len;

    if (!fetch(g, t, buf, &len))
        return;
    gdb_put(&g->reply, "b");
    gdb_put_binary(&g->reply, buf, len);
}

static void store(struct gdb *g, uint64_t at, const void *buf, uint64_t len) {
    if (machine_debug_write(g->m, cpu_of(g), g->physical, at, buf, len) == len)
        gdb_put(&g->reply, "OK");
    else
        gdb_put_error(&g->reply, GDB_ERROR_MEMORY);
}

void gdb_cmd_write_digits(struct gdb *g, struct gdb_text t) {
    uint8_t buf[GDB_PACKET_MAX / 2];
    uint64_t at, len;

    if (range(&t, &at, &len) && gdb_skip(&t, ':') && gdb_left(&t) == 2 * len &&
        gdb_bytes(&t, buf, len))
        store(g, at, buf, len);
    else
        gdb_put_error(&g->reply, GDB_ERROR_PARSE);
}

void gdb_cmd_write_binary(struct gdb *g, struct gdb_text t) {
    uint64_t at, len;

    if (gdb_number(&t, &at) && gdb_skip(&t, ',') && gdb_number(&t, &len) &&
        gdb_skip(&t, ':') && gdb_left(&t) == len)
        store(g, at, t.at, len);
    else
        gdb_put_error(&g->reply, GDB_ERROR_PARSE);
}
