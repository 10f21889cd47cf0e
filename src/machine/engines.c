/* The engines that this build has, behind one contract. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "bt/bt.h"
#include "direct/direct.h"
#include "interp/interp.h"
#include "kvm/kvm.h"
#include "machine/machine.h"
#include "mem/mem.h"
#include "sem/sem.h"
#include "soft/soft.h"

struct engine {
    struct vcpu *v;
    struct interp *interp;
    struct bt *bt; /* bt only */
    struct soft soft;
    struct kvm *kvm; /* kvm only */
    bool has_lapic;
};

static int interp_create(struct vcpu *v, const struct engine_config *cfg,
                         struct engine **out, char *why, size_t why_size) {
    struct engine *e = calloc(1, sizeof(*e));

    snprintf(why, why_size, "out of memory");
    if (!e)
        return -ENOMEM;
    e->v = v;
    e->interp = interp_new(v);
    if (!e->interp) {
        free(e);
        return -ENOMEM;
    }
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

static enum exit_reason interp_step_once(struct engine *e) {
    return interp_step(e->interp, 1);
}

static void interp_kick(struct engine *e) {
    /* The interpreter looks at the event bits before each block. */
}

static void interp_reset(struct engine *e) {
    interp_flush(e->interp);
}

static void interp_traces(struct engine *e, struct engine_trace out[MEM_TRACE_COUNT],
                          unsigned *count) {
    out[0] = (struct engine_trace){MEM_TRACE_CODE, interp_code_written, e->interp};
    *count = 1;
}

static const struct engine_ops interp_ops = {
    .name = "interp",
    .what = "interpreter: the reference, runs anywhere",
    .counts = true,
    .create = interp_create,
    .destroy = interp_destroy,
    .run = interp_enter,
    .step = interp_step_once,
    .kick = interp_kick,
    .reset = interp_reset,
    .traces = interp_traces,
};

/* One sentence for what bt_new() returned; and the -errno for what the host does not have
 * rather than what the user may not do. */
static int cannot_translate(int rc, const struct bt_options *opt, char *why,
                            size_t why_size) {
    if (rc == -EACCES || rc == -EPERM) {
        snprintf(why, why_size,
                 "this host does not give the translator executable memory (%s)",
                 strerror(-rc));
        return -ENODEV;
    }
    if (rc == -ENOMEM)
        snprintf(why, why_size,
                 "there is not enough memory for the translator; its cache takes %u MiB "
                 "(--bt cache=N)",
                 opt->cache);
    else
        snprintf(why, why_size, "the translator cannot start: %s", strerror(-rc));
    return rc;
}

static int direct_create(struct vcpu *v, const struct engine_config *cfg,
                         struct engine *e, char *why, size_t why_size) {
    const struct direct_config direct = {
        .pool = cfg->cells,
        .mode = (enum direct_mode)cfg->direct,
        .options = cfg->direct_options,
        .first = cfg->first ? cfg->first->soft.direct : NULL,
    };

    snprintf(why, why_size, "out of memory");
    return cfg->cells ? direct_new(v, &direct, &e->soft.direct) : 0;
}

static void translator_destroy(struct engine *e) {
    direct_free(e->soft.direct);
    bt_free(e->bt);
    interp_destroy(e);
}

static int translator_create(struct vcpu *v, const struct engine_config *cfg,
                             struct engine **out, char *why, size_t why_size) {
    int rc = interp_create(v, cfg, out, why, why_size);

    if (rc)
        return rc;
    rc = cfg->first ? bt_join(cfg->first->bt, v, (*out)->interp, &(*out)->bt)
                    : bt_new(v, (*out)->interp, cfg->options, &(*out)->bt);
    (*out)->soft = (struct soft){.v = v, .ip = (*out)->interp, .bt = (*out)->bt};
    if (!rc && cfg->notes)
        rc = bt_recent_begin((*out)->bt);
    if (rc) {
        bt_free((*out)->bt);
        interp_destroy(*out);
        *out = NULL;
        return cannot_translate(rc, cfg->options, why, why_size);
    }
    rc = direct_create(v, cfg, *out, why, why_size);
    if (rc) {
        translator_destroy(*out);
        *out = NULL;
    }
    return rc;
}

static enum exit_reason translator_enter(struct engine *e) {
    enum exit_reason reason = soft_run(&e->soft);

    if (reason == EXIT_error && e->soft.error)
        log_error("engine bt: this thread cannot run translated code: %s",
                  strerror(-e->soft.error));
    return reason;
}

static void translator_kick(struct engine *e) {
    bt_kick(e->bt);
    if (e->soft.direct)
        direct_kick(e->soft.direct);
}

static int translator_stops_changed(struct engine *e) {
    bt_stops_changed(e->bt);
    if (e->soft.direct)
        direct_stops_changed(e->soft.direct);
    return 0;
}

static void translator_reset(struct engine *e) {
    bt_flush(e->bt);
    interp_flush(e->interp);
    if (e->soft.direct)
        direct_reset(e->soft.direct);
}

static void translator_traces(struct engine *e, struct engine_trace out[MEM_TRACE_COUNT],
                              unsigned *count) {
    out[0] = (struct engine_trace){MEM_TRACE_CODE, interp_code_written, e->interp};
    out[1] = (struct engine_trace){MEM_TRACE_TC, bt_code_written, e->bt};
    out[2] = (struct engine_trace){MEM_TRACE_DIRECT, direct_code_written, e->soft.direct};
    *count = e->soft.direct ? 3 : 2;
}

static int translator_list(struct engine *e, uint64_t from, uint32_t len,
                           void (*line)(void *arg, const char *text), void *arg) {
    const struct bt_listing out = {.line = line, .arg = arg};
    uint64_t rip = e->v->rip;
    int rc;

    e->v->rip = from;
    rc = bt_list(e->bt, from, len, &out);
    e->v->rip = rip;
    return rc;
}

static void translator_retune(struct engine *e, const void *options) {
    bt_set_options(e->bt, options);
}

static void translator_perf_map(struct engine *e, FILE *f) {
    bt_perf_map(e->bt, f);
}

static void translator_stats(struct engine *e,
                             void (*emit)(void *arg, const char *name, uint64_t value),
                             void *arg) {
    bt_stats(e->bt, emit, arg);
    if (e->soft.direct)
        direct_stats(e->soft.direct, emit, arg);
}

static void translator_warm_note(struct engine *e) {
    bt_warm_note(e->bt);
}

static void translator_warm_state(struct engine *e, struct snapshot *s) {
    bt_warm_state(e->bt, s);
}

/* What was hot is ready: it is time for the rest. */
static bool translator_warm_up(struct engine *e) {
    bool more = bt_warm_up(e->bt);

    if (!more)
        soft_cool(&e->soft, 0);
    return more;
}

static void translator_cool(struct engine *e) {
    soft_cool(&e->soft, bt_cold(e->bt));
}

static const struct engine_ops bt_ops = {
    .name = "bt",
    .what = "binary translation: software only, fast",
    .counts = true,
    .options = &bt_option_set,
    .create = translator_create,
    .destroy = translator_destroy,
    .run = translator_enter,
    .step = interp_step_once,
    .kick = translator_kick,
    .warm_note = translator_warm_note,
    .warm_state = translator_warm_state,
    .warm_up = translator_warm_up,
    .cool = translator_cool,
    .reset = translator_reset,
    .stops_changed = translator_stops_changed,
    .traces = translator_traces,
    .perf_map = translator_perf_map,
    .stats = translator_stats,
    .list = translator_list,
    .retune = translator_retune,
};

/* --- KVM; the interpreter stands by for what it cannot run --- */

static bool kvm_is_slow(char *why, size_t why_size) {
    struct kvm_probe p;

    kvm_probe(&p);
    kvm_probe_text(&p, why, why_size);
    return p.verdict != KVM_FAST;
}

static int hardware_create(struct vcpu *v, const struct engine_config *cfg,
                           struct engine **out, char *why, size_t why_size) {
    const struct kvm_config *opt = cfg->options;
    int rc;

    if (cfg->only_if_fast && !cfg->first && kvm_is_slow(why, why_size))
        return -ENODEV;
    rc = interp_create(v, cfg, out, why, why_size);
    if (rc)
        return rc;
    (*out)->has_lapic = opt->kernel_lapic;
    rc = kvm_new(v, (*out)->interp, opt, cfg->first ? cfg->first->kvm : NULL,
                 &(*out)->kvm, why, why_size);
    if (rc) {
        interp_destroy(*out);
        *out = NULL;
    }
    return rc;
}

static void hardware_destroy(struct engine *e) {
    kvm_free(e->kvm);
    interp_destroy(e);
}

static enum exit_reason hardware_enter(struct engine *e) {
    return kvm_enter(e->kvm);
}

static enum exit_reason hardware_step(struct engine *e) {
    return kvm_step(e->kvm);
}

static int hardware_sync(struct engine *e) {
    return kvm_sync(e->kvm);
}

static void hardware_kick(struct engine *e) {
    kvm_kick(e->kvm);
}

static int hardware_stops_changed(struct engine *e) {
    return kvm_stops_changed(e->kvm);
}

static void hardware_reset(struct engine *e) {
    kvm_reset(e->kvm);
}

static void hardware_map_changed(struct engine *e) {
    kvm_map_changed(e->kvm);
}

static int hardware_tell_written(struct engine *e) {
    return kvm_tell_written(e->kvm);
}

static void hardware_stats(struct engine *e,
                           void (*emit)(void *arg, const char *name, uint64_t value),
                           void *arg) {
    kvm_stats(e->kvm, emit, arg);
}

static bool hardware_has_lapic(const struct engine *e) {
    return e->has_lapic;
}

static bool hardware_msi(struct engine *e, uint64_t addr, uint32_t data) {
    return kvm_msi(e->kvm, addr, data);
}

static const struct engine_ops kvm_ops = {
    .name = "kvm",
    .what = "hardware virtualization, through Linux's KVM",
    .options = &kvm_option_set,
    .create = hardware_create,
    .destroy = hardware_destroy,
    .run = hardware_enter,
    .step = hardware_step,
    .kick = hardware_kick,
    .sync = hardware_sync,
    .reset = hardware_reset,
    .stops_changed = hardware_stops_changed,
    .traces = interp_traces,
    .map_changed = hardware_map_changed,
    .tell_written = hardware_tell_written,
    .stats = hardware_stats,
    .ioctls = kvm_ioctls,
    .device_ioctls = kvm_device_ioctls,
    .has_lapic = hardware_has_lapic,
    .msi = hardware_msi,
};

static const struct engine_ops *const engines[] = {&kvm_ops, &bt_ops, &interp_ops};
_Static_assert(ARRAY_SIZE(engines) <= MACHINE_ENGINES, "each has its options");

const struct engine_ops *const *machine_engines(size_t *count) {
    *count = ARRAY_SIZE(engines);
    return engines;
}
