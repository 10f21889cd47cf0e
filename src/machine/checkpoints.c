/*
 * Moments that a counted run can be taken back to: for a debugger that goes backwards
 * (debug.c), in a run that can be had again (machine_config.rewinds).
 *
 * A checkpoint is the machine's records (records.c), and the pages of memory that were
 * written to since the one before, as they were at it; the first has all pages that are
 * not zero. What a page held at a checkpoint is therefore in the newest one up to it that
 * has the page; and in none, if it was zero. To go back to one, every page that was
 * written to since is put back: those that later ones have, and those that memory's own
 * list tells (mem/track.c). Later ones stay: the run comes by there again, and does the
 * same.
 *
 * `since` has, at least, the pages that differ from the last checkpoint. It is never
 * smaller than that, wherever the run is.
 *
 * They are `every` instructions apart. When there are CHECKPOINTS_MAX, or they have too
 * much memory, every other one is given up, whose pages go to the next, and from then on
 * they are twice as far apart. So there is one near what a debugger looks at, and the way
 * from it takes a part of the time that the run has taken, whatever that is.
 *
 * On the CPU's thread, between two instructions; and between two lives.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "machine/machine_int.h"
#include "snapshot/snapshot.h"

#define EVERY 100000u
#define BYTES_MAX (1ull << 30)
/* While a disk is at work none is made: what is under way is in no record. */
#define LATER 50000u

/* --- lists of pages --- */

static const struct checkpoint_page *find_page(const struct checkpoint *c,
                                               uint64_t number) {
    size_t low = 0, high = c->count;

    while (low < high) {
        size_t mid = (low + high) / 2;

        if (c->page[mid].number == number)
            return &c->page[mid];
        if (c->page[mid].number < number)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

/* What the page held at checkpoint N; NULL: zeros. */
static const uint8_t *bytes_at(const struct checkpoints *k, unsigned n, uint64_t number) {
    const struct checkpoint_page *p;

    for (unsigned at = n + 1; at--;) {
        p = find_page(&k->all[at], number);
        if (p)
            return p->bytes;
    }
    return NULL;
}

static uint8_t *host_page(const struct machine *m, uint64_t number) {
    return mem_ram_base(m->mem) + (number << 12);
}

static bool is_zero(const uint8_t *page) {
    uint64_t word, any = 0;

    for (size_t at = 0; at < 4096; at += 8) {
        memcpy(&word, page + at, 8);
        any |= word;
    }
    return !any;
}

static bool holds(const uint8_t *page, const uint8_t *bytes) {
    return bytes ? !memcmp(page, bytes, 4096) : is_zero(page);
}

static void drop(struct checkpoints *k, struct checkpoint *c) {
    for (size_t n = 0; n < c->count; n++) {
        k->bytes -= c->page[n].bytes ? 4096 : 0;
        free(c->page[n].bytes);
    }
    free(c->page);
    free(c->state);
    *c = (struct checkpoint){0};
}

/* False: no memory. */
static bool add_page(struct checkpoints *k, struct checkpoint *c, size_t *room,
                     uint64_t number, const uint8_t *page) {
    struct checkpoint_page *more = c->page;
    uint8_t *bytes = NULL;

    if (c->count == *room) {
        *room = *room ? 2 * *room : 256;
        more = realloc(c->page, *room * sizeof(*more));
        if (!more)
            return false;
        c->page = more;
    }
    if (!is_zero(page)) {
        bytes = malloc(4096);
        if (!bytes)
            return false;
        memcpy(bytes, page, 4096);
        k->bytes += 4096;
    }
    c->page[c->count++] = (struct checkpoint_page){number, bytes};
    return true;
}

/* --- making one --- */

/* The pages that are not zero, as far as the host may have given any. */
static bool add_all(struct machine *m, struct checkpoint *c) {
    uint64_t pages = machine_ram_pages(m);
    uint8_t *there = malloc(pages);
    size_t room = 0;
    bool good = there != NULL;

    if (!good || mem_ram_fd(m->mem) < 0 ||
        os_memory_resident(mem_ram_base(m->mem), pages << 12, there))
        memset(there, 1, good ? pages : 0);
    for (uint64_t n = 0; n < pages && good; n++)
        if ((there[n] & 1) && !is_zero(host_page(m, n)))
            good = add_page(&m->checkpoints, c, &room, n, host_page(m, n));
    free(there);
    return good;
}

static bool add_written(struct machine *m, struct checkpoint *c) {
    struct checkpoints *k = &m->checkpoints;
    uint64_t pages = machine_ram_pages(m);
    size_t room = 0;

    for (uint64_t n = 0; n < pages; n++) {
        if (!(k->since[n / 64] >> n % 64 & 1) ||
            holds(host_page(m, n), bytes_at(k, k->count - 1, n)))
            continue;
        if (!add_page(k, c, &room, n, host_page(m, n)))
            return false;
    }
    return true;
}

static bool add_state(struct machine *m, struct checkpoint *c) {
    struct snapshot *s = snapshot_new();
    const uint8_t *bytes = NULL;

    if (!s)
        return false;
    machine_records(m, s);
    if (snapshot_good(s))
        bytes = snapshot_finish(s, &c->len);
    if (bytes)
        c->state = malloc(c->len);
    if (c->state)
        memcpy(c->state, bytes, c->len);
    snapshot_free(s);
    return c->state;
}

/* A's pages go to B, the next one, where that has none of its own. False: no memory, and
 * nothing has changed. */
static bool merge(struct checkpoints *k, struct checkpoint *a, struct checkpoint *b) {
    struct checkpoint_page *all = calloc(a->count + b->count + 1, sizeof(*all));
    size_t n = 0, i = 0, j = 0;

    if (!all)
        return false;
    while (i < a->count || j < b->count) {
        if (j == b->count || (i < a->count && a->page[i].number < b->page[j].number)) {
            all[n++] = a->page[i];
            a->page[i++].bytes = NULL;
        } else {
            i += i < a->count && a->page[i].number == b->page[j].number;
            all[n++] = b->page[j++];
        }
    }
    for (i = 0; i < a->count; i++)
        k->bytes -= a->page[i].bytes ? 4096 : 0;
    for (i = 0; i < a->count; i++)
        free(a->page[i].bytes);
    free(a->page);
    free(a->state);
    free(b->page);
    *a = (struct checkpoint){0};
    b->page = all;
    b->count = n;
    return true;
}

/* Every other one goes, but the first and the last. False: no memory, and some stay that
 * should have gone. */
static bool thin(struct checkpoints *k) {
    unsigned kept = 1;
    bool good = true;

    for (unsigned n = 1; n < k->count; n++) {
        if (n % 2 && n + 1 < k->count)
            good &= merge(k, &k->all[n], &k->all[n + 1]);
        if (k->all[n].state)
            k->all[kept++] = k->all[n];
    }
    k->count = kept;
    k->every *= 2;
    return good;
}

/* There is room for one more. */
static bool make_room(struct checkpoints *k) {
    while (k->count == CHECKPOINTS_MAX || (k->bytes > BYTES_MAX && k->count > 2))
        if (!thin(k))
            return false;
    return k->bytes <= BYTES_MAX;
}

/* False: no memory; there will be no more of them. */
static bool make(struct machine *m) {
    struct checkpoints *k = &m->checkpoints;
    struct checkpoint c = {.insns = machine_insns(m)};
    bool good;

    mem_track_collect(m->mem, k->since);
    good = make_room(k) && add_state(m, &c) &&
           (k->count ? add_written(m, &c) : add_all(m, &c));
    if (!good) {
        drop(k, &c);
        return false;
    }
    memset(k->since, 0, (machine_ram_pages(m) + 63) / 64 * sizeof(*k->since));
    k->all[k->count++] = c;
    return true;
}

/* --- for the machine --- */

static void reached(struct machine *m) {
    struct checkpoints *k = &m->checkpoints;
    uint64_t now = machine_insns(m);

    if (machine_disks_busy(m)) {
        m->counted.mark = now + LATER;
        return;
    }
    if (k->meddled || make(m))
        m->counted.mark = now + k->every;
    else
        m->counted.mark = UINT64_MAX;
}

static void free_all(struct machine *m) {
    struct checkpoints *k = &m->checkpoints;

    while (k->count)
        drop(k, &k->all[--k->count]);
    free(k->since);
    k->since = NULL;
}

void machine_checkpoints_begin(struct machine *m) {
    struct checkpoints *k = &m->checkpoints;

    if (!m->cfg.rewinds || k->since)
        return;
    k->every = EVERY;
    k->since = calloc((machine_ram_pages(m) + 63) / 64, sizeof(*k->since));
    if (!k->since)
        return;
    k->reached = reached;
    k->free = free_all;
    if (!mem_tracked(m->mem))
        mem_track_start(m->mem);
    reached(m);
}

/* --- going back --- */

/* Every page that was written to since checkpoint N. */
static void put_memory_back(struct machine *m, unsigned n) {
    static const uint8_t zeros[4096];
    struct checkpoints *k = &m->checkpoints;
    uint64_t pages = machine_ram_pages(m);
    const uint8_t *bytes;

    mem_track_collect(m->mem, k->since);
    for (unsigned later = n + 1; later < k->count; later++)
        for (size_t i = 0; i < k->all[later].count; i++) {
            uint64_t number = k->all[later].page[i].number;

            k->since[number / 64] |= 1ull << number % 64;
        }
    for (uint64_t p = 0; p < pages; p++) {
        if (!(k->since[p / 64] >> p % 64 & 1))
            continue;
        bytes = bytes_at(k, n, p);
        if (!holds(host_page(m, p), bytes))
            mem_store(m->mem, host_page(m, p), bytes ?: zeros, 4096);
    }
}

int machine_rewind(struct machine *m, char *why, size_t why_size) {
    struct checkpoints *k = &m->checkpoints;
    unsigned n = k->count;
    struct snapshot *s;
    int rc;

    while (n > 1 && k->all[n - 1].insns > m->debug.start_at)
        n--;
    if (!n) {
        snprintf(why, why_size, "there was no memory for the way back");
        return -ENOMEM;
    }
    n--;
    put_memory_back(m, n);
    k->meddled = false;
    m->debug.began = k->all[n].insns;
    m->counted.mark = k->all[k->count - 1].insns + k->every;
    m->counted.input_at = VCLOCK_NEVER;
    s = snapshot_open(k->all[n].state, k->all[n].len, why, why_size);
    rc = s ? machine_restore(m, s, why, why_size) : -EINVAL;
    snapshot_free(s);
    return rc;
}
