/* Where code is mapped in cells; see codes.h. */
#include "direct/codes.h"

#define SPACE 0xfffull

static unsigned hash(uint32_t page) {
    return (page * 0x9e3779b1u >> 16) % CODES_HEADS;
}

bool codes_add(struct codes *c, uint32_t page, unsigned space, uint64_t at) {
    uint32_t *head = &c->head[hash(page)];

    for (uint32_t n = *head; n; n = c->code[n].next)
        if (c->code[n].page == page && c->code[n].at == (at | space))
            return true;
    if (c->count + 1 >= CODES)
        return false;
    c->code[++c->count] = (struct code_at){page, *head, at | space};
    *head = c->count;
    return true;
}

void codes_clear(struct codes *c) {
    if (!c->count)
        return;
    c->count = 0;
    for (unsigned n = 0; n < CODES_HEADS; n++)
        c->head[n] = 0;
}

void codes_each(const struct codes *c, uint32_t page,
                void (*fn)(void *arg, unsigned space, uint64_t at), void *arg) {
    for (uint32_t n = c->head[hash(page)]; n; n = c->code[n].next)
        if (c->code[n].page == page)
            fn(arg, (unsigned)(c->code[n].at & SPACE), c->code[n].at & ~SPACE);
}
