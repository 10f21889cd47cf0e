/*
 * A directory of the host's that the guest mounts: a file server. This room knows no
 * device and no machine: messages of the guest's come in, answers go out.
 *
 * The server is a process of its own, forked before there are threads and before the
 * jail, which lets nobody open files: it has a jail for that (base/os_jail_files.c), in
 * which it finds this directory and nothing else. What it has in common with us is some
 * memory with SHARE_SLOTS places for a message and its answer, and a socket to wake each
 * other by. It has nothing of the guest's memory.
 *
 * The server's rules are in share_int.h. Messages are served one after the other, in the
 * order in which they came.
 *
 * Locking: the board's, as with net/: the functions from share_begin() on are for whoever
 * has it, and the user is called with it held. Nothing here waits, but for share_close().
 */
#ifndef SHARE_SHARE_H
#define SHARE_SHARE_H

#include "base/jail.h"
#include "base/types.h"

struct os_loop;
struct share;

#define SHARE_SLOTS 32u
#define SHARE_MESSAGE ((512u << 10) + 4096u) /* bytes of a message, or of an answer */
#define SHARE_TAG 36u                        /* bytes of a name at most */

struct share_config {
    const char *tag; /* what the guest mounts it by */
    const char *dir;
    bool readonly;
    enum share_protocol { SHARE_9P, SHARE_FUSE } protocol;
    /* With SHARE_FUSE: for so many seconds the guest believes names and attributes; 0: as
     * long as is usual. If readonly too, it does not tell what it opens. */
    unsigned valid;
    enum jail_want jail;
};

#define SHARE_VALID_MAX 86400u

/* The device. */
struct share_user {
    /* The message of SLOT has been served: an answer of LEN bytes, 0: none is sent, or
     * the server is gone. SLOT is free afterwards. */
    void (*done)(void *arg, unsigned slot, const uint8_t *answer, uint32_t len);
    void (*more)(void *arg); /* places are free, after some answers */
    void *arg;
};

struct share_guard {
    void (*enter)(void *arg);
    void (*leave)(void *arg);
    void *arg;
};

/* 0, or -errno with one sentence in WHY. What CFG points to is not kept, but the tag. */
int share_open(const struct share_config *cfg, struct share **out, char *why,
               size_t why_size);
/* Waits until the server has done what it was told; S may be NULL. */
void share_close(struct share *s);
const char *share_tag(const struct share *s);
enum share_protocol share_protocol(const struct share *s);

void share_plug(struct share *s, const struct share_user *user);
/* 0 or -errno. Before the jail. */
int share_start(struct share *s, struct os_loop *loop, const struct share_guard *guard);
void share_stop(struct share *s);

/* A place for SHARE_MESSAGE bytes, until it is submitted; NULL: all are taken. */
uint8_t *share_begin(struct share *s, unsigned *slot);
/* It has LEN bytes; the answer may have ROOM. done() comes later, and never from here. */
void share_submit(struct share *s, unsigned slot, uint32_t len, uint32_t room);
/* It has none, and is free. */
void share_drop(struct share *s, unsigned slot);
/* The guest has begun anew: the server forgets what was open. */
void share_reset(struct share *s);

#endif
