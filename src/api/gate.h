/*
 * The process between clients of the API and the machine (bivisor-api).
 *
 * A machine that is in its jail opens no file, and must not have others opened that
 * nobody has named: who breaks out of it would reach them all. So a process that is
 * forked before the jail passes on what each client and the machine say to each other. It
 * reads along: a client's request that names the file of a drive, or of a snapshot, is
 * remembered (named.h), and the machine, which comes to that request afterwards, can have
 * just this file opened, once.
 *
 * The machine accepts clients, so that nobody listens any more when it has ended, and
 * hands them over. They are looked at: only who has come to this very socket is a client.
 *
 * The process has a jail of its own (base/os_jail_gate.c), and ends with the machine's.
 */
#ifndef API_GATE_H
#define API_GATE_H

#include "block/block.h"
#include "control/control.h"

struct gate;

/* Listens at PATH; requests have bodies of BODY_MOST bytes. Before there are threads: it
 * forks. 0, or -errno with one sentence in WHY. */
int gate_open(const char *path, size_t body_most, struct gate **out, char *why,
              size_t why_size);
void gate_close(struct gate *g); /* G may be NULL */

/* The same for the clients of a control socket, which is not ours (control/control.h),
 * and who may name the file of a disc. */
int gate_open_control(enum control_speech speech, int listener, struct gate **out);

/* For the jail, and to be waited for: where clients come; and where descriptors are sent
 * and handed over. */
int gate_listener(const struct gate *g);
int gate_socket(const struct gate *g);
/* The next client, the caller's to close, or -errno: -EPIPE, the process has ended. */
int gate_accept(struct gate *g);
/* The machine's end of the client FD, which is taken over; or the same. */
int gate_pass(struct gate *g, int fd);

/* Before the jail: the drive ID is only read. What was said before FIRST does not hold
 * any more. */
bool gate_readonly(struct gate *g, const char *id, bool first);
/* From now on nobody is believed who says more of that. False: the process has ended. */
bool gate_settle(struct gate *g);

/* The file PATH, which a client has named for the drive ID: opened as that one's can be,
 * locked, two descriptors of it. 0, or -errno with one sentence in WHY. */
int gate_drive(struct gate *g, const char *id, const char *path, int fd[2],
               struct block_facts *facts, char *why, size_t why_size);
/* The same of a disc, for reading. */
int gate_disc(struct gate *g, const char *path, int fd[2], struct block_facts *facts,
              char *why, size_t why_size);
/* Two files for a snapshot's STATE and MEMORY, which a client has named; they get these
 * names at the end, when they are whole. One at a time. The same; and -errno. */
int gate_begin(struct gate *g, const char *state, const char *memory, int fd[2],
               char *why, size_t why_size);
int gate_end(struct gate *g, bool whole);

#endif
