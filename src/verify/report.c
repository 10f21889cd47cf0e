/*
 * What is said of a fragment that the verifier does not accept, and what --bt verify does
 * about it. (lint: no guest runs here)
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cpu/vec.h"
#include "decode/decode.h"
#include "list/list_int.h"
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
static void guest_text(const struct ccf *c, const struct site *s, char *buf,
                       size_t size) {
    const uint8_t *page = s->guest & SITE_PAGE2 ? c->page2 : c->page;
    uint64_t va = bt_site_va(c, s);
    char text[96] = "?";
    struct insn i;

    if (page && decode_at(page + (va & 4095), page + 4096, KEY_MODE(c->key), &i))
        list_guest_text(&i, va, text, sizeof(text));
    snprintf(buf, size, "0x%llx  %s", (unsigned long long)va, text);
}

/* What begins at RX, of the guest's instructions: the last of them. *AT goes on. */
static void guest_at(const struct ccf *c, const uint8_t *rx, unsigned *at, char *buf,
                     size_t size) {
    *buf = '\0';
    for (; *at < c->nsites && c->code + c->sites[*at].host <= rx; (*at)++)
        if (c->sites[*at].poll != POLL_LINK)
            guest_text(c, &c->sites[*at], buf, size);
}

void bt_verify_report(struct bt *bt, const struct ccf *c, const struct finding *f,
                      const struct bt_listing *out) {
    const struct list l = {.bt = bt, .out = out};
    unsigned site = 0;
    struct insn i;

    vec_park(bt->v);
    list_line(&l, "the fragment for 0x%llx, key 0x%x%s, at +%03x: %s",
              (unsigned long long)c->va, c->key, c->hot ? ", a hot path" : "",
              f->at ? (unsigned)(f->at - c->code) : 0, f->why);
    for (const uint8_t *rx = c->code; decode_at(rx, c->end, MODE_64, &i); rx += i.len) {
        char left[128], text[LIST_LINE];

        guest_at(c, rx, &site, left, sizeof(left));
        list_host_text(&l, c, &i, rx, text, sizeof(text));
        list_line(&l, "  %-40s %s +%03x  %s", left, rx == f->at ? "->" : "  ",
                  (unsigned)(rx - c->code), text);
    }
}

static void to_log(void *arg, const char *text) {
    log_error("%s", text);
}

bool bt_verify_new(struct bt *bt, const struct ccf *c) {
    const struct bt_listing out = {.line = to_log};
    struct finding f;

    if (bt_verify(bt, c, &f))
        return true;
    bt->unsound = true;
    bt_kick(bt); /* what is in the cache goes no further than its next poll */
    log_error("the verifier does not accept what the translator has made; this run ends");
    bt_verify_report(bt, c, &f, &out);
    return false;
}

bool bt_verify_common(struct bt *bt) {
    struct finding f;

    if (bt_verify_stubs(bt, &f))
        return true;
    log_error("the verifier does not accept the translator's common code, at +%03x: %s",
              f.at ? (unsigned)(f.at - bt->code.rx) : 0, f.why);
    return false;
}
