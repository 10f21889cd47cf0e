/* The records of virtual pages with translated code. */
#include <errno.h>
#include <stdlib.h>

#include "tc/tc_int.h"

int tc_pages_create(struct tc *tc) {
    /* Two for each fragment that there may be, and those of a translation that failed. */
    tc->vpages_max = 2 * (tc->nunits * tc->unit_order + 64);
    if (tc->vpages_max > TC_VPAGES_MAX)
        tc->vpages_max = TC_VPAGES_MAX;
    tc->vpages = calloc(1u << TC_VPAGE_BITS, sizeof(*tc->vpages));
    if (!tc->vpages)
        return -ENOMEM;
    return os_low_alloc(tc->vpages_max * sizeof(*tc->vpage_pool),
                        (void **)&tc->vpage_pool);
}

void tc_pages_free(struct tc *tc) {
    os_low_free(tc->vpage_pool, tc->vpages_max * sizeof(*tc->vpage_pool));
    free(tc->vpages);
}

void tc_pages_reset(struct tc *tc) {
    for (unsigned n = 0; n < 1u << TC_VPAGE_BITS; n++)
        tc->vpages[n] = NULL;
    mmu_code_unwatch_all(tc->v);
    tc->vpages_used = 0;
    tc->vpage_free = NULL;
}

static struct vpage *vpage_alloc(struct tc *tc) {
    struct vpage *p = tc->vpage_free;

    if (p)
        tc->vpage_free = p->next;
    else if (tc->vpages_used < tc->vpages_max)
        p = &tc->vpage_pool[tc->vpages_used++];
    return p;
}

bool tc_is_page(const struct tc *tc, const struct tr_page *p) {
    size_t off = (size_t)((const char *)p - (const char *)tc->vpage_pool);

    return off % sizeof(struct vpage) == 0 &&
           off / sizeof(struct vpage) < tc->vpages_used;
}

void tc_pages_collect(struct tc *tc) {
    for (unsigned n = 0; n < 1u << TC_VPAGE_BITS; n++) {
        struct vpage **at = &tc->vpages[n];

        while (*at) {
            struct vpage *p = *at;

            if (p->fragments) {
                at = &p->next;
                continue;
            }
            *at = p->next;
            p->next = tc->vpage_free;
            tc->vpage_free = p;
        }
    }
}

struct tr_page *tc_page(struct tc *tc, uint64_t va, uint8_t *host, bool user) {
    uint64_t page = va >> 12;
    struct vpage **slot = &tc->vpages[(page ^ page >> 16) & ((1u << TC_VPAGE_BITS) - 1)];
    struct vpage *p;

    va &= ~0xfffull;
    for (p = *slot; p; p = p->next)
        if (p->page.va == va && p->page.host == host && p->page.user == user)
            return &p->page;
    p = vpage_alloc(tc);
    if (!p)
        return NULL;
    *p = (struct vpage){.page = {.va = va,
                                 .host = host,
                                 .user = user,
                                 .global = mmu_code_is_global(tc->v, gva(va))},
                        .next = *slot};
    *slot = p;
    return &p->page;
}
