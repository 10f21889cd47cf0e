/* What a translator consists of, and how it comes and goes. */
#include <errno.h>
#include <stdlib.h>

#include "bt/bt_int.h"

/* Tables and pages that emitted code names, and the cache. */
static int allocate(struct bt *bt) {
    struct tr_env *env = &bt->env;
    int rc = os_code_map((size_t)bt->opt.cache << 20, &env->code);

    if (rc)
        return rc;
    rc = os_poll_page(&env->poll_page);
    if (!rc && bt->v->counted)
        rc = os_guarded_alloc(BT_FUEL, &bt->fuel);
    if (!rc)
        rc = os_fenced_alloc(4096, (void **)&bt->bounce);
    if (!rc)
        rc = os_low_alloc(sizeof(*env->heat) << TR_HEAT_BITS, (void **)&env->heat);
    if (!rc)
        rc = os_low_alloc(sizeof(*env->guess) << TR_GUESS_BITS, (void **)&env->guess);
    if (!rc)
        rc = tc_create(&bt->tc, env);
    if (rc)
        return rc;
    bt->tr = tr_new(env);
    bt->places = calloc(1u << BT_PLACE_BITS, sizeof(*bt->places));
    bt->divisions = calloc(BT_DIVISIONS, sizeof(*bt->divisions));
    return bt->tr && bt->places && bt->divisions ? 0 : -ENOMEM;
}

static void take_options(struct bt *bt, const struct bt_options *opt) {
    bt->opt = *opt;
    bt->opt.tr.count &= !bt->v->counted; /* which counts exactly */
    bt->env.opt = bt->opt.tr;
    bt->tc.chain = bt->opt.chain;
}

/* The common code, and where the translator and the cache find it. */
static int emit_common(struct bt *bt) {
    bt_emit_stubs(bt);
    bt->env.records = bt->tc.meta;
    bt->env.records_size = bt->tc.nunits * bt->tc.unit_meta;
    bt->tc.code_start = bt->env.common_end - tr_delta(&bt->env);
    bt->tc.nowhere = bt->env.stub.indirect;
    return bt->opt.verify && !bt_verify_common(bt) ? -EBADMSG : 0;
}

int bt_new(struct vcpu *v, struct interp *ip, const struct bt_options *opt,
           struct bt **out) {
    struct bt *bt = calloc(1, sizeof(*bt));
    int rc;

    if (!bt)
        return -ENOMEM;
    bt->v = v;
    bt->ip = ip;
    __builtin_cpu_init();
    bt->env = (struct tr_env){.v = v,
                              .has_bmi2 = __builtin_cpu_supports("bmi2"),
                              .advice = &bt_advice,
                              .arg = bt};
    take_options(bt, opt);
    *tr_vcpu(v) = (struct tr_vcpu){.self = v, .owner = bt};
    v->x87_ran = bt_x87_ran;
    v->x87_at = 0;
    vcpu_forget_gates(v);
    v->canary[0] = VCPU_CANARY;
    v->canary[1] = ~VCPU_CANARY;
    rc = allocate(bt);
    if (!rc)
        rc = emit_common(bt);
    if (!rc)
        rc = os_fault_range(bt->env.code.rx, bt->env.code.rx + bt->env.code.size,
                            bt_host_fault, bt);
    if (rc) {
        bt_free(bt);
        return rc;
    }
    bt_flush(bt);
    *out = bt;
    return 0;
}

void bt_code_written(void *arg, struct gpa at, unsigned len) {
    struct bt *bt = arg;

    tc_code_written(&bt->tc, at, len);
}

void bt_set_options(struct bt *bt, const struct bt_options *opt) {
    unsigned cache = bt->opt.cache;

    take_options(bt, opt);
    bt->opt.cache = cache;
    bt_flush(bt);
}

void bt_free(struct bt *bt) {
    if (!bt)
        return;
    if (bt->env.poll_page)
        os_poll_page_free(bt->env.poll_page);
    os_guarded_free(bt->fuel, BT_FUEL);
    os_fenced_free(bt->bounce, 4096);
    os_low_free(bt->env.heat, sizeof(*bt->env.heat) << TR_HEAT_BITS);
    os_low_free(bt->env.guess, sizeof(*bt->env.guess) << TR_GUESS_BITS);
    bt->v->x87_ran = NULL;
    free(bt->places);
    free(bt->divisions);
    tr_free(bt->tr);
    tc_destroy(&bt->tc);
    if (bt->env.code.rw) {
        os_fault_range_remove(bt->env.code.rx);
        os_code_unmap(&bt->env.code);
    }
    free(bt);
}
