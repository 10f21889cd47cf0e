/*
 * bivisor as a job that a test starts, types to, watches and ends: at a terminal or in
 * pipes. Words in which the tests of user.c are written.
 *
 * A terminal is a pty with a leader: a child process that plays the shell. It owns the
 * session, starts bivisor as a job (a process group of its own), moves it to the
 * foreground when told ('f'), and reports every change of the job's state.
 */
#ifndef CLI_JOB_H
#define CLI_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <termios.h>

#define PATIENCE 120000 /* ms until something that should happen counts as missing */

/* What is started, for all runs. */
extern const char *bivisor, *guest, *engine;
extern const char *record;  /* a file, or NULL */
extern const char *more[4]; /* options of `bivisor run`, up to the first NULL */
extern int output;          /* instead of the terminal's, or -1 */
extern int failures;        /* verdicts that were not good */

struct run {
    pid_t pid;
    int to, from; /* the job's input and output: the pty's master, or two pipes */
    int errors;   /* its stderr, in a pipe run */
    pid_t leader; /* of a terminal run, else 0 */
    int control;  /* socket to the leader */
    int slave;    /* kept open, so that the settings can be looked at afterwards */
    struct termios before;
    size_t len;
    char out[1 << 18]; /* all that it wrote, and a 0 */
};

uint64_t now_ms(void);
void pause_ms(unsigned ms);

/* A line about the test NAME, and what R wrote when it is not good (R may be NULL). */
void verdict(const char *name, bool good, const struct run *r);

/* A job with the guest's command line APPEND, at a terminal of its own or in pipes. */
struct run *start_on_tty(bool foreground, const char *append);
/* IGNORE: a signal that is ignored from the start, or 0. */
struct run *start_on_pipes(const char *append, int ignore);
/* Whatever it does, that is the end of it; frees it. */
void end(struct run *r);

/* It writes TEXT, in patience; so often in all. */
bool expect(struct run *r, const char *text);
bool expect_times(struct run *r, const char *text, unsigned times);

/* Its input. */
bool send_bytes(struct run *r, const void *bytes, size_t len);
bool type(struct run *r, const char *text);

/* What becomes of it, in patience. */
bool exits_with(struct run *r, int code);
bool dies_of(struct run *r, int signo);
bool stops_by(struct run *r, int signo);
bool continues(struct run *r);

/* The terminal: its settings, and who has it. */
bool becomes_raw(const struct run *r);
bool restored(const struct run *r);
void foreground(struct run *r);
void background(struct run *r);

#endif
