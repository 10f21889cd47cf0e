/*
 * What the vCPUs of a machine do to each other, and the locks that they share.
 *
 * A vCPU is IN its engine, which executes the guest and uses what was derived from guest
 * state (shadow, decoded and translated code), or it is OUT: not started, asleep, between
 * two runs of the engine, or waiting for a lock or an answer in the middle of something.
 * Who finds it OUT may TAKE it, so that it cannot go in, and do to what was derived
 * whatever its own thread could do. So a vCPU that waits has served everybody without
 * being woken.
 *
 *   call    a function is run on a vCPU's behalf while it is at a quiet place, and the
 *           caller waits: by the caller itself when it is OUT, else by its own thread at
 *           the next place where its engine asks vcpu_serve(): an instruction boundary
 *   action  a function is run by the vCPU's own thread between two runs of its engine,
 *           before its next guest instruction, when all of the guest's state is in
 *           struct vcpu. Nobody waits
 *   stop    all other vCPUs are OUT, and stay so until go
 *
 * What a call may do: change what was derived from guest state, not guest state itself,
 * and no vector state. It may come while its vCPU waits in the middle of an instruction:
 * who has called vcpu_lock(), vcpu_call() or vcpu_stop() looks up anew what a call can
 * take away (shadow entries, fragments, decoded blocks). Until then, what a vCPU has
 * found stays found: one that is IN is left alone between two quiet places.
 *
 * State is published like this. Whoever goes in changes OUT to IN by one locked
 * instruction, and then looks whether there is a stop; whoever goes out stores OUT, and
 * then looks at the list of calls. Who stops sets the mark, then looks at the states; who
 * calls adds to the list, then looks at the state. All four are locked instructions or
 * are followed by a fence, so that of two who meet one sees the other.
 *
 * Locks have ranks, in one list: who holds one takes those of higher rank only, or its
 * own once more. Who waits for one is OUT, and takes it when it is in again: a lock is
 * never held by somebody who cannot go on because of a stop. Other threads (the event
 * loop's) may call, stop, and take locks too; they are nobody's vCPU, and are not waited
 * for.
 *
 * A call takes no lock, calls nobody and does not stop: its caller may hold anything.
 *
 * Everything may be done while vector state is live. Not here: threads, and how an engine
 * is made to come back (vcpu_group.kick, which machine/ installs).
 */
#ifndef CPU_SMP_H
#define CPU_SMP_H

#include "cpu/vcpu.h"

#define VCPU_GROUP_MAX 64

/* The locks, lowest rank first. The board's (machine/board.h) is a mutex of its own, of a
 * rank between SPLIT and CODE: nobody who stops the others takes it. */
enum vcpu_rank {
    VCPU_LOCK_SPLIT, /* locked accesses that no single instruction of the host's does */
    VCPU_LOCK_CODE,  /* page traces, and what is derived from guest code: translation,
                        decoding, links, and stores to pages that have traces */
    VCPU_LOCK_STOP,  /* whoever stops the others has it */
    VCPU_LOCK_COUNT
};

struct vcpu_lock {
    uint32_t word;     /* 0 free, 1 held, 2 held and waited for */
    unsigned depth;    /* the holder's */
    const void *owner; /* a thread's token, NULL: nobody */
};

struct vcpu_request;

/* A function for a vCPU's own thread. The caller's, until it has run. */
struct vcpu_action {
    void (*fn)(struct vcpu *v, void *arg);
    void *arg;
    struct vcpu_action *next;
    uint32_t queued;
};

/* A vCPU's part in its group; struct vcpu points to it. */
struct vcpu_smp {
    uint32_t state;    /* what waiters sleep by */
    uint32_t sleepers; /* how many do */
    uint32_t entering; /* its thread wants to go in: it is not taken again */
    unsigned index;
    struct vcpu_group *group;
    struct vcpu *v;
    struct interp *interp;       /* its interpreter, if there is one: theirs to know */
    struct vcpu_request *calls;  /* the last one first */
    struct vcpu_action *actions; /* the last one first */
};

struct vcpu_group {
    unsigned count;
    bool splits;       /* the host executes locked accesses that cross a line as it does
                          others (os_split_locks()): nobody need be stopped for them */
    bool looks;        /* the host has a CPU for each: who waits for a lock may look for a
                          while before it sleeps */
    uint32_t stopping; /* there is a stop; what those who want to go in sleep by */
    const void *stopper; /* its thread's token */
    void (*kick)(void *arg, struct vcpu *v, uint32_t event);
    void *kick_arg;
    struct vcpu_lock lock[VCPU_LOCK_COUNT];
    struct vcpu_smp smp[VCPU_GROUP_MAX];
};

/* An empty group at G, which is all zero. KICK makes V look at V->events, from whichever
 * thread: at VCPU_EVENT_CALL its engine is to, at VCPU_EVENT_ACTION its thread, too, if
 * it sleeps. NULL: V looks often enough. */
void vcpu_group_init(struct vcpu_group *g,
                     void (*kick)(void *arg, struct vcpu *v, uint32_t event), void *arg);
/* V becomes a member, OUT. Before any thread runs. VCPU_GROUP_MAX at most. */
void vcpu_group_add(struct vcpu_group *g, struct vcpu *v);

/* --- on the vCPU's own thread --- */

/* In, before its engine runs; out, when it has come back. A vCPU without a group is alone
 * and none of this does anything. */
void vcpu_enter(struct vcpu *v);
void vcpu_leave(struct vcpu *v);

/* At a quiet place of the engine, after VCPU_EVENT_CALL: answers calls, and stands still
 * while there is a stop. The event is cleared. */
void vcpu_serve(struct vcpu *v);
/* Between two runs of the engine, after VCPU_EVENT_ACTION. */
void vcpu_act(struct vcpu *v);

/* Around a wait in the middle of something (the host's, a lock that is none of these):
 * out, if this thread's vCPU is in, and back. */
bool vcpu_pause(void);
void vcpu_resume(bool paused);

/* The vCPU that this thread has taken in, also while it waits there; else NULL. */
struct vcpu *vcpu_current(void);

/* --- on any thread --- */

void vcpu_call(struct vcpu *v, void (*fn)(struct vcpu *v, void *arg), void *arg);
/* Adds A, unless it waits already. Async-signal-safe. */
void vcpu_post(struct vcpu *v, struct vcpu_action *a);

/* All but the vCPU whose thread this is are out until vcpu_go(). May be nested. */
void vcpu_stop(struct vcpu_group *g);
void vcpu_go(struct vcpu_group *g);

/* G may be NULL: there is nobody else. */
void vcpu_lock(struct vcpu_group *g, enum vcpu_rank rank);
void vcpu_unlock(struct vcpu_group *g, enum vcpu_rank rank);
bool vcpu_holds(const struct vcpu_group *g, enum vcpu_rank rank);

/* Of V; NULL: it is alone. */
static inline struct vcpu_group *vcpu_group_of(const struct vcpu *v) {
    return v->member ? v->member->group : NULL;
}

/* Are there others who execute the guest at the same time? */
static inline bool vcpu_has_others(const struct vcpu *v) {
    return v->member && v->member->group->count > 1;
}

#endif
