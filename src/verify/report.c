/* What is said of a fragment that the verifier does not accept. (lint: no guest runs
 * here) */
#include <stdio.h>
#include <string.h>

#include "cpu/vec.h"
#include "decode/decode.h"
#include "list/list.h"
#include "tr/key.h"
#include "verify/verify.h"

static bool decode_at(const uint8_t *p, const uint8_t *end, enum cpu_mode mode,
                      struct insn *i) {
    uint8_t bytes[15] = {0};
    size_t have = p < end ? (size_t)(end - p) : 0;

    if (!have)
        return false;
    if (have > sizeof(bytes))
        have = sizeof(bytes);
    memcpy(bytes, p, have);
    if (decode_insn(mode, bytes, have, i) != DECODE_OK) {
        *i = (struct insn){.op = OP_invalid, .len = 1, .mode = (uint8_t)mode};
        i->bytes[0] = bytes[0];
    }
    return true;
}

/* The guest instruction that site S is for, from the page as it is now. */
static void guest_text(const struct tr_code *c, const struct site *s, char *buf,
                       size_t size) {
    const uint8_t *page = s->guest & SITE_PAGE2 ? c->page2 : c->page;
    uint64_t va = tr_site_va(c, s, c->va & ~4095ull);
    char text[96] = "?";
    struct insn i;

    if (page && decode_at(page + (va & 4095), page + 4096, KEY_MODE(c->key), &i))
        list_guest_text(&i, va, text, sizeof(text));
    snprintf(buf, size, "0x%llx  %s", (unsigned long long)va, text);
}

/* What begins at RX, of the guest's instructions: the last of them. *AT goes on. */
static void guest_at(const struct tr_code *c, const uint8_t *rx, unsigned *at, char *buf,
                     size_t size) {
    *buf = '\0';
    for (; *at < c->nsites && c->start + c->sites[*at].host <= rx; (*at)++)
        if (c->sites[*at].poll != POLL_LINK)
            guest_text(c, &c->sites[*at], buf, size);
}

void verify_report(const struct tr_env *env, const struct tr_code *c,
                   const struct finding *f, const struct bt_listing *out) {
    const struct list l = {.env = env, .out = out};
    unsigned site = 0;
    struct insn i;

    vec_park(env->v);
    list_line(&l, "the fragment for 0x%llx, key 0x%x%s, at +%03x: %s",
              (unsigned long long)c->va, c->key, c->hot ? ", a hot path" : "",
              f->at ? (unsigned)(f->at - c->start) : 0, f->why);
    for (const uint8_t *rx = c->start; decode_at(rx, c->end, MODE_64, &i); rx += i.len) {
        char left[128], text[LIST_LINE];

        guest_at(c, rx, &site, left, sizeof(left));
        list_host_text(&l, c, &i, rx, text, sizeof(text));
        list_line(&l, "  %-40s %s +%03x  %s", left, rx == f->at ? "->" : "  ",
                  (unsigned)(rx - c->start), text);
    }
}
