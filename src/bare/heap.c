/*
 * malloc() and its kin: powers of two, a free list for each; blocks come from one area
 * whose pages come when they are touched, so that the half of a large block that nobody
 * uses costs nothing. A block has a head of 16 bytes in front of it; an aligned one lies
 * in a larger block and its head says where that begins.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bare/bare_int.h"

#define AREA (1ull << 38)
#define CLASSES 40u
#define SMALLEST 5u /* 32 bytes */

struct head {
    uint32_t class;
    uint32_t used_before; /* by another: its bytes are not zero */
    uint64_t back;        /* from here to the block's own head, for an aligned one */
};
struct block {
    struct head head;
    struct block *next;
};
_Static_assert(sizeof(struct head) == 16, "alignment of malloc()");

static struct block *free_list[CLASSES];
static uint8_t *at, *end;
static _Thread_local int error;
static uint32_t lock; /* no interrupt's handler is here */

static void enter(void) {
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
        __builtin_ia32_pause();
}

static void leave(void) {
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
}

int *__errno_location(void) {
    return &error;
}

static struct block *more(unsigned class) {
    struct block *b;

    if (!at) {
        at = bare_demand(AREA);
        end = at ? at + AREA : at;
    }
    if ((uint64_t)(end - at) < 1ull << class)
        return NULL;
    b = (struct block *)at;
    at += 1ull << class;
    b->head = (struct head){.class = class};
    return b;
}

static struct head *allocate(uint64_t size) {
    unsigned class = SMALLEST;
    struct block *b;

    while (class < CLASSES && 1ull << class < size + sizeof(struct head))
        class ++;
    /* What there is no memory for is refused here, not when it is touched. */
    if (class == CLASSES || size > bare_memory()) {
        error = ENOMEM;
        return NULL;
    }
    enter();
    b = free_list[class];
    if (b)
        free_list[class] = b->next;
    else
        b = more(class);
    leave();
    if (!b)
        error = ENOMEM;
    return b ? &b->head : NULL;
}

void *malloc(size_t size) {
    struct head *h = allocate(size);

    return h ? h + 1 : NULL;
}

void *calloc(size_t count, size_t size) {
    struct head *h;

    if (size && count > SIZE_MAX / size)
        return NULL;
    h = allocate(count * size);
    if (h && h->used_before)
        memset(h + 1, 0, count * size);
    return h ? h + 1 : NULL;
}

void free(void *p) {
    struct head *h = p ? (struct head *)p - 1 : NULL;
    struct block *b;

    if (!h)
        return;
    b = (struct block *)((uint8_t *)h - h->back);
    b->head.used_before = 1;
    enter();
    b->next = free_list[b->head.class];
    free_list[b->head.class] = b;
    leave();
}

void *realloc(void *p, size_t size) {
    struct head *h = p ? (struct head *)p - 1 : NULL;
    uint64_t room = h ? (1ull << h->class) - sizeof(*h) : 0;
    void *other;

    if (room >= size && p)
        return p;
    other = malloc(size);
    if (!other)
        return NULL;
    if (p)
        memcpy(other, p, room);
    free(p);
    return other;
}

void *aligned_alloc(size_t align, size_t size) {
    struct head *h = allocate(size + align + sizeof(*h)), *inner;
    uint64_t aligned;

    if (!h)
        return NULL;
    aligned = ((uintptr_t)(h + 1) + align - 1) & ~(uint64_t)(align - 1);
    inner = (struct head *)aligned - 1;
    if (inner != h)
        *inner = (struct head){.class = h->class,
                               .back = (uint64_t)((uint8_t *)inner - (uint8_t *)h)};
    return (void *)aligned;
}
