/* --cpu; see cpu_option.h. */
#include "ctl/cpu_option.h"

#include <stdio.h>
#include <stdlib.h>
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
    printf("\nand behind it changes to the features that CPUID tells of, each as\n"
           "LEAF.SUBLEAF.REGISTER=BITS, such as %s,7.0.ebx=0bx0xxxx: a 0 takes a\n"
           "feature away, a 1 wants it, an x leaves it. Leaf 1's EAX, the signature, can "
           "be\nchanged, too.\n",
           cpuid_model_default());
}

/* --- changes --- */

static const char *const registers[] = {"eax", "ebx", "ecx", "edx"};

/* "0b10x": the last is bit 0, what is not written is left; '_' may be between them. */
static bool take_bits(const char *text, struct cpuid_change *c) {
    unsigned count = 0;

    if (strncmp(text, "0b", 2) != 0 || !text[2])
        return false;
    for (const char *p = text + strlen(text); p-- > text + 2;) {
        if (*p == '_')
            continue;
        if (count == 32 || !strchr("01x", *p))
            return false;
        c->set |= (uint32_t)(*p == '1') << count;
        c->clear |= (uint32_t)(*p == '0') << count;
        count++;
    }
    return count;
}

static bool take_number(const char *text, char **end, uint32_t *out) {
    bool binary = !strncmp(text, "0b", 2);
    unsigned long long n = strtoull(binary ? text + 2 : text, end, binary ? 2 : 0);

    *out = (uint32_t)n;
    return *end != text && *text >= '0' && *text <= '9' && n <= UINT32_MAX;
}

/* LEAF.SUBLEAF.REGISTER=BITS */
static bool parse_change(const char *text, struct cpuid_change *c) {
    char *at;

    *c = (struct cpuid_change){0};
    if (!take_number(text, &at, &c->leaf) || *at != '.' ||
        !take_number(at + 1, &at, &c->subleaf) || *at != '.')
        return false;
    for (at++; c->reg < ARRAY_SIZE(registers); c->reg++)
        if (!strncmp(at, registers[c->reg], 3) && at[3] == '=')
            return take_bits(at + 4, c);
    return false;
}

static int take_change(const char *text, struct machine_config *m) {
    struct cpuid_change *c = &m->cpu_change[m->cpu_changes];
    const char *lacks;

    if (m->cpu_changes == MACHINE_CPU_CHANGES) {
        log_error("--cpu has %u changes at most", MACHINE_CPU_CHANGES);
        return CTL_USAGE;
    }
    if (!parse_change(text, c)) {
        log_error("--cpu wants changes as LEAF.SUBLEAF.REGISTER=BITS, such as "
                  "7.0.ebx=0bx0xxxx, not '%s'",
                  text);
        return CTL_USAGE;
    }
    m->cpu_changes++;
    switch (cpuid_change_check(m->cpu, c, &lacks)) {
    case CPUID_OFFERED:
        return -1;
    case CPUID_NO_SUCH_MODEL:
        log_error("--cpu: what leaf 0x%x, subleaf 0x%x has in %s cannot be changed",
                  c->leaf, c->subleaf, registers[c->reg]);
        return CTL_USAGE;
    default:
        log_error("--cpu: leaf 0x%x, subleaf 0x%x, %s: %s cannot be had here", c->leaf,
                  c->subleaf, registers[c->reg], lacks);
        return CTL_HOST_FAILURE;
    }
}

/* --- the model --- */

static int check_name(const char *name) {
    const char *lacks;

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

int cpu_option_take(const char *value, struct machine_config *c,
                    char name[CPU_OPTION_NAME]) {
    char *copy = strdup(value), *part;
    int status;

    vec_init();
    if (!strcmp(value, "help")) {
        list();
        free(copy);
        return CTL_OK;
    }
    if (!copy) {
        log_error("out of memory");
        return CTL_HOST_FAILURE;
    }
    part = strtok(copy, ",");
    status = check_name(part ? part : "");
    snprintf(name, CPU_OPTION_NAME, "%s", part ? part : "");
    c->cpu = name;
    c->cpu_changes = 0;
    while (status < 0 && (part = strtok(NULL, ",")))
        status = take_change(part, c);
    free(copy);
    return status;
}
