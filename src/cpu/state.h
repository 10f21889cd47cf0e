/*
 * The architectural state of a vCPU, part by part: the table that cpu/state.def becomes.
 *
 * A part is one number, or a set of vector or x87 registers of one kind. All of it is
 * exact between two calls of an engine's run() only, with the vector state parked.
 */
#ifndef CPU_STATE_H
#define CPU_STATE_H

#include "cpu/vcpu.h"

enum vcpu_part_group {
    VCPU_GROUP_GENERAL,
    VCPU_GROUP_SEGMENTS,
    VCPU_GROUP_CONTROL,
    VCPU_GROUP_DEBUG,
    VCPU_GROUP_PENDING,
    VCPU_GROUP_SYSTEM,
    VCPU_GROUP_TYPES,
    VCPU_GROUP_X87,
    VCPU_GROUP_VECTOR,
};

enum vcpu_how { VCPU_SAME, VCPU_OPEN }; /* cpu/state.def says which is what */

struct vcpu_part {
    const char *name;
    uint64_t bits; /* of a number: which are state */
    uint16_t off;  /* in struct vcpu; in its component of the image */
    uint8_t size;  /* of one register, in bytes; of a number at most 8 */
    uint8_t count, stride;
    uint8_t component; /* VCPU_GROUP_VECTOR: of XCR0 */
    uint8_t group;     /* enum vcpu_part_group */
    uint8_t how;       /* enum vcpu_how */
};

extern const struct vcpu_part vcpu_parts[];
extern const size_t vcpu_part_count;

/* Where register REG of P is in struct vcpu; 0: the host's CPU has no such component. */
unsigned vcpu_part_offset(const struct vcpu_part *p, unsigned reg);
/* The number P (of any group but VCPU_GROUP_VECTOR). */
uint64_t vcpu_part_number(const struct vcpu *v, const struct vcpu_part *p);

/* The status flags need not be the same: for vcpu_part_differs(). */
#define VCPU_LOOSE 1u

/* Is register REG of P another in A than in B, where engines have to agree? */
bool vcpu_part_differs(const struct vcpu *a, const struct vcpu *b,
                       const struct vcpu_part *p, unsigned reg, unsigned loose);
/* True when nothing differs. */
bool vcpu_same(const struct vcpu *a, const struct vcpu *b, unsigned loose);

/* A digest of what engines have to agree about, continued from HASH. */
uint64_t vcpu_digest(uint64_t hash, const struct vcpu *v);
/* One step of it: a good mix of bits, not a cryptographic one. */
static inline uint64_t vcpu_mix(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 29;
}

#endif
