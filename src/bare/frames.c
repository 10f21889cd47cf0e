/*
 * Physical memory: a list of free ranges, from whose low ends single pages are taken and
 * from whose high ends large pieces; pages that came back are in a list of their own.
 * Large pieces do not come back: they are a guest's RAM, which lives as long as we do.
 *
 * Everything is mapped one to one, so that a pointer is a physical address.
 *
 * Locking: one lock; what is added is added before there are other CPUs.
 */
#include <string.h>

#include "bare/bare_int.h"

#define RANGES 64u
#define PAGE 4096ull

static struct range { uint64_t start, end; } range[RANGES];
static unsigned ranges;
static void **free_pages; /* each has the next one's address in it */
static uint64_t total, top;
static struct bare_lock lock;

void bare_frames_add(uint64_t start, uint64_t end) {
    start = (start + PAGE - 1) & ~(PAGE - 1);
    end &= ~(PAGE - 1);
    if (start >= end || ranges == RANGES)
        return;
    range[ranges++] = (struct range){start, end};
    total += end - start;
    if (end > top)
        top = end;
}

uint64_t bare_frames_top(void) {
    return top;
}

uint64_t bare_memory(void) {
    return total;
}

static void *take_page(void) {
    void **page = free_pages;

    if (page)
        free_pages = *page;
    for (unsigned n = 0; !page && n < ranges; n++) {
        if (range[n].start == range[n].end)
            continue;
        page = (void **)(uintptr_t)range[n].start;
        range[n].start += PAGE;
    }
    return page;
}

void *bare_frame(void) {
    uint64_t flags = bare_lock(&lock);
    void *page = take_page();

    bare_unlock(&lock, flags);
    if (page)
        memset(page, 0, PAGE);
    return page;
}

void bare_frame_free(void *page) {
    uint64_t flags;

    if (!page)
        return;
    flags = bare_lock(&lock);
    *(void **)page = free_pages;
    free_pages = page;
    bare_unlock(&lock, flags);
}

/* The highest piece; 0: there is none. */
static uint64_t take_piece(uint64_t size, uint64_t align) {
    struct range *best = NULL;
    uint64_t at = 0;

    for (unsigned n = 0; n < ranges; n++) {
        struct range *r = &range[n];
        uint64_t start = (r->end - size) & ~(align - 1);

        if (size > r->end - r->start || start < r->start || start <= at)
            continue;
        best = r;
        at = start;
    }
    if (best)
        best->end = at;
    return at;
}

void *bare_frames(uint64_t size, uint64_t align) {
    uint64_t flags = bare_lock(&lock), at;

    size = (size + PAGE - 1) & ~(PAGE - 1);
    at = take_piece(size, align);
    bare_unlock(&lock, flags);
    if (!at)
        return NULL;
    memset((void *)(uintptr_t)at, 0, size);
    return (void *)(uintptr_t)at;
}
