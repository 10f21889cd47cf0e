/* --cpu; see cpu_option.h. */
#include "ctl/cpu_option.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "ctl/ctl.h"

static void list(void) {
    const char *name, *what, *lacks;

    printf("The guest's CPU is of the host's vendor. --cpu takes one of\n\n");
    for (size_t n = 0; (name = cpuid_model_at(n, &what)); n++) {
        bool offered = cpuid_model_check(name, &lacks) == CPUID_OFFERED;

        printf("  %-20s %s%s%s%s\n", name, what, offered ? "" : "; not here: no ",
               offered ? "" : lacks,
               !strcmp(name, cpuid_model_default()) ? " (the default)" : "");
    }
}

int cpu_option_check(const char *name) {
    const char *lacks;

    vec_init();
    if (!strcmp(name, "help")) {
        list();
        return CTL_OK;
    }
    switch (cpuid_model_check(name, &lacks)) {
    case CPUID_OFFERED:
        return -1;
    case CPUID_NO_SUCH_MODEL:
        log_error("--cpu knows no '%s'; `--cpu help` lists what it knows", name);
        return CTL_USAGE;
    case CPUID_OTHER_VENDOR:
        log_error(
            "--cpu %s is of another vendor than this host's CPU; `--cpu help` lists "
            "what a guest can have",
            name);
        return CTL_USAGE;
    default:
        log_error(
            "--cpu %s needs %s, which this host's CPU lacks; `--cpu help` lists what "
            "a guest can have",
            name, lacks);
        return CTL_HOST_FAILURE;
    }
}
