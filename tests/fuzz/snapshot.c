/*
 * A snapshot's state as it was not written: a good one of a machine with much in it, of
 * which the input changes bytes. Checksums are put right, so that what is in the records
 * is looked at, unless the input says not to. What is refused has a sentence; what is
 * taken runs for a while, and can be written again.
 *
 * The input: a byte (bit 0: the sums stay wrong), then patches: three bytes say where,
 * one how many bytes follow.
 */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <linux/memfd.h>
#include <stdint.h>

int memfd_create(const char *name, unsigned flags); /* for lib/tiny.h */

#include "base/log.h"
#include "fuzz/fuzz.h"
#include "fuzz/records.h"
#include "lib/tiny.h"
#include "machine/machine_int.h"
#include "snapshot/snapshot.h"
#include "stream/stream.h"

/* 1: inc eax; out 0x80, al; sti; jmp 1b */
#define GUEST "\x40\xe6\x80\xfb\xeb\xfa"

static struct machine *m;
static uint8_t *good;
static size_t good_len;

static void save(void) {
    struct snapshot *s = snapshot_new();
    const uint8_t *bytes;

    HOLDS(!machine_save(m, s));
    machine_saved(m);
    bytes = snapshot_finish(s, &good_len);
    good = malloc(good_len);
    memcpy(good, bytes, good_len);
    snapshot_free(s);
}

static void create(void) {
    static struct stream *stream;
    static struct boot_image *image;
    struct machine_config cfg = {.engine = "bt",
                                 .memory = 16 << 20,
                                 .cpus = 2,
                                 .paravirt = true,
                                 .virtio = MACHINE_VIRTIO_PCI,
                                 .rng = true,
                                 .balloon = true,
                                 .console_count = 1};
    char path[32], why[512];

    log_set_level(LOG_ERROR);
    machine_options_default(&cfg.options);
    HOLDS(tiny_kernel(GUEST, sizeof(GUEST) - 1, path) >= 0);
    HOLDS(!boot_image_open(path, NULL, &image, why, sizeof(why)));
    HOLDS(!stream_open("null", &stream, why, sizeof(why)));
    cfg.image = image;
    cfg.consoles[0].stream = stream;
    HOLDS(!machine_create(&cfg, &m, why, sizeof(why)));
    HOLDS(!machine_boot(m, why, sizeof(why)));
    save();
}

static void stop(void *arg) {
    machine_quit(m);
}

static void run(void) {
    struct os_timer timer = {0};
    struct snapshot *s;

    HOLDS(!os_timer_open(&timer, machine_loop(m), stop, NULL));
    os_timer_set(&timer, os_monotonic_ns() + 2000000);
    machine_run(m);
    os_timer_close(&timer);
    m->quit = false;
    s = snapshot_new();
    HOLDS(!machine_save(m, s));
    machine_saved(m);
    snapshot_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};
    char why[256] = "";
    struct snapshot *s;
    uint8_t *bytes;
    bool wrong;

    if (!m)
        create();
    wrong = fuzz_get(&in, 1) & 1;
    bytes = malloc(good_len);
    memcpy(bytes, good, good_len);
    records_patch(bytes, good_len, &in, 3);
    if (!wrong)
        records_repair(bytes, good_len);
    s = snapshot_open(bytes, good_len, why, sizeof(why));
    if (s && !machine_restore(m, s, why, sizeof(why)))
        run();
    else
        HOLDS(*why && !strchr(why, '\n'));
    snapshot_free(s);
    free(bytes);
    return 0;
}
