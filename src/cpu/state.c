/*
 * The table of the architectural state, and comparing and digesting by it; see state.h.
 * lint: no guest runs here.
 */
#include "cpu/state.h"

#include <string.h>

#include "cpu/vec.h"
#include "x86/cr.h"

#define NUMBER(group_, name_, field, bits_, how_)                                        \
    {.name = name_,                                                                      \
     .bits = bits_,                                                                      \
     .off = offsetof(struct vcpu, field),                                                \
     .size = sizeof(((struct vcpu *)0)->field),                                          \
     .count = 1,                                                                         \
     .group = VCPU_GROUP_##group_,                                                       \
     .how = VCPU_##how_},
#define STATE NUMBER
#define MSR(group, name, field, number) NUMBER(group, name, field, ~0ull, SAME)
#define SEGMENT(name, field)                                                             \
    NUMBER(SEGMENTS, name ".sel", field.sel, ~0ull, SAME)                                \
    NUMBER(SEGMENTS, name ".ar", field.ar, ~0ull, SAME)                                  \
    NUMBER(SEGMENTS, name ".limit", field.limit, ~0ull, SAME)                            \
    NUMBER(SEGMENTS, name ".base", field.base, ~0ull, SAME)
#define TABLE(name, field)                                                               \
    NUMBER(SEGMENTS, name ".base", field.base, ~0ull, SAME)                              \
    NUMBER(SEGMENTS, name ".limit", field.limit, ~0ull, SAME)
#define VECTOR(name_, component_, off_, count_, size_, stride_)                          \
    {.name = name_,                                                                      \
     .off = off_,                                                                        \
     .size = size_,                                                                      \
     .count = count_,                                                                    \
     .stride = stride_,                                                                  \
     .component = component_,                                                            \
     .group = VCPU_GROUP_VECTOR},

const struct vcpu_part vcpu_parts[] = {
#include "cpu/state.def"
};
const size_t vcpu_part_count = ARRAY_SIZE(vcpu_parts);

unsigned vcpu_part_offset(const struct vcpu_part *p, unsigned reg) {
    unsigned image = offsetof(struct vcpu, vec);

    if (p->group != VCPU_GROUP_VECTOR)
        return p->off;
    if (p->component < 2)
        return image + p->off + p->stride * reg;
    if (!vec_size(p->component))
        return 0;
    return image + vec_offset(p->component) + p->off + p->stride * reg;
}

uint64_t vcpu_part_number(const struct vcpu *v, const struct vcpu_part *p) {
    uint64_t x = 0;

    memcpy(&x, (const char *)v + p->off, p->size);
    return x & p->bits;
}

bool vcpu_part_differs(const struct vcpu *a, const struct vcpu *b,
                       const struct vcpu_part *p, unsigned reg, unsigned loose) {
    unsigned at = vcpu_part_offset(p, reg);
    uint64_t status = 0;

    if (p->how == VCPU_OPEN)
        return false;
    if (p->group == VCPU_GROUP_VECTOR)
        return at && memcmp((const char *)a + at, (const char *)b + at, p->size);
    if ((loose & VCPU_LOOSE) && at == offsetof(struct vcpu, rflags))
        status = X86_FL_STATUS;
    return (vcpu_part_number(a, p) ^ vcpu_part_number(b, p)) & ~status;
}

bool vcpu_same(const struct vcpu *a, const struct vcpu *b, unsigned loose) {
    for (size_t n = 0; n < vcpu_part_count; n++)
        for (unsigned reg = 0; reg < vcpu_parts[n].count; reg++)
            if (vcpu_part_differs(a, b, &vcpu_parts[n], reg, loose))
                return false;
    return true;
}

/* Registers that are 0 leave no trace: so hosts that have a component, which the guest
 * does not, and hosts without it come to the same. */
static uint64_t mix_register(uint64_t h, const uint8_t *at, unsigned size, unsigned id) {
    uint64_t was = h, any = 0;

    h = vcpu_mix(h, id);
    for (unsigned k = 0; k < size; k += 8) {
        uint64_t word = 0;

        memcpy(&word, at + k, size - k < 8 ? size - k : 8);
        any |= word;
        h = vcpu_mix(h, word);
    }
    return any ? h : was;
}

uint64_t vcpu_digest(uint64_t h, const struct vcpu *v) {
    for (size_t n = 0; n < vcpu_part_count; n++) {
        const struct vcpu_part *p = &vcpu_parts[n];

        if (p->how == VCPU_OPEN)
            continue;
        if (p->group != VCPU_GROUP_VECTOR) {
            h = vcpu_mix(h, vcpu_part_number(v, p));
            continue;
        }
        for (unsigned reg = 0; reg < p->count && vcpu_part_offset(p, reg); reg++)
            h = mix_register(h, (const uint8_t *)v + vcpu_part_offset(p, reg), p->size,
                             (unsigned)n << 8 | reg);
    }
    return h;
}
