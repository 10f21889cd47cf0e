/* Asking a running machine at its control socket: the client's side of control/. What it
 * answers may be the guest's, and is checked before it is believed. */
#ifndef CTL_ASK_H
#define CTL_ASK_H

#include "base/types.h"

struct cJSON;

/* A machine that is to be asked: its name, or the path of its control socket. */
struct ask_machine {
    const char *name; /* NULL: it has none that we know */
    char path[108];
};

/* Takes `NAME` or `--control PATH` from the front of ARGV; how many words that were, or
 * -1 after a message. */
int ask_take_machine(const char *command, int argc, char **argv, struct ask_machine *m);
/* A connected socket, whose reads wait for at most SECONDS (0: for ever); or -1 after a
 * message. What is left of a dead machine is removed. */
int ask_connect(const struct ask_machine *m, unsigned seconds);
/* The same without messages: -errno; -ECONNREFUSED: nobody listens. */
int ask_try(const char *path, unsigned seconds);
/* The answer to one line: an object, the caller's to delete; NULL after a message, also
 * when the machine refuses. */
struct cJSON *ask(int fd, const char *request);
/* The same over a connection to M that is made for it. */
struct cJSON *ask_once(const struct ask_machine *m, const char *request);
/* The same for what may take long: on a terminal it shows how far a snapshot of M is,
 * which the machine is asked for meanwhile. */
struct cJSON *ask_long(const struct ask_machine *m, const char *request);
/* The next answer, where one is to come; NULL without a message: there is none. */
struct cJSON *ask_hear(int fd);
/* NULL without a message; errno is EAGAIN when it took too long. */
struct cJSON *ask_quietly(int fd, const char *request);
/* ANSWER, which is taken over, if it says that it was done; else NULL after a message. */
struct cJSON *ask_believe(struct cJSON *answer);
/* The process that listens at FD's other side; -1: who knows. */
int ask_process(int fd);

#endif
