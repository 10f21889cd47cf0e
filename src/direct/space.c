/* What a cell maps; see space.h. */
#include "direct/space.h"

#include "base/os.h"

#define RIGHTS 7u
#define STALE (1u << 4)
#define ADDRESS 0x0000fffffffff000ull

int space_init(struct space *s) {
    s->generation = 1;
    return os_sparse_alloc(SPACE_PAGES * sizeof(*s->place), (void **)&s->place);
}

void space_free(struct space *s) {
    os_sparse_free(s->place, SPACE_PAGES * sizeof(*s->place));
}

static unsigned hash(uint64_t at) {
    return (unsigned)((at >> 12) * 0x9e3779b97f4a7c15ull >> 40) % SPACE_PAGES;
}

/* The place of AT, or the free one where it would be. */
static struct space_place *find(const struct space *s, uint64_t at) {
    for (unsigned n = hash(at);; n = (n + 1) % SPACE_PAGES) {
        struct space_place *p = &s->place[n];

        if (p->page >> 48 != s->generation || (p->page & ADDRESS) == at)
            return p;
    }
}

static bool is_taken(const struct space *s, const struct space_place *p) {
    return p->page >> 48 == s->generation;
}

unsigned space_rights(const struct space *s, uint64_t at) {
    const struct space_place *p = find(s, at);

    return is_taken(s, p) ? (unsigned)(p->page >> 1) & RIGHTS : 0;
}

bool space_knows(const struct space *s, uint64_t at) {
    return is_taken(s, find(s, at));
}

bool space_note(struct space *s, uint64_t at, unsigned rights, uint32_t ram) {
    struct space_place *p = find(s, at);

    if (!is_taken(s, p)) {
        if (s->used >= SPACE_PAGES / 4 * 3)
            return false;
        s->place[s->used++].taken = (uint32_t)(p - s->place);
    }
    p->page =
        (at & ADDRESS) | (uint64_t)(rights & RIGHTS) << 1 | (uint64_t)s->generation << 48;
    p->ram = ram;
    return true;
}

uint64_t space_noted(const struct space *s, unsigned n, unsigned *rights, uint32_t *ram) {
    const struct space_place *p = &s->place[s->place[n].taken];

    *rights = p->page & STALE ? 0 : (unsigned)(p->page >> 1) & RIGHTS;
    *ram = p->ram;
    return p->page & ADDRESS;
}

/* Its place stays taken. */
void space_forget(struct space *s, uint64_t at) {
    struct space_place *p = find(s, at);

    if (is_taken(s, p))
        p->page &= ~(uint64_t)(RIGHTS << 1 | STALE);
}

void space_clear(struct space *s) {
    if (!++s->generation) {
        for (unsigned n = 0; n < SPACE_PAGES; n++)
            s->place[n].page = 0;
        s->generation = 1;
    }
    s->used = s->maps = s->nstale = 0;
    s->all_stale = s->unsure = false;
    for (unsigned n = 0; n < ARRAY_SIZE(s->large); n++)
        s->large[n] = 0;
}

void space_restrict(struct space *s, uint64_t at, unsigned rights) {
    if (space_rights(s, at) & ~rights)
        space_drop(s, at);
}

void space_drop(struct space *s, uint64_t at) {
    struct space_place *p = find(s, at);

    if (!s->cell || s->all_stale || !is_taken(s, p) || !(p->page & RIGHTS << 1) ||
        p->page & STALE)
        return;
    if (s->nstale == SPACE_STALE) {
        s->all_stale = true;
        return;
    }
    p->page |= STALE;
    s->stale[s->nstale++] = at;
}

/* --- large pages --- */

static unsigned large_bit(uint64_t at) {
    return (unsigned)(at >> 21) % SPACE_LARGE;
}

void space_set_large(struct space *s, uint64_t at) {
    s->large[large_bit(at) / 64] |= 1ull << large_bit(at) % 64;
}

bool space_is_large(const struct space *s, uint64_t at) {
    return s->large[large_bit(at) / 64] >> large_bit(at) % 64 & 1;
}
