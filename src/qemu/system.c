/* Memory, CPUs, the machine, the engine, and what else is of the whole; see qemu_int.h.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "qemu/qemu_int.h"

/* --- memory --- */

/* QEMU's sizes: a number, M if nothing is said. */
static bool is_size(const char *text) {
    size_t digits = strspn(text, "0123456789");

    return digits && digits < 12 &&
           (!text[digits] || (strchr("bBkKmMgGtT", text[digits]) && !text[digits + 1]));
}

bool qemu_take_memory(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;
    const char *size, *slots, *most;
    size_t digits;

    if (!qemu_split(q, &l, option, value, "size"))
        return false;
    size = qemu_value(&l, "size");
    slots = qemu_value(&l, "slots");
    most = qemu_value(&l, "maxmem");
    if (size && !is_size(size))
        return qemu_refuse(q, "%s wants a size such as 512M or 2G, not '%s'", option,
                           size);
    if (slots || most)
        qemu_note(q, "%s: no memory can be plugged in later", option);
    if (!qemu_rest(q, &l, ""))
        return false;
    if (!size)
        return true;
    digits = strspn(size, "0123456789");
    q->memory = qemu_format(q, "%.*s%s", (int)digits, size,
                            !size[digits]                  ? "M"
                            : toupper(size[digits]) == 'B' ? ""
                                                           : size + digits);
    return true;
}

/* --- CPUs --- */

bool qemu_take_smp(struct qemu *q, const char *option, const char *value) {
    static const char *const parts[] = {"sockets", "dies", "clusters", "cores",
                                        "threads"};
    struct qemu_list l;
    int cpus, most, product = 1, part;

    if (!qemu_split(q, &l, option, value, "cpus") ||
        !qemu_number(q, &l, "cpus", 0, 1 << 16, &cpus) ||
        !qemu_number(q, &l, "maxcpus", 0, 1 << 16, &most))
        return false;
    for (size_t n = 0; n < ARRAY_SIZE(parts); n++) {
        if (!qemu_number(q, &l, parts[n], 1, 4096, &part))
            return false;
        product = part && product < 1 << 16 ? product * part : product;
    }
    if (!qemu_rest(q, &l, ""))
        return false;
    cpus = cpus ? cpus : product;
    if (most > cpus)
        qemu_note(q, "%s: no CPU can be plugged in later", option);
    q->cpus = (unsigned)cpus;
    return true;
}

/* Names of QEMU's that stand for whatever there is. */
static bool is_common(const char *name) {
    static const char *const names[] = {"qemu64",   "qemu32",  "kvm64",    "kvm32",
                                        "base",     "pentium", "pentium2", "pentium3",
                                        "486",      "athlon",  "phenom",   "coreduo",
                                        "core2duo", "n270",    "Conroe",   "Penryn"};

    for (size_t n = 0; n < ARRAY_SIZE(names); n++)
        if (!strcmp(name, names[n]))
            return true;
    return false;
}

/* Our name for a part of QEMU's: without its version and what was left out. NULL: there
 * is none, or this host cannot stand in for it. */
static const char *find_part(struct qemu *q, const char *name) {
    char *ours = qemu_format(q, "%s", name), *end;
    const char *lacks;

    if ((end = strstr(ours, "-v")) && isdigit((unsigned char)end[2]))
        *end = 0;
    if ((end = strstr(ours, "-noTSX")) || (end = strstr(ours, "-IBRS")) ||
        (end = strstr(ours, "-IBPB")))
        *end = 0;
    vec_init();
    return cpuid_model_check(ours, &lacks) == CPUID_OFFERED ? ours : NULL;
}

static void take_model(struct qemu *q, const char *option, const char *name) {
    if (!strcmp(name, "host") || !strcmp(name, "max"))
        q->cpu = "host";
    else if (is_common(name))
        q->cpu = NULL;
    else if (!(q->cpu = find_part(q, name)))
        qemu_note(q, "%s: this host has no %s for a guest; it gets the default CPU",
                  option, name);
}

/* Features that change nothing, as a model here has what it has: what is about QEMU's own
 * models, and what every one has. */
static bool is_nothing(const char *feature) {
    static const char *const names[] = {
        "check",  "enforce",   "migratable", "pmu",    "l3-cache", "topoext",  "vendor",
        "host-",  "phys-bits", "la57",       "invtsc", "tsc-freq", "vmx",      "svm",
        "x2apic", "level",     "cache-info", "xlevel", "model",    "stepping", "family",
        "hv_",    "hv-",       "hypervisor", "nx",     "pae",      "lm",       "syscall"};

    for (size_t n = 0; n < ARRAY_SIZE(names); n++)
        if (!strncmp(feature + strspn(feature, "+-"), names[n], strlen(names[n])))
            return true;
    return false;
}

bool qemu_take_cpu(struct qemu *q, const char *option, const char *value) {
    char *part = qemu_format(q, "%s", value), *rest;
    const char *others = "";
    bool first = true;

    for (; part && !q->failed; part = rest, first = false) {
        rest = strchr(part, ',');
        if (rest)
            *rest++ = 0;
        if (first)
            take_model(q, option, part);
        else if (!strncmp(part, "kvm=", 4) || !strcmp(part, "-kvm"))
            q->no_paravirt |= strcmp(part, "kvm=on") != 0;
        else if (*part && !is_nothing(part))
            others = qemu_format(q, "%s%s%s", others, *others ? "," : "", part);
    }
    if (*others)
        qemu_note(q, "%s: single features are as the model has them: %s is not done",
                  option, others);
    return true;
}

/* --- the engine --- */

/* The first that is known of several names, each followed by a colon or the end. */
static bool take_engines(struct qemu *q, const char *option, const char *value) {
    if (!strncmp(value, "kvm", 3) || !strncmp(value, "whpx", 4) ||
        !strncmp(value, "hvf", 3) || !strncmp(value, "hax", 3))
        q->accel = "auto"; /* KVM where it is there and fast */
    else if (!strncmp(value, "tcg", 3))
        q->accel = "bt";
    else
        return qemu_refuse(q, "%s wants kvm or tcg, not '%s'", option, value);
    return true;
}

bool qemu_take_accel(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;
    const char *name, *before = q->accel;
    bool good;

    if (!value) /* -enable-kvm */
        return take_engines(q, option, "kvm");
    if (!qemu_split(q, &l, option, value, "accel"))
        return false;
    name = qemu_value(&l, "accel");
    good = take_engines(q, option, name ? name : "");
    if (before) /* one more is for where the first cannot be had */
        q->accel = "auto";
    return good && qemu_rest(q, &l,
                             "thread tb-size one-insn-per-tb split-wx igd-passthru "
                             "kernel-irqchip kvm-shadow-mem dirty-ring-size notify-* ");
}

/* --- the machine --- */

static bool take_type(struct qemu *q, const char *option, const char *type) {
    if (!strncmp(type, "q35", 3) || !strncmp(type, "pc-q35", 6)) {
        qemu_note(q,
                  "%s %s: the board is a PC's with PCI (i440FX): disks are at IDE or "
                  "virtio, and there is no PCI Express",
                  option, type);
        return true;
    }
    if (!strcmp(type, "isapc") || !strcmp(type, "microvm") || !strcmp(type, "none")) {
        if (strcmp(type, "none") != 0)
            qemu_note(q, "%s %s: the board is a PC's with PCI", option, type);
        return true;
    }
    if (!strcmp(type, "pc") || !strncmp(type, "pc-", 3) || !strcmp(type, "ubuntu"))
        return true;
    return qemu_refuse(q,
                       "%s: bivisor has no machine '%s'; it has pc, and takes q35 and "
                       "microvm for it",
                       option, type);
}

bool qemu_take_machine(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;
    const char *text;

    if (!qemu_split(q, &l, option, value, "type"))
        return false;
    if ((text = qemu_value(&l, "type")) && !take_type(q, option, text))
        return false;
    if ((text = qemu_value(&l, "accel")) && !take_engines(q, option, text))
        return false;
    if ((text = qemu_value(&l, "pflash0")))
        q->firmware = qemu_format(q, "=%s", text); /* a node's name */
    if ((text = qemu_value(&l, "pflash1")))
        q->flash_vars = qemu_format(q, "=%s", text);
    if ((text = qemu_value(&l, "confidential-guest-support")))
        return qemu_refuse(q, "%s: bivisor has no confidential guests", option);
    return qemu_rest(
        q, &l,
        "graphics usb smm vmport hpet pit pic rtc acpi kernel-irqchip "
        "kernel_irqchip mem-merge dump-guest-core nvdimm sata smbus i8042 "
        "memory-backend hmat suppress-vmdesc vmmouse default-bus-bypass-iommu "
        "max-ram-below-4g max-fw-size isa-serial x-option-roms "
        "auto-kernel-cmdline pcie usb_version kvm-type smbios-entry-point-type "
        "ioapic2 fd-bootchk boot cap-* igd-passthru kvm_shadow_mem "
        "enforce-config-section kernel-shadow-mem ");
}

/* --- what is booted --- */

bool qemu_take_boot(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;
    const char *order, *once;

    if (!qemu_split(q, &l, option, value, "order") ||
        !qemu_switch(q, &l, "menu", q->boot_menu, &q->boot_menu))
        return false;
    order = qemu_value(&l, "order");
    once = qemu_value(&l, "once");
    if (order && strspn(order, "abcdnp") != strlen(order))
        return qemu_refuse(q, "%s: order wants letters of a, c, d and n, not '%s'",
                           option, order);
    if (once && strspn(once, "abcdnp") != strlen(once))
        return qemu_refuse(q, "%s: once wants letters of a, c, d and n, not '%s'", option,
                           once);
    if (once)
        q->boot_once = once[strspn(once, "abp")]; /* there are no floppies */
    if (order)
        q->boot_order = order;
    return qemu_rest(q, &l, "strict reboot-timeout splash splash-time ");
}

/* --- time and others --- */

bool qemu_take_rtc(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;
    const char *base;

    if (!qemu_split(q, &l, option, value, "base"))
        return false;
    base = qemu_value(&l, "base");
    if (base && strcmp(base, "utc") != 0)
        qemu_note(q, "%s: the guest's clock is the host's, in UTC, not '%s'", option,
                  base);
    return qemu_rest(q, &l, "clock driftfix ");
}

bool qemu_take_action(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;
    const char *reboot;

    if (!qemu_split(q, &l, option, value, NULL))
        return false;
    if (l.head && !strncmp(l.head, "reboot=", 7))
        reboot = l.head + 7;
    else
        reboot = qemu_value(&l, "reboot");
    if (reboot)
        q->no_reboot = !strcmp(reboot, "shutdown");
    return qemu_rest(q, &l, "shutdown panic watchdog ");
}

bool qemu_take_object(struct qemu *q, const char *option, const char *value) {
    static const char *const fine[] = {"memory-backend-ram",  "memory-backend-memfd",
                                       "memory-backend-file", "rng-random",
                                       "rng-builtin",         "iothread",
                                       "thread-context",      "main-loop"};
    struct qemu_list l;

    if (!qemu_split(q, &l, option, value, NULL))
        return false;
    for (size_t n = 0; l.head && n < ARRAY_SIZE(fine); n++)
        if (!strcmp(l.head, fine[n]))
            return true;
    if (l.head && !strncmp(l.head, "filter-", 7)) {
        qemu_note(q, "%s: packets go as they are, with no '%s'", option, l.head);
        return true;
    }
    return qemu_refuse(q, "%s: bivisor has no object '%s'", option,
                       l.head ? l.head : value);
}
