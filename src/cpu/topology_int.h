/*
 * What CPUID tells of the CPUs among each other: one package with a core for each, and no
 * threads. The core's number is its APIC ID; the numbers take as many bits as the largest
 * needs. Each core has its L1 and L2 caches, all share the L3.
 */
#ifndef CPU_TOPOLOGY_INT_H
#define CPU_TOPOLOGY_INT_H

#include "cpu/cpuid.h"

unsigned topology_cpus(const struct vcpu *v);
/* Leaf 1, EBX: the initial APIC ID and how many there are. */
uint32_t topology_one(const struct vcpu *v);
/* Intel's leaf 4, and AMD's 0x8000001D. */
struct cpuid_regs topology_caches(const struct vcpu *v, uint32_t index, bool amd);
/* Leaf 0xB: threads, cores. */
struct cpuid_regs topology_levels(const struct vcpu *v, uint32_t index);
/* AMD's 0x8000001E, and ECX of 0x80000008. */
struct cpuid_regs topology_amd(const struct vcpu *v);
uint32_t topology_size(const struct vcpu *v);

#endif
