/* A run that is recorded or replayed; see tape.h. */
#include "replay/tape.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"
#include "block/block.h"
#include "cpu/cpuid.h"
#include "replay/state.h"

/* --- what has to be the same --- */

/* What CPUID says, which follows the host's CPU. */
static uint64_t cpu_digest(const struct vcpu *v) {
    static const struct {
        uint32_t first, count, subleaves;
    } ranges[] = {{0, 0x20, 4}, {0x40000000, 2, 1}, {0x80000000, 0x20, 1}};
    uint64_t digest = 0;

    for (size_t n = 0; n < ARRAY_SIZE(ranges); n++) {
        for (uint32_t k = 0; k < ranges[n].count * ranges[n].subleaves; k++) {
            uint32_t leaf = ranges[n].first + k / ranges[n].subleaves;
            struct cpuid_regs r = cpuid_query(v, leaf, k % ranges[n].subleaves);

            digest = recording_digest(digest, &r, sizeof(r));
        }
    }
    return digest;
}

static uint64_t disks_digest(const struct machine_config *cfg) {
    uint64_t digest = 0;

    for (unsigned n = 0; n < cfg->disk_count; n++) {
        const struct machine_disk *d = &cfg->disks[n];
        const uint64_t looks[] = {d->kind, block_size(d->block),
                                  block_readonly(d->block)};

        digest = recording_digest(digest, looks, sizeof(looks));
        digest = recording_digest(digest, block_id(d->block), strlen(block_id(d->block)));
    }
    return digest;
}

/* Of what is on a disk: the beginning of each of its first 4,096 MiB, where partitions
 * and their file systems begin, and as many places of the rest. Not all of it: that would
 * take as long as the run. What cannot be read is so again. */
static uint64_t content_digest(struct block *b, uint64_t digest) {
    enum { LOOK = 4096, LOOKS = 4096, MIB = 1 << 20 };
    uint64_t size = block_size(b), near = (uint64_t)LOOKS * MIB;
    uint64_t stride = size > near ? (size - near) / LOOKS / MIB * MIB + MIB : MIB;
    uint8_t bytes[LOOK];

    for (uint64_t at = 0; at < size; at += at < near ? MIB : stride) {
        size_t len = size - at < LOOK ? (size_t)(size - at) : LOOK;

        memset(bytes, 0, sizeof(bytes));
        if (!block_look(b, at, bytes, len))
            digest = recording_digest(digest, bytes, len);
    }
    return digest;
}

static uint64_t disks_content(const struct machine_config *cfg) {
    uint64_t digest = 0;

    for (unsigned n = 0; n < cfg->disk_count; n++)
        digest = content_digest(cfg->disks[n].block, digest);
    return digest;
}

static struct recording_key key_of(const struct tape *t) {
    const struct machine_config *cfg = t->cfg;
    const char *append = cfg->boot.cmdline;

    return (struct recording_key){
        .start_ns = cfg->start_ns,
        .begin_ns = machine_now_ns(t->m),
        .memory = cfg->memory,
        .protocol = cfg->boot.protocol,
        .paravirt = cfg->paravirt,
        .no_pci = cfg->no_pci,
        .virtio = cfg->virtio,
        .rng = cfg->rng,
        .no_reboot = t->no_reboot,
        .append = recording_digest(0, append, strlen(append)),
        .disks = disks_digest(cfg),
        .content = disks_content(cfg),
        .cpu = cpu_digest(machine_vcpu(t->m, 0)),
        .state = state_digest(t->m),
    };
}

/* --- the console --- */

static struct input_place *place_of(struct tape *t) {
    return t->replay ? &t->player.place : &t->recorder.place;
}

/* What was shown before the run was taken back is not shown again. */
static size_t tx(void *arg, const uint8_t *bytes, size_t len) {
    struct tape *t = arg;
    struct input_place *p = place_of(t);
    uint64_t seen = t->out_shown > p->out_len ? t->out_shown - p->out_len : 0;

    p->out_len += len;
    p->out_digest = recording_digest(p->out_digest, bytes, len);
    if (seen < len) {
        t->console.tx(t->console.arg, bytes + seen, len - seen);
        t->out_shown = p->out_len;
    }
    return len; /* of a counted run all is taken */
}

static int flush(void *arg) {
    struct tape *t = arg;

    return t->console.flush(t->console.arg);
}

static void input_ends(void *arg, const struct recording_event *e) {
    struct tape *t = arg;

    t->cut = e;
    t->astray = !e;
    if (!e)
        log_error(
            "the replay is not what was recorded: at %llu ns the guest's serial port "
            "has no room for the input",
            (unsigned long long)machine_now_ns(t->m));
    machine_quit(t->m);
}

/* --- a run --- */

int tape_load(struct tape *t, const struct tape_order *order, struct machine_config *cfg,
              const struct input_source *source) {
    char why[512];
    int rc;

    *t = (struct tape){.record = order->record,
                       .replay = order->replay,
                       .no_reboot = order->no_reboot,
                       .cfg = cfg};
    if (!cfg->counted)
        return 0;
    t->console = source->console;
    cfg->console = (struct machine_console){.tx = tx, .flush = flush, .arg = t};
    cfg->start_ns = order->start_ns;
    if (!t->replay) {
        if (!order->frozen)
            cfg->start_ns = os_realtime_ns();
        t->recorder = (struct input_recorder){.source = *source};
        cfg->input = input_record(&t->recorder);
        return 0;
    }
    rc = recording_open(t->replay, &t->rec, why, sizeof(why));
    if (rc) {
        log_error("%s", why);
        return rc;
    }
    if (!t->rec.ended)
        log_warn("'%s' has no end: its run was killed, and is replayed as far as it goes",
                 t->replay);
    if (!order->frozen)
        cfg->start_ns = t->rec.key.start_ns;
    t->player = (struct input_player){
        .rec = &t->rec,
        .place = {.start_ns = t->rec.key.start_ns, .state = t->rec.key.state},
        .end = input_ends,
        .arg = t};
    cfg->input = input_play(&t->player);
    return 0;
}

static int start_recording(struct tape *t, const struct recording_key *key) {
    int rc = recording_begin(output_begin(t->file), key, &t->out);

    t->recorder.out = t->out;
    t->recorder.place.start_ns = key->start_ns;
    t->recorder.place.state = key->state;
    if (rc)
        log_error("cannot write the recording '%s': %s", t->record, strerror(-rc));
    return rc;
}

/* The snapshot that the run goes on from was made in the middle of the recording: what
 * memory and disks held at its beginning, and how CPUID began, is not known here. 0, or
 * -EINVAL after a message. */
static int enter_middle(const struct tape *t, struct recording_key *key) {
    key->begin_ns = t->rec.key.begin_ns;
    key->state = t->rec.key.state;
    key->content = t->rec.key.content;
    key->cpu = t->rec.key.cpu;
    if (input_place_fits(&t->player.place, &t->rec, machine_now_ns(t->m)))
        return 0;
    log_error("'%s' ends before the place where the snapshot was made", t->replay);
    return -EINVAL;
}

int tape_start(struct tape *t, struct machine *m) {
    struct recording_key key;
    char why[512];

    if (t->m || (!t->record && !t->replay))
        return 0;
    t->m = m;
    key = key_of(t);
    if (t->record)
        return start_recording(t, &key);
    if (t->player.place.thawed && enter_middle(t, &key))
        return -EINVAL;
    if (recording_fits(&t->rec, t->replay, &key, why, sizeof(why)))
        return 0;
    log_error("%s", why);
    return -EINVAL;
}

/* RAM and registers where the guest has ended the run by itself; 0 otherwise, and where
 * the translator does not keep dead status flags, which then differ in the frames of
 * exceptions. */
static uint64_t end_state(const struct tape *t, enum machine_end end) {
    if (end == MACHINE_QUIT || !machine_options_exact(&t->cfg->options))
        return 0;
    return state_digest(t->m);
}

static bool stop_recording(struct tape *t, enum machine_end end, int signal) {
    struct recording_event e = {
        .kind = RECORDING_END,
        .ns = machine_now_ns(t->m),
        .how = end != MACHINE_QUIT ? RECORDING_GUEST
               : signal            ? RECORDING_SIGNAL
                                   : RECORDING_QUIT,
        .signal = (uint64_t)signal,
        .out_len = t->recorder.place.out_len,
        .out_digest = t->recorder.place.out_digest,
        .state = end_state(t, end),
    };
    int rc, flushed;

    if (end != MACHINE_ERROR)
        recording_write_end(t->out, &e);
    rc = recording_end(t->out);
    t->out = NULL;
    flushed = output_end(t->file);
    rc = rc ? rc : flushed;
    if (rc)
        log_error("cannot write the recording '%s': %s", t->record, strerror(-rc));
    return !rc;
}

static bool stop_replay(const struct tape *t, enum machine_end end, int signal) {
    const struct recording_event *e = &t->rec.events[t->rec.count - 1];
    uint64_t now = machine_now_ns(t->m), state;

    if (t->astray)
        return false;
    if (end == MACHINE_ERROR || !t->rec.ended || (end == MACHINE_QUIT && !t->cut))
        return true; /* there is nothing to compare with, or somebody stopped us */
    if (now != e->ns || (e->how == RECORDING_GUEST) != (end != MACHINE_QUIT)) {
        log_error("the replay is not what was recorded: it ended at %llu ns, and the "
                  "recording at %llu ns",
                  (unsigned long long)now, (unsigned long long)e->ns);
        return false;
    }
    if (t->player.place.out_len != e->out_len ||
        t->player.place.out_digest != e->out_digest) {
        log_error(
            "the replay is not what was recorded: its console output is another one");
        return false;
    }
    state = end_state(t, end);
    if (!state || !e->state || state == e->state)
        return true;
    log_error("the replay is not what was recorded: memory or registers at its end are "
              "other ones");
    return false;
}

bool tape_stop(struct tape *t, enum machine_end end, int signal) {
    if (t->out)
        return stop_recording(t, end, signal);
    return !t->replay || !t->m || stop_replay(t, end, signal);
}

int tape_signal(const struct tape *t) {
    return t->cut ? (int)t->cut->signal : 0;
}

void tape_unload(struct tape *t) {
    if (t->out)
        recording_end(t->out);
    recording_free(&t->rec);
}
