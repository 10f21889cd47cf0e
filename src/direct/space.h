/*
 * What a cell maps, and what of it the shadow has dropped since: a hash of pages, of one
 * address space of one vCPU. A dropped page is unmapped with the next orders, before the
 * cell runs again; after a flush of all each is compared with the guest's tables.
 *
 * Of the core rooms' kind: the MMU's observers call it.
 */
#ifndef DIRECT_SPACE_H
#define DIRECT_SPACE_H

#include "base/types.h"

#define SPACE_PAGES (1u << 17) /* places; three quarters of them may be taken */
#define SPACE_STALE 1024u      /* pages that were dropped and not yet unmapped */
#define SPACE_LARGE 4096u
#define SPACE_MAPS 32000u /* pieces; Linux allows 65530 (vm.max_map_count) */

struct space_place {
    /* The guest address of a mapped page, with its rights in bits 1 to 3, that it is
     * among the stale ones in bit 4, and the generation in bits 48 to 63; a place of
     * another generation is free. */
    uint64_t page;
    uint32_t ram;   /* what it shows: the number of the page of RAM */
    uint32_t taken; /* of place N: the place that was taken as the Nth */
};

struct space {
    struct cell *cell;         /* NULL: this space has none */
    struct space_place *place; /* SPACE_PAGES, by hash */
    uint16_t generation;
    unsigned used; /* places that are not free */
    unsigned maps; /* pieces that the host may have made of it */
    unsigned nstale;
    uint64_t stale[SPACE_STALE];
    bool all_stale; /* everything is to be unmapped */
    bool unsure;    /* the shadow was flushed: each page is to be looked at */
    uint64_t large[SPACE_LARGE / 64]; /* by hash: pieces of 2 MiB that large pages show */
};

/* 0 or -ENOMEM. */
int space_init(struct space *s);
void space_free(struct space *s);
/* The rights with which page AT is mapped, 1u << enum mmu_access, or 0. */
unsigned space_rights(const struct space *s, uint64_t at);
/* It is mapped, or was since everything was unmapped. */
bool space_knows(const struct space *s, uint64_t at);

/* Notes that page RAM of the memory is being mapped. False: there is no room. */
bool space_note(struct space *s, uint64_t at, unsigned rights, uint32_t ram);
/* The page that was noted as the Nth of s->used, and what of it is mapped and not stale.
 */
uint64_t space_noted(const struct space *s, unsigned n, unsigned *rights, uint32_t *ram);
/* AT is in a large page of the guest's. */
void space_set_large(struct space *s, uint64_t at);
bool space_is_large(const struct space *s, uint64_t at);
void space_forget(struct space *s, uint64_t at);
/* Nothing is mapped. */
void space_clear(struct space *s);
/* No rights but RIGHTS: who has others is dropped. */
void space_restrict(struct space *s, uint64_t at, unsigned rights);
/* The shadow has dropped an entry for AT. */
void space_drop(struct space *s, uint64_t at);

#endif
