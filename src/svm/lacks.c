/*
 * What the CPU lacks of SVM, and what that costs, in words. AMD64 APM volume 2, "Secure
 * Virtual Machine"; volume 3, "Function 8000_000Ah - SVM Features".
 */
#include <stdio.h>

#include "base/types.h"
#include "svm/svm.h"
#include "x86/svm.h"

#define LEAF_POWER 0x80000007u  /* "Processor Power Management and RAS Capabilities" */
#define TSC_INVARIANT (1u << 8) /* its EDX */

static const struct want {
    uint32_t leaf, bit;      /* of its EDX */
    const char *what, *cost; /* NULL: it is not used, for our own decoder does the work */
} want[] = {
    {X86_SVM_LEAF, X86_SVM_NPT, "nested paging", "page tables are shadowed"},
    {X86_SVM_LEAF, X86_SVM_FLUSH_BY_ASID, "flush by ASID",
     "each flush takes the translations of all guests"},
    {X86_SVM_LEAF, X86_SVM_PAUSE_FILTER, "PAUSE filter",
     "a guest's CPU that waits in a loop keeps the host's until its turn ends"},
    {X86_SVM_LEAF, X86_SVM_NRIPS, "NRIP save", NULL},
    {X86_SVM_LEAF, X86_SVM_DECODE_ASSISTS, "decode assists", NULL},
    {LEAF_POWER, TSC_INVARIANT, "an invariant TSC",
     "guests' time may drift when the CPU changes its speed"},
};

void svm_lacks(const struct svm_host *host, char *text, size_t size) {
    struct cpuid_regs r = host->cpuid(host->arg, X86_SVM_LEAF, 0);
    const char *before = "; the CPU lacks ";
    size_t at = (size_t)snprintf(text, size, "SVM, %u ASIDs", r.ebx);

    for (unsigned n = 0; n < ARRAY_SIZE(want); n++) {
        const struct want *w = &want[n];

        if (at >= size || host->cpuid(host->arg, w->leaf, 0).edx & w->bit)
            continue;
        at += (size_t)snprintf(text + at, size - at, "%s%s (%s)", before, w->what,
                               w->cost ? w->cost : "not used");
        before = ", ";
    }
}
