/* What a translator consists of, and how it comes and goes. */
#include <errno.h>
#include <stdlib.h>

#include "base/bug.h"
#include "bt/bt_int.h"
#include "cpu/smp.h"

/* Tables that emitted code names, and the cache. */
static int allocate_shared(struct bt *bt) {
    struct bt_shared *sh = bt->sh;
    struct tr_env *env = &sh->env;
    int rc = os_code_map((size_t)sh->opt.cache << 20, &env->code);

    if (!rc)
        rc = tc_create(&sh->tc, env);
    if (rc)
        return rc;
    sh->tr = tr_new(env);
    sh->places = calloc(1u << BT_PLACE_BITS, sizeof(*sh->places));
    sh->divisions = calloc(BT_DIVISIONS, sizeof(*sh->divisions));
    sh->breaks = calloc(BT_BREAK_WORDS, sizeof(*sh->breaks));
    return sh->tr && sh->places && sh->divisions && sh->breaks ? 0 : -ENOMEM;
}

static void take_options(struct bt *bt, const struct bt_options *opt) {
    struct bt_shared *sh = bt->sh;

    sh->opt = *opt;
    sh->opt.tr.count &= !bt->v->counted; /* which counts exactly */
    sh->env.opt = sh->opt.tr;
    sh->tc.chain = sh->opt.chain;
}

/* The common code, and where the translator and the cache find it. */
static int emit_common(struct bt *bt) {
    struct bt_shared *sh = bt->sh;

    bt_emit_stubs(bt);
    sh->env.records = sh->tc.meta;
    sh->env.records_size = sh->tc.nunits * sh->tc.unit_meta;
    sh->tc.code_start = sh->env.common_end - tr_delta(&sh->env);
    if (sh->opt.verify && !bt_verify_common(bt))
        return -EBADMSG;
    return tc_jumps_create(&sh->tc, sh->env.stub.indirect);
}

static void free_shared(struct bt_shared *sh) {
    free(sh->places);
    free(sh->divisions);
    free(sh->breaks);
    free(sh->warm.hint);
    tr_free(sh->tr);
    tc_destroy(&sh->tc);
    if (sh->env.code.rw) {
        os_fault_range_remove(sh->env.code.rx);
        os_code_unmap(&sh->env.code);
    }
    free(sh);
}

static int create_shared(struct bt *bt, const struct bt_options *opt) {
    struct bt_shared *sh = bt->sh;
    const struct os_code *code = &sh->env.code;
    int rc;

    __builtin_cpu_init();
    sh->env = (struct tr_env){.v = bt->v,
                              .smp = vcpu_has_others(bt->v),
                              .no_splits =
                                  vcpu_has_others(bt->v) && !vcpu_group_of(bt->v)->splits,
                              .has_bmi2 = __builtin_cpu_supports("bmi2"),
                              .poll_page = bt->poll_page,
                              .advice = &bt_advice,
                              .arg = bt};
    take_options(bt, opt);
    sh->next_review = UINT64_MAX;
    sh->tc.jumps_stay = sh->env.smp;
    rc = allocate_shared(bt);
    sh->yields = sh->env.smp && vcpu_group_of(bt->v)->count > os_cpus();
    if (!rc)
        rc = emit_common(bt);
    if (!rc && sh->opt.seal)
        rc = tr_seal(&sh->env);
    return rc ? rc : os_fault_range(code->rx, code->rx + code->size, bt_host_fault, NULL);
}

/* What the vCPU has of its own: BT is freed by bt_free() in both cases. */
static int create_own(struct bt *bt) {
    struct vcpu *v = bt->v;
    int rc = os_poll_page(&bt->poll_page);

    *tr_vcpu(v) = (struct tr_vcpu){
        .self = v, .anchor_left = BT_ANCHOR_SAMPLE, .owner = bt, .poll = bt->poll_page};
    v->x87_ran = bt_x87_ran;
    v->x87_at = 0;
    v->code_mapped = bt_code_mapped;
    vcpu_forget_gates(v);
    v->canary[0] = VCPU_CANARY;
    v->canary[1] = ~VCPU_CANARY;
    if (!rc && v->counted)
        rc = os_guarded_alloc(BT_FUEL, &bt->fuel);
    if (!rc)
        rc = os_fenced_alloc(4096, (void **)&bt->bounce);
    return rc;
}

int bt_new(struct vcpu *v, struct interp *ip, const struct bt_options *opt,
           struct bt **out) {
    struct bt_shared *sh = calloc(1, sizeof(*sh));
    struct bt *bt = calloc(1, sizeof(*bt));
    int rc;

    if (!sh || !bt) {
        free(sh);
        free(bt);
        return -ENOMEM;
    }
    *bt = (struct bt){.v = v, .ip = ip, .sh = sh};
    sh->first = bt;
    rc = create_own(bt);
    if (!rc)
        rc = create_shared(bt, opt);
    if (rc) {
        bt_free(bt);
        return rc;
    }
    bt_flush(bt);
    *out = bt;
    return 0;
}

int bt_join(struct bt *with, struct vcpu *v, struct interp *ip, struct bt **out) {
    struct bt *bt = calloc(1, sizeof(*bt));
    int rc;

    if (!bt)
        return -ENOMEM;
    BUG_ON(!with->sh->env.smp || v->mem != with->v->mem || v->counted);
    *bt = (struct bt){.v = v, .ip = ip, .sh = with->sh, .next = with->next};
    with->next = bt;
    rc = create_own(bt);
    if (rc) {
        bt_free(bt);
        return rc;
    }
    *out = bt;
    return 0;
}

struct written {
    struct bt_shared *sh;
    struct gpa at;
    unsigned len;
    enum tc_died died;
};

static void drop_written(struct vcpu *v, void *arg) {
    struct written *w = arg;

    w->sh->tc.v = v;
    w->died = tc_code_written(&w->sh->tc, w->at, w->len);
}

/* VCPU_LOCK_CODE is held, by whichever thread. Links and jump tables may change under
 * others who execute code; where there is one vCPU they are not made for that, and it is
 * asked to stand still. */
void bt_code_written(void *arg, struct gpa at, unsigned len) {
    struct bt_shared *sh = ((struct bt *)arg)->sh;
    struct bt *me = bt_storing(sh);
    struct written w = {.sh = sh, .at = at, .len = len};

    if (me || sh->env.smp)
        drop_written(me ? me->v : sh->first->v, &w);
    else
        vcpu_call(sh->first->v, drop_written, &w);
    if (me && w.died != TC_DIED_NONE)
        me->v->leave_code = true;
    for (struct bt *b = sh->first; w.died == TC_DIED_LOOPS && b; b = b->next)
        if (b != me)
            bt_kick(b);
}

void bt_set_options(struct bt *bt, const struct bt_options *opt) {
    unsigned cache = bt->sh->opt.cache;

    take_options(bt, opt);
    bt->sh->opt.cache = cache;
    bt_flush(bt);
}

void bt_free(struct bt *bt) {
    struct bt **at;

    if (!bt)
        return;
    for (at = &bt->sh->first; *at != bt;)
        at = &(*at)->next;
    *at = bt->next;
    free(bt->heat_then);
    free(bt->ran_before);
    if (bt->sh->first)
        bt->sh->env.v = bt->sh->tc.v = bt->sh->first->v;
    else
        free_shared(bt->sh);
    if (bt->poll_page)
        os_poll_page_free(bt->poll_page);
    os_guarded_free(bt->fuel, BT_FUEL);
    os_fenced_free(bt->bounce, 4096);
    bt->v->x87_ran = NULL;
    free(bt);
}
