/* The engines that this build has, behind one contract. */
#include <errno.h>
#include <stdlib.h>

#include "bt/bt.h"
#include "interp/interp.h"
#include "machine/machine.h"
#include "mem/mem.h"
#include "sem/sem.h"

struct engine {
    struct vcpu *v;
    struct interp *interp;
    struct bt *bt; /* bt only */
};

static int interp_create(struct vcpu *v, const struct engine_config *cfg,
                         struct engine **out, const char **why) {
    struct engine *e = calloc(1, sizeof(*e));
    struct mem_hooks *hooks = mem_hooks(v->mem);

    *why = "out of memory";
    if (!e)
        return -ENOMEM;
    e->v = v;
    e->interp = interp_new(v);
    if (!e->interp) {
        free(e);
        return -ENOMEM;
    }
    /* Stores to pages with decoded code are told to the interpreter. */
    hooks->on_write[__builtin_ctz(MEM_TRACE_CODE)] = interp_code_written;
    hooks->on_write_arg[__builtin_ctz(MEM_TRACE_CODE)] = e->interp;
    *out = e;
    return 0;
}

static void interp_destroy(struct engine *e) {
    interp_free(e->interp);
    free(e);
}

static enum exit_reason interp_enter(struct engine *e) {
    return interp_run(e->interp);
}

static void interp_kick(struct engine *e) {
    /* The interpreter looks at the event bits before each block. */
}

static void interp_reset(struct engine *e) {
    interp_flush(e->interp);
}

static const struct engine_ops interp_ops = {
    .name = "interp",
    .what = "interpreter: the reference, runs anywhere",
    .create = interp_create,
    .destroy = interp_destroy,
    .run = interp_enter,
    .kick = interp_kick,
    .reset = interp_reset,
};

static int translator_create(struct vcpu *v, const struct engine_config *cfg,
                             struct engine **out, const char **why) {
    int rc = interp_create(v, cfg, out, why);

    if (rc)
        return rc;
    rc = bt_new(v, (*out)->interp, cfg->bt, &(*out)->bt);
    if (rc) {
        interp_destroy(*out);
        *out = NULL;
        *why = "this host does not give us executable memory";
    }
    return rc;
}

static void translator_destroy(struct engine *e) {
    bt_free(e->bt);
    interp_destroy(e);
}

static enum exit_reason translator_enter(struct engine *e) {
    return bt_run(e->bt);
}

static void translator_kick(struct engine *e) {
    bt_kick(e->bt);
}

static void translator_reset(struct engine *e) {
    bt_flush(e->bt);
    interp_flush(e->interp);
}

static void translator_perf_map(struct engine *e, FILE *f) {
    bt_perf_map(e->bt, f);
}

static const struct engine_ops bt_ops = {
    .name = "bt",
    .what = "binary translation: software only, fast",
    .create = translator_create,
    .destroy = translator_destroy,
    .run = translator_enter,
    .kick = translator_kick,
    .reset = translator_reset,
    .perf_map = translator_perf_map,
};

static const struct engine_ops *const engines[] = {&bt_ops, &interp_ops};

const struct engine_ops *const *machine_engines(size_t *count) {
    *count = ARRAY_SIZE(engines);
    return engines;
}
