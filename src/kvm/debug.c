/*
 * A debugger's stops (cpu/stops.h), by the hardware's debug registers: KVM has it use
 * ours while there are some, and the guest reads and writes its own, which do nothing
 * meanwhile. There are four, of 1, 2, 4 or 8 aligned bytes each, and none that sees reads
 * alone: those see writes too.
 *
 * AMD64 APM volume 2, "Debug Registers"; Linux's "KVM_SET_GUEST_DEBUG".
 */
#include <errno.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "cpu/stops.h"
#include "kvm/kvm_int.h"

#define REGISTERS 4u

#define TYPE_EXEC 0u
#define TYPE_WRITE 1u
#define TYPE_ACCESS 3u

struct registers {
    uint64_t at[REGISTERS];
    uint64_t control; /* DR7 */
    unsigned used;
};

static bool take(struct registers *r, uint64_t at, unsigned len, unsigned type) {
    static const uint8_t code[9] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};

    if (r->used == REGISTERS)
        return false;
    r->at[r->used] = at;
    r->control |= 2ull << (r->used * 2);
    r->control |= (uint64_t)(type | (unsigned)code[len] << 2) << (16 + r->used * 4);
    r->used++;
    return true;
}

/* A range in aligned pieces. */
static bool take_watch(struct registers *r, const struct vcpu_watch *w) {
    uint64_t at = w->at, left = w->len;
    bool good = true;

    for (unsigned n; left && good; at += n, left -= n) {
        n = 8;
        while (n > left || at % n)
            n /= 2;
        good = take(r, at, n, w->read ? TYPE_ACCESS : TYPE_WRITE);
    }
    return good;
}

static bool take_all(struct registers *r, const struct vcpu_stops *s) {
    bool good = true;

    for (unsigned n = 0; s && n < s->breaks && good; n++)
        good = take(r, s->at[n], 1, TYPE_EXEC);
    for (unsigned n = 0; s && n < s->watches && good; n++)
        good = take_watch(r, &s->watch[n]);
    return good;
}

int kvm_stops_changed(struct kvm *k) {
    struct registers r = {.control = 1u << 10};
    struct kvm_guest_debug d = {0};

    if (!take_all(&r, k->v->stops))
        return -ENOSPC;
    if (r.used)
        d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    for (unsigned n = 0; n < REGISTERS; n++)
        d.arch.debugreg[n] = r.at[n];
    d.arch.debugreg[7] = r.control;
    return ioctl(k->fd, KVM_SET_GUEST_DEBUG, &d) ? -errno : 0;
}

/* Of a watched range the hardware tells which register, not which byte. */
static void note(struct kvm *k, unsigned reg) {
    const struct vcpu_stops *s = k->v->stops;
    struct vcpu *v = k->v;

    if (reg < s->breaks) {
        v->hit = (struct vcpu_hit){.why = VCPU_HIT_BREAK, .at = s->at[reg]};
        return;
    }
    for (unsigned n = 0, first = s->breaks; n < s->watches; n++) {
        struct registers one = {0};

        take_watch(&one, &s->watch[n]);
        if (reg < first + one.used) {
            v->hit = (struct vcpu_hit){.why = VCPU_HIT_WATCH, .at = one.at[reg - first]};
            return;
        }
        first += one.used;
    }
}

enum exit_reason kvm_debug_exit(struct kvm *k) {
    uint64_t hit = k->run->debug.arch.dr6 & ((1u << REGISTERS) - 1);

    if (!k->v->stops || !hit) /* of stops that have gone since */
        return EXIT_COUNT;
    note(k, (unsigned)__builtin_ctzll(hit));
    vcpu_raise(k->v, VCPU_EVENT_DEBUG);
    return EXIT_COUNT;
}
