/*
 * The address kinds. Mixing them does not compile.
 *
 * A guest linear address ("virtual", after segmentation) is struct gva; a guest physical
 * one is struct gpa; a host address is a plain pointer.
 */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gva {
    uint64_t a;
};

struct gpa {
    uint64_t a;
};

/* Scalars at any address: guests need not align theirs. */
typedef uint16_t unaligned_u16 __attribute__((aligned(1), may_alias));
typedef uint32_t unaligned_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t unaligned_u64 __attribute__((aligned(1), may_alias));

static inline struct gva gva(uint64_t a) {
    return (struct gva){a};
}

static inline struct gpa gpa(uint64_t a) {
    return (struct gpa){a};
}

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ARRAY_SIZE(x) (sizeof(x) / sizeof((x)[0]))
#define container_of(ptr, type, member)                                                  \
    ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
