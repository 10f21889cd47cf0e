/* What a cell maps; see space.h. */
#include "direct/space.h"

#include "base/os.h"

#define RIGHTS 7u
#define STALE (1u << 4)
#define ADDRESS 0x0000fffffffff000ull

int space_init(struct space *s) {
    s->generation = 1;
    return os_sparse_alloc(SPACE_PAGES * sizeof(*s->page), (void **)&s->page);
}

void space_free(struct space *s) {
    os_sparse_free(s->page, SPACE_PAGES * sizeof(*s->page));
}

static unsigned place_of(uint64_t at) {
    return (unsigned)((at >> 12) * 0x9e3779b97f4a7c15ull >> 40) % SPACE_PAGES;
}

/* The place of AT, or the free one where it would be. */
static uint64_t *find(const struct space *s, uint64_t at) {
    for (unsigned n = place_of(at);; n = (n + 1) % SPACE_PAGES) {
        uint64_t *p = &s->page[n];

        if (*p >> 48 != s->generation || (*p & ADDRESS) == at)
            return p;
    }
}

unsigned space_rights(const struct space *s, uint64_t at) {
    const uint64_t *p = find(s, at);

    return *p >> 48 == s->generation ? (unsigned)(*p >> 1) & RIGHTS : 0;
}

bool space_knows(const struct space *s, uint64_t at) {
    return *find(s, at) >> 48 == s->generation;
}

bool space_note(struct space *s, uint64_t at, unsigned rights) {
    uint64_t *p = find(s, at);

    if (*p >> 48 != s->generation) {
        if (s->used >= SPACE_PAGES / 4 * 3)
            return false;
        s->used++;
    }
    *p =
        (at & ADDRESS) | (uint64_t)(rights & RIGHTS) << 1 | (uint64_t)s->generation << 48;
    return true;
}

/* Its place stays taken. */
void space_forget(struct space *s, uint64_t at) {
    uint64_t *p = find(s, at);

    if (*p >> 48 == s->generation)
        *p &= ~(uint64_t)(RIGHTS << 1 | STALE);
}

void space_clear(struct space *s) {
    if (!++s->generation) {
        for (unsigned n = 0; n < SPACE_PAGES; n++)
            s->page[n] = 0;
        s->generation = 1;
    }
    s->used = s->maps = s->nstale = 0;
    s->all_stale = false;
}

void space_restrict(struct space *s, uint64_t at, unsigned rights) {
    if (space_rights(s, at) & ~rights)
        space_drop(s, at);
}

void space_drop(struct space *s, uint64_t at) {
    uint64_t *p = find(s, at);

    if (!s->cell || s->all_stale || *p >> 48 != s->generation || !(*p & RIGHTS << 1) ||
        *p & STALE)
        return;
    if (s->nstale == SPACE_STALE) {
        s->all_stale = true;
        return;
    }
    *p |= STALE;
    s->stale[s->nstale++] = at;
}
