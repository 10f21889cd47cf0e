/* The CPUs among each other, for CPUID; see topology_int.h. */
#include "cpu/topology_int.h"

#include "cpu/smp.h"
#include "cpu/vcpu.h"

unsigned topology_cpus(const struct vcpu *v) {
    return v->member ? v->member->group->count : 1;
}

static uint32_t apic_id(const struct vcpu *v) {
    return v->member ? v->member->index : 0;
}

/* Bits of an APIC ID. */
static unsigned id_bits(const struct vcpu *v) {
    unsigned bits = 0;

    while (1u << bits < topology_cpus(v))
        bits++;
    return bits;
}

uint32_t topology_one(const struct vcpu *v) {
    return apic_id(v) << 24 | topology_cpus(v) << 16;
}

struct cpuid_regs topology_caches(const struct vcpu *v, uint32_t index, bool amd) {
    /* L1 data and code 32 KiB, L2 1 MiB, L3 32 MiB */
    static const struct {
        uint8_t type, level;
        uint16_t ways;
        uint32_t sets, edx;
    } caches[] = {
        {1, 1, 8, 64, 0}, {2, 1, 8, 64, 0}, {3, 2, 8, 2048, 2}, {3, 3, 16, 32768, 1}};
    uint32_t others = (1u << id_bits(v)) - 1;

    if (index >= ARRAY_SIZE(caches))
        return (struct cpuid_regs){0};
    return (struct cpuid_regs){
        .eax = caches[index].type | (uint32_t)caches[index].level << 5 | 1u << 8 |
               (caches[index].level == 3 ? others << 14 : 0) | (amd ? 0 : others << 26),
        .ebx = 63 | (caches[index].ways - 1u) << 22,
        .ecx = caches[index].sets - 1,
        .edx = caches[index].edx};
}

struct cpuid_regs topology_levels(const struct vcpu *v, uint32_t index) {
    struct cpuid_regs r = {.ecx = index & 0xff, .edx = apic_id(v)};

    if (index < 2) {
        r.eax = index ? id_bits(v) : 0;
        r.ebx = index ? topology_cpus(v) : 1;
        r.ecx |= (index + 1) << 8;
    }
    return r;
}

struct cpuid_regs topology_amd(const struct vcpu *v) {
    return (struct cpuid_regs){.eax = apic_id(v), .ebx = apic_id(v)};
}

uint32_t topology_size(const struct vcpu *v) {
    return id_bits(v) << 12 | (topology_cpus(v) - 1);
}
