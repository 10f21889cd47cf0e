/*
 * A verifier of emitted code: proves of a finished fragment that it reaches guest memory
 * through checks, and fields of ours and constants of the cache by name, and nothing
 * else. docs/security.md says what is proved and what is not.
 *
 * It knows nothing of how the translator comes to its code. It reads the bytes of the
 * fragment, where it is entered, its links, the layout of what emitted code names
 * (struct vcpu, the shadow) and the addresses of the common stubs and tables.
 */
#ifndef VERIFY_VERIFY_H
#define VERIFY_VERIFY_H

#include "list/out.h"
#include "tr/env.h"

/* Why a fragment was not proved, and where. */
struct finding {
    const uint8_t *at; /* RX; NULL: of the fragment as a whole */
    char why[160];
};

/* True: C is proved. False: *F says what is wrong with it. Not while the guest's vector
 * state is live. */
bool verify_code(const struct tr_env *env, const struct tr_code *c, struct finding *f);

/* The same of the stub of anchors, for reads and for writes. */
bool verify_stubs(const struct tr_env *env, struct finding *f);

/* The finding in words, and the fragment with the place marked, a line at a time. */
void verify_report(const struct tr_env *env, const struct tr_code *c,
                   const struct finding *f, const struct bt_listing *out);

#endif
