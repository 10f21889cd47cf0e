/*
 * The HTTP API at a unix socket (--api PATH): Firecracker's resources, as its published
 * description of version 1.17 has them, and ours beside them under /bivisor
 * (docs/api.md, docs/openapi.json).
 *
 * It has two lives. Before there is a machine it takes what one is to be made of, turns
 * the loop on its own (api_build()), and tells it as arguments of `bivisor run`. When the
 * machine runs, it steers it by the commands of a table (control/control.h), on the
 * machine's loop. This room knows no machine.
 *
 * Who sends requests may be anybody who may connect to the socket, and who speaks for the
 * machine may be the guest: what comes from either side is checked.
 */
#ifndef API_API_H
#define API_API_H

#include "control/control.h"

struct api;
struct gate;
struct os_loop;

struct api_about {
    const char *id;      /* of the instance */
    const char *version; /* of the program */
    bool pci;            /* virtio is on PCI, where nothing else is said */
    size_t body_limit;   /* bytes of a request's body; 0: HTTP_BODY_MAX */
    size_t mmds_limit;   /* bytes of metadata; 0: as many as a request can have */
};

/* Listens at PATH. 0, or -errno with one sentence in WHY. Before the jail and before
 * there are threads. ABOUT's texts must stay. PATH NULL: nobody comes, and configurations
 * are taken from files. */
int api_open(const char *path, const struct api_about *about, struct api **out, char *why,
             size_t why_size);
void api_close(struct api *a); /* A may be NULL */
/* Where files are opened for the machine, and clients come (gate.h); NULL: nobody comes.
 */
struct gate *api_gate(const struct api *a);
/* What the machine is made of stands, and the jail is next. False after a message. */
bool api_settle(struct api *a);

/* --- before there is a machine --- */

/* Takes the machine that TEXT describes, as GET /vm/config shows one. 0, or -EINVAL with
 * one sentence in WHY. */
int api_configure(struct api *a, const char *text, char *why, size_t why_size);
/* What may be NULL has not been said. */
struct api_log {
    const char *path, *level, *module;
    bool show_level, show_origin;
};
/* As PUT /logger, PUT /metrics and PUT /mmds (of the text of an object): the same. */
int api_put_logger(struct api *a, const struct api_log *l, char *why, size_t why_size);
int api_put_metadata(struct api *a, const char *text, char *why, size_t why_size);
int api_put_metrics(struct api *a, const char *path, char *why, size_t why_size);
/* Answers until a machine is to be started: 0, or -errno. */
int api_build(struct api *a);
/* The snapshot that the machine is to go on from; NULL: it boots. */
const char *api_snapshot(const struct api *a);
const char *api_snapshot_memory(const struct api *a); /* its file of memory */
/* What `bivisor run`, or `bivisor restore SNAPSHOT`, is to be called with, ends with a
 * NULL; the caller's to free with api_words_free(). NULL: out of memory. */
char **api_words(const struct api *a, int *count);
void api_words_free(char **words);
/* What of its description a machine's snapshot is to have, as text, the caller's to
 * free(); NULL: nothing. */
char *api_kept(const struct api *a);
/* The machine goes on from a snapshot that has TEXT, or NULL: what its devices are called
 * is known again. 0, or -errno with one sentence. */
int api_restored(struct api *a, const char *text, char *why, size_t why_size);
/* After that, as api_words(): options in the place of the snapshot's. */
char **api_overrides(const struct api *a, int *count);
/* The options for copies of the machine, beside its own, ended with a NULL; A's. NULL:
 * clients may make none. */
char *const *api_copy_words(struct api *a);
/* That was in vain; who asked is told WHY. api_build() can be called again. */
void api_failed(struct api *a, const char *why);

/* --- with a machine --- */

struct net;
/* The metadata service is in those of NETS that are to have it, COUNT networks in the
 * order of the machine's words; before they are started. 0 or -ENOMEM. */
int api_serve_metadata(struct api *a, struct net *const *nets, unsigned count);

/* Where the machine's commands go, before api_start(). */
struct control_table *api_table(struct api *a);
/* 0 or -errno. */
int api_start(struct api *a, struct os_loop *loop);
/* The guest runs: who asked for that is told so. On the loop's thread. */
void api_running(struct api *a);
/* Before the loop goes. */
void api_stop(struct api *a);

#endif
