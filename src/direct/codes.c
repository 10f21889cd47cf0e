/* Where code is mapped in cells; see codes.h. */
#include "direct/codes.h"

static unsigned hash(uint32_t page) {
    return (page * 0x9e3779b1u >> 20) % CODES_HEADS;
}

bool codes_add(struct codes *c, uint32_t page, unsigned space, uint64_t at) {
    uint16_t *head = &c->head[hash(page)];

    for (uint16_t n = *head; n; n = c->code[n].next)
        if (c->code[n].page == page && c->code[n].space == space && c->code[n].at == at)
            return true;
    if (c->count + 1 >= CODES)
        return false;
    c->code[++c->count] = (struct code_at){page, *head, (uint16_t)space, at};
    *head = (uint16_t)c->count;
    return true;
}

void codes_clear(struct codes *c) {
    c->count = 0;
    for (unsigned n = 0; n < CODES_HEADS; n++)
        c->head[n] = 0;
}

void codes_each(const struct codes *c, uint32_t page,
                void (*fn)(void *arg, unsigned space, uint64_t at), void *arg) {
    for (uint16_t n = c->head[hash(page)]; n; n = c->code[n].next)
        if (c->code[n].page == page)
            fn(arg, c->code[n].space, c->code[n].at);
}
