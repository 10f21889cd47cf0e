/*
 * Where a counted run's console input comes from (struct machine_input): the terminal or
 * pipe, with a recording made of it; a recording; a file.
 */
#ifndef REPLAY_INPUT_H
#define REPLAY_INPUT_H

#include "machine/machine.h"
#include "replay/recording.h"

/* A console, and what a recorder asks of it; both are given console.arg. */
struct input_source {
    struct machine_console console;
    bool (*dry)(void *arg); /* there will be no input any more */
};

/* Input from the console, written to a recording as it is taken. */
struct input_recorder {
    struct input_source source;
    struct recording_writer *out;
};
struct machine_input input_record(struct input_recorder *r);

/* What RECORDING has, when it had it. */
struct input_player {
    const struct recording *rec;
    size_t event;  /* the next one */
    size_t offset; /* bytes of it that have been given */
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
