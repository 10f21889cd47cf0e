/* What can be measured: frob's benchmarks and loads by name, and retention policies. */
#include <string.h>

#include "compare/compare.h"

/* Adams and Agesen, section 6.3: cycles on a 3.8 GHz Pentium 4. */
const struct compare_bench compare_benches[] = {
    {"syscall", "system call and return", 242, 2308, 246, true},
    {"int80", "int 0x80 and return", 0, 0, 0, true},
    {"pgfault", "page fault of user code and return", 1093, 3927, 11242, true},
    {"divzero", "division by zero in user code and return", 889, 3223, 1014, true},
    {"in", "read of port 0x80", 3209, 216, 15826, false},
    {"cr8wr", "write to CR8", 150, 35, 177, false},
    {"callret", "call and return", 11, 51, 11, false},
    {"icall", "call through a register and return", 0, 0, 0, false},
    {"rdtsc", "read of the time-stamp counter", 0, 0, 0, false},
    {"cli_sti", "interrupts off and on", 0, 0, 0, false},
    {"popf", "push and POPF that moves IF", 0, 0, 0, false},
    {"cpuid", "CPUID", 0, 0, 0, false},
    {"ptemod_same", "page-table entry, unchanged", 1, 391, 12733, false},
    {"ptemod_p2np", "page-table entry, present to not", 4, 17, 9154, false},
    {"ptemod_np2p", "page-table entry, not present to present", 5, 2121, 17020, false},
    {"hiddenpf", "first touch of a page after a flush", 0, 0, 0, false},
    {"invlpg", "INVLPG", 0, 0, 0, false},
    {"cr3_2", "CR3 switch and one load, 2 address spaces", 0, 0, 0, false},
    {"cr3_8", "CR3 switch and one load, 8 address spaces", 0, 0, 0, false},
    {"cr3_64", "CR3 switch and one load, 64 address spaces", 0, 0, 0, false},
    {"movs4k", "rep movs of 4 KiB", 0, 0, 0, false},
    {"smc", "store into code and its call", 0, 0, 0, false},
    {"mmio", "read of an APIC register", 0, 0, 0, false},
    {"selfipi", "interrupt to oneself, handled", 0, 0, 0, false},
    {"hlt", "lateness of the wake-up from HLT", 0, 0, 0, false},
};
const unsigned compare_bench_count = ARRAY_SIZE(compare_benches);
_Static_assert(ARRAY_SIZE(compare_benches) <= COMPARE_BENCHES, "figures");

int compare_index(const char *name) {
    for (unsigned n = 0; n < compare_bench_count; n++)
        if (!strcmp(name, compare_benches[n].name))
            return (int)n;
    return -1;
}

bool compare_in_list(const char *list, const char *name) {
    size_t len = strlen(name);

    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (!strncmp(at, name, len) && (at[len] == ',' || !at[len]))
            return true;
    }
    return !list;
}

const char *const compare_policies[COMPARE_POLICIES] = {"flush", "pcid", "trace"};
const char *const compare_loads[COMPARE_LOADS] = {"load_switch", "load_fault", "load_pt"};
const char *const compare_load_what[COMPARE_LOADS] = {
    "8 processes in turn, each touches 16 pages; an operation is a switch with them",
    "first touches: fault, map, touch, later unmap; an operation is a page",
    "a page table rewritten in place; an operation is an entry, with its INVLPG",
};
