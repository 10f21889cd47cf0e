/*
 * Sealed code: no address of the cache can be written but by who makes or changes code,
 * for as long as that takes. A fragment is made in a window of its own; a branch that is
 * turned opens its page. All of it is under the lock of the cache, so that there is one
 * who writes at a time (docs/bt.md, "Many vCPUs").
 *
 * Guest memory may be stored to while a fragment is made (the accessed bits of the
 * guest's page tables), and links be turned for it: what is open stays open then.
 */
#include "tr/tr.h"

#define WINDOW (128u << 10) /* has room for the longest fragments: tc/units.c */

int tr_seal(struct tr_env *env) {
    int rc = os_code_seal(&env->code);

    env->sealed = !rc;
    return rc;
}

void tr_span_open(struct tr_env *env, struct tr_span *span) {
    if (!env->sealed)
        return;
    if ((size_t)(span->code_end - span->code) > WINDOW)
        span->code_end = span->code + WINDOW;
    env->open = (uint8_t *)((uintptr_t)span->code & ~4095ul);
    env->open_end = (uint8_t *)(((uintptr_t)span->code_end + 4095) & ~4095ul);
    os_code_open(env->open, (size_t)(env->open_end - env->open));
}

void tr_span_close(struct tr_env *env) {
    if (!env->sealed)
        return;
    os_code_close(env->open, (size_t)(env->open_end - env->open));
    env->open = env->open_end = NULL;
}

static bool is_open(const struct tr_env *env, const uint8_t *rw, size_t len) {
    return !env->sealed || (rw >= env->open && rw + len <= env->open_end);
}

void tr_patch_begin(const struct tr_env *env, const uint8_t *rw, size_t len) {
    if (!is_open(env, rw, len))
        os_code_open(rw, len);
}

void tr_patch_end(const struct tr_env *env, const uint8_t *rw, size_t len) {
    if (is_open(env, rw, len))
        return;
    os_code_close(rw, len);
    if (env->open) /* they may share a page with it */
        os_code_open(env->open, (size_t)(env->open_end - env->open));
}

void tr_set_byte(const struct tr_env *env, uint8_t *at, uint8_t byte) {
    tr_patch_begin(env, at, 1);
    __atomic_store_n(at, byte, __ATOMIC_RELEASE);
    tr_patch_end(env, at, 1);
}

void tr_lead(const struct tr_env *env, uint8_t *rel32, const uint8_t *to) {
    int32_t rel = (int32_t)(to - (rel32 + 4 + tr_delta(env)));

    tr_patch_begin(env, rel32, sizeof(rel));
    __atomic_store_n((int32_t *)(void *)rel32, rel, __ATOMIC_RELEASE);
    tr_patch_end(env, rel32, sizeof(rel));
}
