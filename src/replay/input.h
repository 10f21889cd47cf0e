/*
 * Where a counted run's console input comes from (struct machine_input): the terminal or
 * pipe, with a recording made of it; a recording; a file.
 */
#ifndef REPLAY_INPUT_H
#define REPLAY_INPUT_H

#include "machine/machine.h"
#include "replay/recording.h"
#include "snapshot/snapshot.h"

/* Which recording a run belongs to, and where in it the run is: what goes into its
 * snapshots, so that one who goes on from there finds the rest of its input. */
struct input_place {
    uint64_t start_ns, state;     /* as in the recording's key; 0: it belongs to none */
    uint64_t event;               /* the next one */
    uint64_t offset;              /* bytes of it that have been given */
    uint64_t out_len, out_digest; /* of the console's output */
    bool thawed;                  /* it was taken from a snapshot */
};

/* The record `tape`: what is read is taken where it is of the same recording. */
void input_place_state(struct input_place *p, struct snapshot *s);
/* False: REC has no such place at NS, or later. */
bool input_place_fits(const struct input_place *p, const struct recording *rec,
                      uint64_t ns);

/* A console, and what a recorder asks of it; both are given console.arg. */
struct input_source {
    struct machine_console console;
    bool (*dry)(void *arg); /* there will be no input any more */
};

/* Input from the console, written to a recording as it is taken. */
struct input_recorder {
    struct input_source source;
    struct recording_writer *out; /* NULL: it is not kept */
    struct input_place place;
};
struct machine_input input_record(struct input_recorder *r);

/* What RECORDING has, when it had it. */
struct input_player {
    const struct recording *rec;
    struct input_place place;
    /* It ends here: E says how, or is NULL when the guest takes less than it took. */
    void (*end)(void *arg, const struct recording_event *e);
    void *arg;
};
struct machine_input input_play(struct input_player *p);

/* All of a file, as fast as the guest takes it. */
struct input_text {
    const uint8_t *bytes;
    size_t len, at;
};
struct machine_input input_text(struct input_text *t);

#endif
