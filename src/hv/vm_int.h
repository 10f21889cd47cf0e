/* A guest, for the files that it is made of; see vm.c. */
#ifndef HV_VM_INT_H
#define HV_VM_INT_H

#include "hv/hv_int.h"

struct hv_vm {
    const struct hv_config *cfg;
    const struct boot_image *image;
    struct mem *mem;
    struct cpuid_model *cpuid;
    struct vclock *clock;
    struct bus *bus;
    struct board board;
    struct counters counters; /* the devices' */
    struct machine_cpu *cpu;  /* of CPUS */
    struct hv_task *task;     /* of as many */
    unsigned cpus;
    struct vcpu_group *group;
    struct hv_trust *trust; /* NULL: no device of the host's is its */
    uint64_t start_ns, start_tsc;
    uint64_t deadline;      /* the board's, of the guest's clock; the CPUs' are in cpu[].
                               Atomic */
    struct vtimer look;     /* at what is written to (figures.c) */
    uint64_t *written_bits; /* a bit for each page of its memory; NULL: not yet */
    int end;                /* enum hv_end, or GOES_ON */
    uint32_t exit_value;
};

/* --- figures.c --- */

/* At a boot, before the guest runs: what it writes to is told each cfg->written
 * milliseconds from now on. 0 or -ENOMEM. */
int hv_written_start(struct hv_vm *m);

#endif
