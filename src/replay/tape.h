/*
 * A run that is recorded, or is the replay of a recording: ties the console, the
 * recording and the machine together. A counted run that is neither, which goes on from a
 * snapshot of such a one, takes its input as one that is recorded. With any other it does
 * nothing.
 */
#ifndef REPLAY_TAPE_H
#define REPLAY_TAPE_H

#include "base/output.h"
#include "replay/input.h"

struct tape {
    const char *record, *replay; /* files; at most one */
    const struct machine_config *cfg;
    bool no_reboot;
    struct machine *m;
    struct machine_console console; /* the real one */
    struct input_recorder recorder;
    struct input_player player;
    struct recording rec;
    struct output *file; /* what is recorded goes there */
    struct recording_writer *out;
    uint64_t out_shown;                /* of the console's output */
    const struct recording_event *cut; /* replay: where the user or a signal ended it */
    bool astray;                       /* replay: it has been told that it went wrong */
};

/* What is wanted of it. */
struct tape_order {
    const char *record, *replay; /* files, or NULL; at most one */
    bool no_reboot;              /* the run ends where the guest would reboot */
    bool frozen;                 /* it goes on from a counted run's snapshot, of */
    uint64_t start_ns;           /* this start */
};

/* Takes the place of SOURCE's console in CFG, a counted run's configuration, which must
 * outlive the tape. 0, or -errno after a message. */
int tape_load(struct tape *t, const struct tape_order *order, struct machine_config *cfg,
              const struct input_source *source);
/* M is about to run its first life; what is recorded has its FILE. 0, or -errno after a
 * message. */
int tape_start(struct tape *t, struct machine *m);
/* The run has ended, by SIGNAL if that is not 0. True: as it should be. */
bool tape_stop(struct tape *t, enum machine_end end, int signal);
/* The signal that ended the run that was replayed, or 0. */
int tape_signal(const struct tape *t);
void tape_unload(struct tape *t);

#endif
