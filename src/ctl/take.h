/* The command `snapshot` of the control socket. */
#ifndef CTL_TAKE_H
#define CTL_TAKE_H

#include "base/os_loop.h"
#include "control/control.h"
#include "ctl/chain.h"
#include "ctl/freeze.h"
#include "ctl/snapshots.h"

/* A snapshot, that others can have the changes to. */
struct take_base {
    char path[FREEZE_PATH];   /* in the directory of snapshots, or from the root */
    char memory[FREEZE_PATH]; /* its file of memory; empty: called as it, and .ram */
    uint8_t id[FREEZE_ID];
};

/* Snapshots that follow each other. */
struct take_line {
    uint64_t *since;                  /* by page: written to since the last one */
    unsigned bases;                   /* 0: what has changed is not known */
    struct take_base base[CHAIN_MAX]; /* the last snapshot, its base, its base's... */
};

struct gate;

struct take_job {
    struct control_request *r; /* NULL: none is made */
    struct take_line *line;
    bool incremental, quit, packed;
    bool later;   /* R waits */
    bool packing; /* all is written, but for that */
    bool held;    /* the machine stands until then, to end */
    bool stands;  /* the machine does, until the end */
    bool started; /* it has files */
    bool listed;  /* only TODO is written in this pass, else all */
    char name[SNAPSHOTS_NAME];
    bool anywhere; /* the files are these two instead, from the root */
    char state[FREEZE_PATH], memory[FREEZE_PATH];
    char named[2][FREEZE_PATH]; /* as the client has named them */
    char why[512];              /* its files cannot be made; empty: they can */
    int fd[2];
    uint64_t at; /* bytes of memory; pages, in a pass over TODO */
    uint64_t start_ns;
    unsigned passes;
};

struct take {
    struct machine *m;
    struct os_loop *loop;
    struct freeze *freeze;
    struct snapshots *files; /* NULL: nobody said where */
    struct gate *gate;       /* NULL: and no client of the API may say so */
    char here[FREEZE_PATH];  /* the directory that their paths are seen from */
    struct os_task task;
    struct os_watch watch; /* for the end of the packing */
    uint8_t id[FREEZE_ID]; /* of what is being packed */
    struct take_job job;
    uint64_t *todo;          /* by page: to be written in this pass; NULL: nobody tells */
    struct take_line kept;   /* the user's snapshots */
    struct take_line copies; /* those of `bivisor fork`: a whole one and what is since */
};

/* What is known from the beginning: the run goes on from C, or NULL. Before the first
 * life. */
void take_from(struct take *t, const struct chain *c);
/* T, which has its members from M to GATE, must stay as long as the table is used. */
void take_add(struct take *t, struct control_table *table);
/* While the loop does not run: what is being made is thrown away. */
void take_end(struct take *t);

#endif
