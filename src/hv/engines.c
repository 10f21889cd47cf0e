/* The engines of the bare machine, behind the contract of engine/engine.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "bare/bare.h"
#include "hv/hv_int.h"
#include "interp/interp.h"
#include "soft/soft.h"

struct engine {
    struct interp *interp;
    struct soft soft; /* bt only */
    struct svm *svm;  /* svm only */
};

static int create_interp(struct vcpu *v, const struct engine_config *cfg,
                         struct engine **out, char *why, size_t why_size) {
    struct engine *e = calloc(1, sizeof(*e));

    snprintf(why, why_size, "out of memory");
    if (e)
        e->interp = interp_new(v);
    if (!e || !e->interp) {
        free(e);
        return -ENOMEM;
    }
    *out = e;
    return 0;
}

static void destroy_interp(struct engine *e) {
    interp_free(e->interp);
    free(e);
}

static enum exit_reason run_interp(struct engine *e) {
    return interp_run(e->interp);
}

static enum exit_reason step(struct engine *e) {
    return interp_step(e->interp, 1);
}

/* It looks at the events before each block. */
static void kick(struct engine *e) {
}

static void reset_interp(struct engine *e) {
    interp_flush(e->interp);
}

static void traces(struct engine *e, struct engine_trace out[MEM_TRACE_COUNT],
                   unsigned *count) {
    out[0] = (struct engine_trace){MEM_TRACE_CODE, interp_code_written, e->interp};
    *count = 1;
}

static const struct engine_ops interp_ops = {
    .name = "interp",
    .what = "interpreter: the reference",
    .create = create_interp,
    .destroy = destroy_interp,
    .run = run_interp,
    .step = step,
    .kick = kick,
    .reset = reset_interp,
    .traces = traces,
};

/* --- bt --- */

static void destroy_bt(struct engine *e) {
    bt_free(e->soft.bt);
    destroy_interp(e);
}

static int create_bt(struct vcpu *v, const struct engine_config *cfg, struct engine **out,
                     char *why, size_t why_size) {
    const struct hv_config *hv = ((const struct hv_engine_options *)cfg->options)->cfg;
    int rc = create_interp(v, cfg, out, why, why_size);
    struct bt *bt;

    if (rc)
        return rc;
    snprintf(
        why, why_size,
        "engine bt: there is not enough memory for the translator, whose cache takes "
        "%u MiB (bt=cache=N)",
        hv->bt.cache);
    rc = cfg->first ? bt_join(cfg->first->soft.bt, v, (*out)->interp, &bt)
                    : bt_new(v, (*out)->interp, &hv->bt, &bt);
    if (rc)
        destroy_interp(*out);
    else
        (*out)->soft = (struct soft){.v = v, .ip = (*out)->interp, .bt = bt};
    return rc;
}

static enum exit_reason run_bt(struct engine *e) {
    return soft_run(&e->soft);
}

static void kick_bt(struct engine *e) {
    bt_kick(e->soft.bt);
}

static void reset_bt(struct engine *e) {
    bt_flush(e->soft.bt);
    reset_interp(e);
}

static void traces_bt(struct engine *e, struct engine_trace out[MEM_TRACE_COUNT],
                      unsigned *count) {
    traces(e, out, count);
    out[(*count)++] = (struct engine_trace){MEM_TRACE_TC, bt_code_written, e->soft.bt};
}

static void stats_bt(struct engine *e,
                     void (*emit)(void *arg, const char *name, uint64_t value),
                     void *arg) {
    bt_stats(e->soft.bt, emit, arg);
}

static const struct engine_ops bt_ops = {
    .name = "bt",
    .what = "binary translation",
    .create = create_bt,
    .destroy = destroy_bt,
    .run = run_bt,
    .step = step,
    .kick = kick_bt,
    .reset = reset_bt,
    .traces = traces_bt,
    .stats = stats_bt,
};

/* --- svm; the interpreter stands by for what it leaves --- */

static void destroy_svm(struct engine *e) {
    svm_free(e->svm);
    destroy_interp(e);
}

static int create_svm(struct vcpu *v, const struct engine_config *cfg,
                      struct engine **out, char *why, size_t why_size) {
    const struct hv_engine_options *hv = cfg->options;
    const char *lacks = bare_svm_lacks(hv->host);
    int rc;

    if (lacks) {
        snprintf(why, why_size, "engine svm: %s", lacks);
        return -ENODEV;
    }
    rc = create_interp(v, cfg, out, why, why_size);
    if (rc)
        return rc;
    rc = svm_new(v, (*out)->interp, hv_svm_host(hv->host), &hv->cfg->svm, &(*out)->svm,
                 why, why_size);
    if (rc)
        destroy_interp(*out);
    return rc;
}

static enum exit_reason run_svm(struct engine *e) {
    return svm_run(e->svm);
}

static enum exit_reason step_svm(struct engine *e) {
    return svm_step(e->svm);
}

static int sync_svm(struct engine *e) {
    return svm_sync(e->svm);
}

static void reset_svm(struct engine *e) {
    svm_reset(e->svm);
}

static void map_changed_svm(struct engine *e) {
    svm_map_changed(e->svm);
}

static void stats_svm(struct engine *e,
                      void (*emit)(void *arg, const char *name, uint64_t value),
                      void *arg) {
    svm_stats(e->svm, emit, arg);
}

static const struct engine_ops svm_ops = {
    .name = "svm",
    .what = "hardware virtualization: AMD's SVM, nested paging",
    .create = create_svm,
    .destroy = destroy_svm,
    .run = run_svm,
    .step = step_svm,
    .kick = kick, /* an interrupt of the host's ends the guest's run */
    .sync = sync_svm,
    .reset = reset_svm,
    .traces = traces,
    .map_changed = map_changed_svm,
    .stats = stats_svm,
};

static const struct engine_ops *const engines[] = {&svm_ops, &bt_ops, &interp_ops};

void hv_engine_ports(const struct engine_ops *ops, struct engine *e, uint16_t first,
                     unsigned count, bool open) {
    if (ops == &svm_ops)
        svm_ports(e->svm, first, count, open);
}

void hv_engine_log_writes(const struct engine_ops *ops, struct engine *e) {
    if (ops == &svm_ops)
        svm_log_writes(e->svm, true);
}

void hv_engine_tell_written(const struct engine_ops *ops, struct engine *e) {
    if (ops == &svm_ops)
        svm_tell_written(e->svm);
}

const struct engine_ops *const *hv_engines(size_t *count) {
    *count = ARRAY_SIZE(engines);
    return engines;
}
