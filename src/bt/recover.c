/* Where the guest is, from where the host is: the sites of a fragment. */
#include "base/bug.h"
#include "bt/bt_int.h"
#include "cpu/vec.h"

const struct site *bt_site_of(const struct ccf *c, const uint8_t *rx) {
    size_t off = (size_t)(rx - c->code.start);
    size_t lo = 0, hi = c->code.nsites;

    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;

        if (c->code.sites[mid].host <= off)
            lo = mid;
        else
            hi = mid;
    }
    return c->code.nsites ? &c->code.sites[lo] : NULL;
}

const struct site *bt_set_rip(struct vcpu *v, const struct ccf *c, const uint8_t *rx) {
    const struct site *s;

    BUG_ON(!c);
    s = bt_site_of(c, rx);
    BUG_ON(!s);
    v->rip = tr_site_va(&c->code, s, tr_vcpu(v)->here);
    tr_vcpu(v)->owed = s->left;
    return s;
}

/* Translated x87 instructions are the guest's own, so that the host remembers where the
 * last one was, or they say so where it does not: which guest instruction that is, its
 * site says. So no more is written down as they are executed. FDP, FDS and, for another
 * privilege level, FCS stay what they were: the host does not tell (or not what they are
 * to the guest). */
void bt_x87_ran(struct vcpu *v, uint64_t host_ip) {
    const uint64_t none = 0;
    const struct bt *bt = bt_of(v);
    const uint8_t *pc =
        v->x87_at ? bt->sh->env.code.rx + v->x87_at : (const uint8_t *)(uintptr_t)host_ip;
    const struct ccf *c = tc_find(&bt->sh->tc, pc);
    const struct site *s = c ? bt_site_of(c, pc) : NULL;
    uint16_t bytes = 0;

    if (!s || s->poll == POLL_LINK)
        return;
    v->fip = tr_site_va(&c->code, s, tr_vcpu(v)->x87_here);
    for (unsigned at = s->guest & 0x1fff, n = 0, got = 0; n < 15 && got < 2; n++, at++) {
        const uint8_t *page = at & SITE_PAGE2 ? c->code.page2 : c->code.page;
        uint8_t b = page && at < 8192 ? page[at & 0xfff] : 0;

        if (got || (b & 0xf8) == 0xd8)
            bytes = (uint16_t)(bytes << 8 | b), got++;
    }
    v->fop = bytes & 0x7ff;
    if (!v->counted)
        v->fcs = !(c->code.key & KEY_USER) == (v->cpl != 3) ? v->seg[SEG_CS].sel : 0;
    __builtin_memcpy(v->vec + VEC_FIP, &none, sizeof(none));
    v->x87_at = 0;
}

void bt_x87_settle(struct vcpu *v) {
    uint64_t host_ip;

    vec_park(v);
    __builtin_memcpy(&host_ip, v->vec + VEC_FIP, sizeof(host_ip));
    if (host_ip || v->x87_at)
        bt_x87_ran(v, host_ip);
}
