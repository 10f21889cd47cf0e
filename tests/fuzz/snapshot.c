/*
 * A snapshot's state as it was not written: a good one of a machine with much in it, of
 * which the input changes bytes. Checksums are put right, so that what is in the records
 * is looked at, unless the input says not to. What is refused has a sentence; what is
 * taken runs for a while, and can be written again.
 *
 * The input: a byte (bit 0: the sums stay wrong; bit 1: the machine counts its time, and
 * is on a tape), then patches: three bytes say where, one how many bytes follow.
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
#include "replay/input.h"
#include "snapshot/snapshot.h"
#include "stream/stream.h"

/* 1: inc eax; out 0x80, al; sti; jmp 1b */
#define GUEST "\x40\xe6\x80\xfb\xeb\xfa"

static struct subject {
    struct machine *m;
    uint8_t *good;
    size_t len;
} subjects[2];            /* the second one counts */
static struct machine *m; /* which of them it is */

/* The second one's tape. */
static uint8_t typed[] = "typed";
static struct recording_event events[] = {
    {.kind = RECORDING_INPUT, .ns = 5000, .bytes = typed, .len = 5},
    {.kind = RECORDING_INPUT, .ns = 900000, .bytes = typed, .len = 5},
    {.kind = RECORDING_END, .ns = 1ull << 40, .how = RECORDING_QUIT},
};
static const struct recording rec = {
    .key = {.start_ns = 7, .state = 8}, .events = events, .count = 3, .ended = true};
static struct input_player player;

static void save(struct subject *of) {
    struct snapshot *s = snapshot_new();
    const uint8_t *bytes;

    HOLDS(!machine_save(of->m, s));
    machine_saved(of->m);
    bytes = snapshot_finish(s, &of->len);
    of->good = malloc(of->len);
    memcpy(of->good, bytes, of->len);
    snapshot_free(s);
}

static void tape_ends(void *arg, const struct recording_event *e) {
    machine_quit(m);
}

static void count(struct machine_config *cfg) {
    cfg->cpus = 1;
    cfg->counted = true;
    cfg->console_count = 0;
    machine_options_counted(&cfg->options);
    player = (struct input_player){
        .rec = &rec, .place = {.start_ns = 7, .state = 8}, .end = tape_ends};
    cfg->input = input_play(&player);
}

static void stop(void *arg) {
    machine_quit(m);
}

static void run_a_while(void) {
    struct os_timer timer = {0};

    HOLDS(!os_timer_open(&timer, machine_loop(m), stop, NULL));
    os_timer_set(&timer, os_monotonic_ns() + 2000000);
    machine_run(m);
    os_timer_close(&timer);
    m->quit = false;
}

static void create(struct subject *of) {
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
    cfg.notes = true;
    if (of == &subjects[1])
        count(&cfg);
    HOLDS(!machine_create(&cfg, &of->m, why, sizeof(why)));
    HOLDS(!machine_boot(of->m, why, sizeof(why)));
    if (of == &subjects[0]) { /* so that there is something that was hot */
        m = of->m;
        run_a_while();
        machine_warm_note(m);
    }
    save(of);
}

static void run(void) {
    struct snapshot *s;

    while (machine_warm_up(machine_boot_cpu(m)))
        ;
    run_a_while();
    s = snapshot_new();
    HOLDS(!machine_save(m, s));
    machine_saved(m);
    snapshot_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};
    char why[256] = "";
    unsigned how = fuzz_get(&in, 1);
    struct subject *of = &subjects[how >> 1 & 1];
    struct snapshot *s;
    uint8_t *bytes;

    if (!of->m)
        create(of);
    m = of->m;
    bytes = malloc(of->len);
    memcpy(bytes, of->good, of->len);
    records_patch(bytes, of->len, &in, 3);
    if (!(how & 1))
        records_repair(bytes, of->len);
    s = snapshot_open(bytes, of->len, why, sizeof(why));
    if (s && !machine_warm_begin(m, s))
        snprintf(why, sizeof(why), "%s", snapshot_why(s));
    else if (s && !machine_restore(m, s, why, sizeof(why))) {
        if (!m->cfg.counted || input_place_fits(&player.place, &rec, machine_now_ns(m)))
            run();
    } else
        HOLDS(*why && !strchr(why, '\n'));
    snapshot_free(s);
    free(bytes);
    return 0;
}
