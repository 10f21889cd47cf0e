/*
 * A debugger's breakpoints (cpu/stops.h), in translated code.
 *
 * A breakpoint is at a linear address, a fragment belongs to bytes in RAM. So whenever
 * the shadow comes to map a page for fetches in which there are breakpoints, the places
 * in RAM where they are then are noted (vcpu.code_mapped). No fragment has the
 * instruction at such a place, whatever its address: what comes before it ends there, and
 * links and jump tables find nothing to lead to. So the dispatcher is asked each time,
 * and leaves that one instruction to the interpreter, which looks at the address. All
 * other code is as it always is.
 *
 * Places are bits of a table, found by hash and never taken out one by one: a place that
 * has none any more, or never had one, costs the detour and nothing else. When there are
 * many, and when the last breakpoint has gone, the table is emptied; then the shadow has
 * no entries for the pages (mmu_stops_changed()), and the rest is noted anew.
 *
 * Locking: the table is read and changed with VCPU_LOCK_CODE held.
 */
#include "bt/bt_int.h"
#include "cpu/stops.h"

/* So many places, and the table is emptied at the next chance. */
#define BREAKS_MANY 512u

static uint32_t bit_of(const struct bt_shared *sh, const uint8_t *code) {
    uint64_t at = (uint64_t)(code - mem_ram_base(sh->env.v->mem));

    return (uint32_t)(at * 0x9e3779b97f4a7c15ull >> (64 - BT_BREAK_BITS));
}

bool bt_breaks_at(const struct bt *bt, const uint8_t *code) {
    const struct bt_shared *sh = bt->sh;
    uint32_t bit;

    if (likely(!sh->break_count))
        return false;
    bit = bit_of(sh, code);
    return sh->breaks[bit / 64] >> (bit % 64) & 1;
}

/* Fragments that have the instruction go. Nobody executes them where the breakpoint is:
 * for that the page would have had to be mapped. */
static void note(struct bt *bt, uint8_t *page, unsigned off) {
    struct bt_shared *sh = bt->sh;
    uint32_t bit = bit_of(sh, page + off);

    if (bt_breaks_at(bt, page + off))
        return;
    sh->breaks[bit / 64] |= 1ull << (bit % 64);
    sh->break_count++;
    tc_drop_at(&sh->tc, page, off, TC_WHY_NONE);
    bt->noted = true;
}

void bt_code_mapped(struct vcpu *v, uint64_t page, uint8_t *host) {
    struct bt *bt = bt_of(v);
    unsigned n = 0;
    uint64_t at;

    if (mem_gpa(v->mem, host).a == ~0ull)
        return;
    bt_lock(bt);
    while (vcpu_breaks_next(v->stops, page, &n, &at))
        note(bt, host, at & 4095);
    bt_unlock(bt);
}

void bt_stops_changed(struct bt *bt) {
    struct bt_shared *sh = bt->sh;
    const struct vcpu_stops *s = bt->v->stops;

    bt_lock(bt);
    if (sh->break_count > BREAKS_MANY || (sh->break_count && !s)) {
        for (size_t n = 0; n < BT_BREAK_WORDS; n++)
            sh->breaks[n] = 0;
        sh->break_count = 0;
    }
    bt_unlock(bt);
    for (unsigned n = 0; s && n < s->breaks; n++)
        mmu_stops_changed(bt->v, gva(s->at[n]), 1);
}
