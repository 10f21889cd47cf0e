/*
 * From the loader's information (Multiboot Specification, version 0.6.96, "Boot
 * information format") to a machine with memory, traps, time and a serial port. The
 * information lies in memory that nobody else has: what is given away begins behind it,
 * the image and the modules.
 */
#include <string.h>

#include "bare/bare_int.h"
#include "base/log.h"
#include "base/os.h"

#define LOADER_MAGIC 0x2badb002u
#define HAS_CMDLINE (1u << 2)
#define HAS_MODULES (1u << 3)
#define HAS_MAP (1u << 6)
#define AVAILABLE 1u
#define ONE_MIB 0x100000u
#define MODULES 32u
#define TEXT 4096u

struct info {
    uint32_t flags, lower, upper, boot_device, cmdline, modules, module_list, symbols[4],
        map_length, map;
};
struct module_entry {
    uint32_t start, end, string, reserved;
};
struct __attribute__((packed)) map_entry {
    uint32_t size;
    uint64_t start, length;
    uint32_t type;
};

static char cmdline[TEXT], args[MODULES][TEXT];
static struct bare_module module[MODULES];
static unsigned modules;

const char *bare_cmdline(void) {
    return cmdline;
}

const struct bare_module *bare_modules(unsigned *count) {
    *count = modules;
    return module;
}

static void copy_text(char *to, uint32_t from) {
    const char *text = (const char *)(uintptr_t)from;
    size_t n = 0;

    for (; text && n + 1 < TEXT && text[n]; n++)
        to[n] = text[n];
    to[n] = 0;
}

/* Some loaders pass the image's name first, others do not: a path or a name with a dot.
 */
static bool begins_with_name(const char *text) {
    size_t n = strcspn(text, " ");

    return strcspn(text, "/.") < n && strcspn(text, "=") >= n;
}

static void take_cmdline(const struct info *i) {
    size_t n;

    if (!(i->flags & HAS_CMDLINE))
        return;
    copy_text(cmdline, i->cmdline);
    if (!begins_with_name(cmdline))
        return;
    n = strcspn(cmdline, " ");
    n += cmdline[n] == ' ';
    memmove(cmdline, cmdline + n, strlen(cmdline + n) + 1);
}

static void take_modules(const struct info *i) {
    const struct module_entry *m = (const struct module_entry *)(uintptr_t)i->module_list;

    if (!(i->flags & HAS_MODULES))
        return;
    for (unsigned n = 0; n < i->modules && n < MODULES; n++) {
        copy_text(args[n], m[n].string);
        module[n] = (struct bare_module){args[n], (const uint8_t *)(uintptr_t)m[n].start,
                                         m[n].end - m[n].start};
        modules = n + 1;
    }
}

/* From START to END, but for the image and the modules, which loaders put where they
 * like: behind the image, or at the end of memory. Each of them cuts what is left once.
 */
static void take_range(uint64_t start, uint64_t end, unsigned hole) {
    uint64_t from = (uintptr_t)bare_image, to = (uintptr_t)bare_image_end;

    if (hole > modules) {
        bare_frames_add(start, end);
        return;
    }
    if (hole) {
        from = (uintptr_t)module[hole - 1].data;
        to = from + module[hole - 1].size;
    }
    if (to <= start || from >= end || from >= to) {
        take_range(start, end, hole + 1);
        return;
    }
    if (start < from)
        take_range(start, from, hole + 1);
    if (to < end)
        take_range(to, end, hole + 1);
}

/* All above 1 MiB that is not in use already. */
static void take_memory(const struct info *i) {
    uint64_t at = i->map, end = at + i->map_length;

    while ((i->flags & HAS_MAP) && at + sizeof(struct map_entry) <= end) {
        const struct map_entry *e = (const struct map_entry *)(uintptr_t)at;

        if (e->type == AVAILABLE && e->start >= ONE_MIB)
            take_range(e->start, e->start + e->length, 0);
        at += e->size + 4;
    }
}

void bare_start(uint32_t magic, uint32_t info) {
    const struct info *i = (const struct info *)(uintptr_t)info;

    bare_cpu_is(bare_cpu_first());
    bare_serial_start();
    bare_traps_start();
    if (magic != LOADER_MAGIC) {
        log_error("this image is to be started by a multiboot loader");
        bare_end(1);
    }
    take_cmdline(i);
    if (strstr(cmdline, "end=debug-exit"))
        bare_end_tells();
    take_modules(i);
    take_memory(i);
    bare_paging_start(bare_frames_top());
    bare_features();
    __builtin_cpu_init();
    bare_time_start();
    bare_timer_start();
    bare_svm_start();
    os_realtime_ns(); /* the clock is read once, before others ask */
    __asm__ volatile("sti");
    bare_cpus_start();
}
