/*
 * What every loader does to guest memory: which of it is RAM, where a file fits, how it
 * gets there; and how a loader refuses. See boot_int.h.
 */
#include "boot/boot_int.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int boot_refuse(const struct boot_job *j, const char *fmt, ...) {
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(j->why, j->why_size, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

/* Cuts the ACPI tables out of the range that holds them. */
static unsigned reserve_acpi(const struct boot_job *j, struct boot_range *map,
                             unsigned n) {
    uint64_t start = j->cfg->rsdp.a, len = j->cfg->acpi_len;

    for (unsigned i = 0; start && len && i < n && n + 2 <= BOOT_RANGES; i++) {
        struct boot_range r = map[i];
        struct boot_range parts[3];
        unsigned count = 0;

        if (start < r.start || !boot_within(start - r.start, len, r.size))
            continue;
        if (start > r.start)
            parts[count++] = (struct boot_range){r.start, start - r.start, r.type};
        parts[count++] = (struct boot_range){start, len, BOOT_ACPI};
        if (start - r.start + len < r.size)
            parts[count++] = (struct boot_range){
                start + len, r.size - (start - r.start) - len, r.type};
        memmove(map + i + count, map + i + 1, (n - i - 1) * sizeof(*map));
        memcpy(map + i, parts, count * sizeof(*map));
        return n + count - 1;
    }
    return n;
}

/* RAM as the guest may use it; 0x9fc00..1 MiB is reserved (EBDA, video, firmware). */
unsigned boot_map(const struct boot_job *j, struct boot_range out[BOOT_RANGES]) {
    size_t count;
    const struct mem_piece *r = mem_map(j->m, &count);
    unsigned n = 0;

    out[n++] = (struct boot_range){0, BOOT_LOW_END, BOOT_RAM};
    out[n++] = (struct boot_range){BOOT_LOW_END, BOOT_HIGH - BOOT_LOW_END, BOOT_RESERVED};
    for (size_t i = 0; i < count && n + 2 < BOOT_RANGES; i++) {
        uint64_t start = r[i].start.a, end = start + r[i].size;

        if (end <= BOOT_HIGH || r[i].added)
            continue;
        if (start < BOOT_HIGH)
            start = BOOT_HIGH;
        out[n++] = (struct boot_range){start, end - start,
                                       r[i].kind == MEM_RAM ? BOOT_RAM : BOOT_RESERVED};
    }
    return reserve_acpi(j, out, n);
}

bool boot_ram_holds_low(const struct boot_job *j, uint64_t at, uint64_t len) {
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    for (unsigned i = 0; i < n; i++) {
        if (map[i].type == BOOT_RAM && map[i].start < MEM_HOLE_END &&
            at >= map[i].start && boot_within(at - map[i].start, len, map[i].size))
            return true;
    }
    return false;
}

bool boot_ram_holds(const struct boot_job *j, uint64_t at, uint64_t len) {
    return at >= BOOT_HIGH && boot_ram_holds_low(j, at, len);
}

bool boot_put(const struct boot_job *j, uint64_t at, const void *data, uint64_t len) {
    return !len || mem_write(j->m, gpa(at), data, len);
}

int boot_put_cmdline(const struct boot_job *j, uint64_t at, uint64_t limit) {
    uint64_t len = strlen(j->cmdline);

    if (len > limit)
        return boot_refuse(j, "the command line has %llu characters; %s takes %llu",
                           (unsigned long long)len, j->image->kernel.path,
                           (unsigned long long)limit);
    boot_put(j, at, j->cmdline, len + 1);
    return 0;
}

const char *boot_file_name(const struct boot_file *f) {
    const char *slash = strrchr(f->path, '/');

    return slash ? slash + 1 : f->path;
}

int boot_put_file(const struct boot_job *j, const struct boot_file *f, const char *what,
                  uint64_t floor, uint64_t ceiling, uint64_t *at) {
    struct boot_range map[BOOT_RANGES];
    unsigned n = boot_map(j, map);

    while (n--) {
        uint64_t lo = map[n].start, hi = lo + map[n].size;

        lo = lo < floor ? floor : lo;
        hi = hi > ceiling ? ceiling : hi;
        if (map[n].type != BOOT_RAM || lo >= hi || hi - lo < f->size)
            continue;
        *at = (hi - f->size) & ~0xfffull;
        if (*at >= lo && boot_put(j, *at, f->data, f->size))
            return 0;
    }
    return boot_refuse(j,
                       "%s %s (%llu KiB) does not fit in guest memory beside the "
                       "kernel; give --memory more",
                       what, f->path, (unsigned long long)f->size >> 10);
}

int boot_put_initrd(const struct boot_job *j, uint64_t floor, uint64_t ceiling,
                    uint64_t *at) {
    return boot_put_file(j, &j->image->initrd, "initrd", floor, ceiling, at);
}
