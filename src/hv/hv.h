/*
 * bivisor as a hypervisor of type 1: the rooms of the machine, put together on the bare
 * machine for the guests that the loader's modules and command line describe
 * (docs/svm.md).
 */
#ifndef HV_HV_H
#define HV_HV_H

#include "base/types.h"
#include "bt/bt.h"
#include "engine/engine.h"
#include "svm/svm.h"

#define HV_GUESTS 8u
#define HV_CPUS 16u /* of a guest */
#define HV_DEVICES 4u

struct hv_config {
    unsigned number;     /* of the guest, from 1 on */
    bool several;        /* there are others */
    unsigned cpus;       /* the guest's */
    const char *engine;  /* a name of hv_engines() */
    uint64_t memory;     /* bytes */
    const char *cmdline; /* the guest's */
    struct svm_options svm;
    bool paravirt;   /* the guest is told of KVM's clock, and what its CPUs have between
                        them */
    unsigned policy; /* enum mmu_policy */
    struct bt_options bt;
    bool stats;       /* are told at the end */
    unsigned written; /* milliseconds: how often what it writes to is told; 0: never */
    bool trusted;     /* with devices of the host's */
    const char *device[HV_DEVICES]; /* these; trust.c knows them */
    unsigned devices;
};

/* How a guest's life ended. */
enum hv_end {
    HV_POWEROFF,
    HV_RESET,
    HV_DEBUG_EXIT, /* it wrote to the debug-exit port */
    HV_SHUTDOWN,   /* triple fault */
    HV_ERROR,      /* the engine failed; it has said why */
};

/* --- config.c --- */

/* What holds when no word is said. */
struct hv_config hv_config_defaults(void);
/* `engine=svm memory=256 stats -- text for the guest`, added to what is in OUT. 0, or
 * -EINVAL with one sentence in WHY. TEXT is changed and must outlive OUT. */
int hv_config_parse(char *text, struct hv_config *out, char *why, size_t why_size);

/* 0, or -EINVAL with one sentence in WHY: what its words do not say together. */
int hv_config_check(const struct hv_config *c, char *why, size_t why_size);

/* --- engines.c --- */
const struct engine_ops *const *hv_engines(size_t *count);
/* Whether the guest's accesses to COUNT ports are the host's, without exits; for engines
 * that have no such thing nothing is to do. */
void hv_engine_ports(const struct engine_ops *ops, struct engine *e, uint16_t first,
                     unsigned count, bool open);

/* Dirty logging: from now on, and what is known since (svm_log_writes(),
 * svm_tell_written()). Engines whose guests honour traces have nothing to do. */
void hv_engine_log_writes(const struct engine_ops *ops, struct engine *e);
void hv_engine_tell_written(const struct engine_ops *ops, struct engine *e);

/* --- vm.c, figures.c --- */

struct hv_vm;
struct boot_image;

/* 0, or -errno with one sentence in WHY. CFG and IMAGE must outlive it. */
int hv_vm_new(const struct hv_config *cfg, const struct boot_image *image,
              struct hv_vm **out, char *why, size_t why_size);
/* Power-up state, the kernel loaded. As hv_vm_new(). */
int hv_vm_boot(struct hv_vm *m, char *why, size_t why_size);
/* How it has ended, after hv_sched_run(). */
enum hv_end hv_vm_end(const struct hv_vm *m);
/* What the guest wrote to the debug-exit port. */
uint32_t hv_vm_exit_value(const struct hv_vm *m);
/* Its counters and exits, as lines of the log. */
void hv_vm_stats(const struct hv_vm *m);

#endif
