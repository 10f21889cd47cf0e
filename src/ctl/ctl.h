/* Commands of the command line. Each takes its own arguments and returns the exit status.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "base/types.h"

enum ctl_status {
    CTL_OK = 0,
    CTL_HOST_FAILURE = 1,
    CTL_USAGE = 2,
    CTL_TRIPLE_FAULT = 3,
};

/* The status for -errno: CTL_USAGE where another file or option would do, else
 * CTL_HOST_FAILURE. */
int ctl_status_of(int rc);

/* The whole program: finds the command in ARGV[1] and runs it. */
int ctl_main(int argc, char **argv);

int ctl_cmd_run(int argc, char **argv);
int ctl_cmd_exec(int argc, char **argv);
int ctl_cmd_firecracker(int argc, char **argv);
int ctl_cmd_screenshot(int argc, char **argv);
int ctl_cmd_do(int argc, char **argv);
int ctl_cmd_cp(int argc, char **argv);
int ctl_cmd_agent(int argc, char **argv);
int ctl_cmd_ps(int argc, char **argv);
int ctl_cmd_stop(int argc, char **argv);
int ctl_cmd_kill(int argc, char **argv);
int ctl_cmd_pause(int argc, char **argv);
int ctl_cmd_resume(int argc, char **argv);
int ctl_cmd_reset(int argc, char **argv);
int ctl_cmd_quota(int argc, char **argv);
int ctl_cmd_limit(int argc, char **argv);
int ctl_cmd_forward(int argc, char **argv);
int ctl_cmd_snapshot(int argc, char **argv);
int ctl_cmd_fork(int argc, char **argv);
int ctl_cmd_stats(int argc, char **argv);
int ctl_cmd_attach(int argc, char **argv);
int ctl_cmd_qemu(int argc, char **argv);
int ctl_cmd_translate(int argc, char **argv);
int ctl_cmd_check(int argc, char **argv);
int ctl_cmd_lockstep(int argc, char **argv);
int ctl_cmd_restore(int argc, char **argv);
int ctl_cmd_compare(int argc, char **argv);

struct api;
struct chain;
struct snapshot;

/* What a run goes on from: a snapshot's state, to be read once, and the files of its
 * memory (ctl/chain.h). */
struct ctl_frozen {
    const char *path;     /* for messages */
    const char *api;      /* what the API said of it; NULL: nothing */
    const uint8_t *bytes; /* what STATE is made of, for who reads it more than once */
    size_t len;
    struct snapshot *state;
    struct chain *chain;
    bool counted;      /* it counted time by instructions, from */
    uint64_t start_ns; /* this date on */
    int copy; /* of a copy: where what has changed since comes from (ctl/copy.h); or -1 */
};

struct forker_plan;
struct run_options;

/* A run for somebody else than the user of `bivisor run`. */
struct ctl_front {
    bool qemu; /* it stands in for QEMU: its statuses */
    /* All is open, and the guest is about to run. False after a message. */
    bool (*ready)(void *arg); /* NULL: nothing is to be done */
    void *arg;
    bool daemonize; /* go on in the background */
    bool paused;    /* the guest waits until somebody resumes it */
    /* What goes on from a snapshot when it is no `bivisor run`; NULL: that. */
    int (*lockstep)(int argc, char **argv, const struct ctl_front *front);
    struct api *api;                 /* api/api.h; who built the machine, or NULL */
    const struct ctl_frozen *frozen; /* NULL: it boots */
    /* A copy: of a machine with these options, whatever its snapshot says; or NULL. */
    const struct run_options *of;
    /* How clients of its API make copies (ctl/forker.h); NULL: they cannot. */
    void (*copies)(const struct forker_plan *plan, int socket, char *const *names,
                   bool *runs, char *const *apis, int count);
};

/* `bivisor run` with a machine; FRONT may be NULL. */
int ctl_run(int argc, char **argv, const struct ctl_front *front);

#define CTL_VERSION "0.1.0"

#endif
