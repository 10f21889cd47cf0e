/* `bivisor check`: what this host offers to each engine, in words. */
#include <cpuid.h>
#include <stdio.h>
#include <string.h>

#include "base/jail.h"
#include "base/log.h"
#include "base/os.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "ctl/ctl.h"
#include "direct/direct.h"
#include "kvm/kvm.h"
#include "machine/machine.h"

/* Of the x86-64 psABI, that the default CPU has. */
static const char *level(void) {
    struct cpuid_config cfg = {0};
    struct cpuid_model *m = cpuid_model_new(&cfg);
    bool v2 = m && cpuid_has(m, CPUID_F_SSE42) && cpuid_has(m, CPUID_F_POPCNT);
    bool v3 = v2 && cpuid_has(m, CPUID_F_AVX2) && cpuid_has(m, CPUID_F_BMI2) &&
              cpuid_has(m, CPUID_F_FMA);

    cpuid_model_free(m);
    return v3   ? "x86-64-v3 (AVX2, BMI2, FMA)"
           : v2 ? "x86-64-v2, because this host's CPU lacks AVX2, BMI2 or FMA"
                : "less than x86-64-v2";
}

static void check_cpu(void) {
    char brand[49] = "";

    for (unsigned i = 0; i < 3; i++) {
        uint32_t r[4];

        __cpuid(0x80000002 + i, r[0], r[1], r[2], r[3]);
        memcpy(brand + i * 16, r, 16);
    }
    printf("host       %s, TSC %.0f MHz\n", brand, (double)os_tsc_hz() / 1e6);
    vec_init();
    printf("           a guest is offered %s\n", level());
    printf("           its CPU is %s; `bivisor run --cpu help` lists others\n",
           cpuid_model_default());
}

/* The engines of ours need memory that can be written in one place and executed in
 * another. */
static bool check_code_memory(void) {
    struct os_code code;
    int rc = os_code_map(1 << 16, &code);

    if (rc) {
        printf("code       no executable memory here: %s\n", strerror(-rc));
        return false;
    }
    os_code_unmap(&code);
    return true;
}

/* What `bivisor run` locks itself up with. */
static void check_jail(void) {
    int rc = os_jail_probe();
    char more[512];

    os_jail_describe(more, sizeof(more));
    if (rc)
        printf("jail       none: %s\n", jail_why(rc));
    else
        printf("jail       system calls are filtered for each kind of thread, privileges "
               "cannot be gained%s\n",
               more);
}

/* User code on the CPU as it is. */
static void check_direct(void) {
    const char *lacks = direct_host_lacks();

    if (lacks)
        printf("direct     not possible: %s\n", lacks);
    else
        printf(
            "direct     with bt, user code that computes runs as it is (`--direct off`: "
            "it does not)\n");
}

static void check_kvm(const char *what) {
    struct kvm_probe p;
    char text[384];

    kvm_probe(&p);
    kvm_probe_text(&p, text, sizeof(text));
    printf("%-10s %s%s\n", "kvm",
           p.verdict == KVM_FAST || p.verdict == KVM_SLOW ? "" : "not usable: ", text);
    printf("%-10s %s; %s\n", "", what,
           p.verdict == KVM_FAST ? "`--engine auto` takes it"
                                 : "`--engine auto` does not take it");
}

static void check_engines(bool code) {
    size_t count;
    const struct engine_ops *const *engines = machine_engines(&count);

    for (size_t i = 0; i < count; i++) {
        if (!strcmp(engines[i]->name, "kvm"))
            check_kvm(engines[i]->what);
        else
            printf("%-10s %s: %s\n", engines[i]->name,
                   code ? "usable" : "not usable without executable memory",
                   engines[i]->what);
    }
}

int ctl_cmd_check(int argc, char **argv) {
    bool code;

    if (argc > 1 && !strcmp(argv[1], "--help")) {
        printf("usage: bivisor check\n\nTells what this host offers to each engine.\n");
        return CTL_OK;
    }
    if (argc > 1) {
        log_error("`bivisor check` takes no arguments");
        return CTL_USAGE;
    }
    check_cpu();
    code = check_code_memory();
    check_jail();
    check_engines(code);
    check_direct();
    return code ? CTL_OK : CTL_HOST_FAILURE;
}
