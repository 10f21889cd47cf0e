/* The hardware engine's options by name. */
#include "kvm/kvm.h"

static const char *const chips[] = {"user", "kernel", NULL};

static const struct engine_option table[] = {
    {.name = "irqchip",
     .what = "with kvm, the local APIC is: user (ours), kernel",
     .off = offsetof(struct kvm_config, kernel_lapic),
     .choices = chips},
};

static void defaults(void *options) {
    *(struct kvm_config *)options = (struct kvm_config){0};
}

const struct engine_options kvm_option_set = {
    .of = "kvm",
    .help = "bivisor run --help",
    .table = table,
    .count = ARRAY_SIZE(table),
    .size = sizeof(struct kvm_config),
    .defaults = defaults,
};
_Static_assert(sizeof(struct kvm_config) <= ENGINE_OPTIONS_SIZE, "it is carried about");
