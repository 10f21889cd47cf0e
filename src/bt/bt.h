/*
 * The software VMM's translator: guest code to host code, on demand.
 *
 * Guest bytes are decoded into translation units (TU); each becomes a compiled code
 * fragment (CCF) in the translation cache (TC). What is not worth translating (16-bit
 * code, single-stepping, an instruction that hits a device) is executed by the
 * interpreter, one instruction at a time. docs/bt.md describes the whole.
 */
#ifndef BT_BT_H
#define BT_BT_H

#include "cpu/vcpu.h"

struct bt;
struct interp;

struct bt_options {
    bool chain;        /* patch exits into direct jumps */
    bool liveness;     /* do not keep status flags that nothing reads */
    unsigned tu_limit; /* instructions in a TU, 1..BT_TU_MAX */
};

#define BT_TU_MAX 64
#define BT_TU_DEFAULT 12

/* The defaults. */
struct bt_options bt_defaults(void);

/* 0 or -errno. V, and IP with it, must outlive it. Also becomes the owner of code traces
 * (the interpreter's are passed on to IP). */
int bt_new(struct vcpu *v, struct interp *ip, const struct bt_options *opt,
           struct bt **out);
void bt_free(struct bt *bt);

/* As interp_run(). */
enum exit_reason bt_run(struct bt *bt);

/* From any thread or a signal handler: translated code stops at its next poll. */
void bt_kick(struct bt *bt);

/* Drops every fragment. */
void bt_flush(struct bt *bt);

/* Owner of MEM_TRACE_CODE; ARG is the struct bt. */
void bt_code_written(void *arg, struct gpa at, unsigned len);

#endif
