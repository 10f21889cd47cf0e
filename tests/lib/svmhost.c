/* A host's memory for svm/; see svmhost.h. */
#include "lib/svmhost.h"

#include <stdlib.h>
#include <string.h>

#include "lib/need.h"

static void *kept[8192];
static unsigned count;

void *svmhost_alloc(void *arg, uint64_t size) {
    void *p = aligned_alloc(4096, size);

    need(p, "out of memory");
    return memset(p, 0, size);
}

void svmhost_free(void *arg, void *page) {
    free(page);
}

uint64_t svmhost_phys(void *arg, const void *p) {
    return (uintptr_t)p;
}

void *svmhost_virt(void *arg, uint64_t at) {
    return (void *)(uintptr_t)at;
}

void *svmhost_alloc_kept(void *arg, uint64_t size) {
    void *p = svmhost_alloc(arg, size);

    need(count < ARRAY_SIZE(kept), "too many pages");
    return kept[count++] = p;
}

void svmhost_keep(void *arg, void *page) {
}

void svmhost_end(void) {
    while (count)
        free(kept[--count]);
}
