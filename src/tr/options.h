/* The translator's switches and limits, each to be set with --bt. */
#ifndef TR_OPTIONS_H
#define TR_OPTIONS_H

#include "base/types.h"

#define TR_TU_MAX 64
#define TR_PATH_MAX 128

struct tr_options {
    bool anchors;  /* shadow entries found by place instead of address */
    bool groups;   /* one check for several accesses off the same base */
    bool count;    /* count the instructions that translated code executes */
    bool held;     /* save the host address of a group that is interrupted */
    bool borrow;   /* r14 and r15 in registers that a hot path does not use */
    bool liveness; /* do not keep status flags that nothing reads */
    bool stay;     /* go on in the cache after what changes the flow */
    bool predict;  /* hot paths follow returns and other indirect branches */
    bool unroll;   /* repeat short loops in their hot paths */
    unsigned hot;  /* executions after which a fragment becomes a hot path; 0: never */
    unsigned path; /* instructions in a hot path, 1..TR_PATH_MAX */
    unsigned tu_limit; /* instructions in a TU, 1..TR_TU_MAX */
};

#endif
