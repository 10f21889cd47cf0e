/*
 * gdb's remote protocol: a stream of anything, as a client may send it, to a machine of
 * two CPUs that stands. What is no packet is passed over, what is one has a reply of
 * bounded length, and afterwards the machine has no stops and can be called.
 */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <linux/memfd.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int memfd_create(const char *name, unsigned flags); /* for lib/tiny.h */

#include "fuzz/fuzz.h"
#include "gdb/gdb_int.h"
#include "lib/tiny.h"

static struct machine *m;
static struct gdb g;

static void no_stop(void *arg) {
    HOLDS(false); /* nothing runs */
}

static void create(void) {
    static const char code[] = "\xfa\xf4";
    static struct boot_image *image;
    struct machine_config cfg = {.engine = "bt", .memory = 16 << 20, .cpus = 2};
    char path[32], why[512];

    machine_options_default(&cfg.options);
    HOLDS(tiny_kernel(code, sizeof(code) - 1, path) >= 0);
    HOLDS(!boot_image_open(path, NULL, &image, why, sizeof(why)));
    cfg.image = image;
    HOLDS(!machine_create(&cfg, &m, why, sizeof(why)));
    HOLDS(!machine_boot(m, why, sizeof(why)));
}

static void begin(void) {
    g = (struct gdb){.fd = -1, .m = m, .attached = true, .cpu_go = GDB_CPU_ALL};
    machine_debug_begin(m, no_stop, NULL);
    machine_debug_stop(m);
    gdb_regs_make(&g.regs, GDB_ARCH_64, machine_debug_vcpu(m, 0));
    g.xml_len = gdb_describe(&g.regs, g.xml);
    HOLDS(g.xml_len > 1000 && g.xml_len < sizeof(g.xml));
}

/* What the client has read of the machine it may have changed. */
static void answered(void) {
    static char out[GDB_REPLY_MAX + 8];
    struct vcpu_stops *s = &g.points.stops;

    HOLDS(g.reply.len <= sizeof(g.reply.buf) && !g.reply.full);
    HOLDS(gdb_frame_make(out, g.reply.buf, g.reply.len) == g.reply.len + 4);
    HOLDS(s->breaks <= VCPU_BREAKS && s->watches <= VCPU_WATCHES);
    for (unsigned n = 0; n < s->watches; n++)
        HOLDS(s->watch[n].len - 1 < VCPU_WATCH_MAX);
    HOLDS(g.cpu < 2 || g.cpu == GDB_CPU_ALL);
    HOLDS(g.cpu_go < 2 || g.cpu_go == GDB_CPU_ALL);
    if (g.running) /* it goes on, in a life that nobody has begun */
        machine_debug_stop(m);
    g.running = false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!m)
        create();
    begin();
    for (; size; data++, size--) {
        if (gdb_frame_byte(&g.frame, *data) != GDB_PACKET)
            continue;
        gdb_command(&g);
        answered();
    }
    machine_debug_end(m);
    HOLDS(!machine_debug_vcpu(m, 0)->stops && !machine_paused(m));
    return 0;
}
