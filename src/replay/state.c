/* The architectural state of two machines, side by side; see state.h. */
#include "replay/state.h"

#include <stdlib.h>
#include <string.h>

#include "base/os.h"

bool state_same(const struct machine *a, const struct machine *b, unsigned how) {
    bool same =
        machine_now_ns(a) == machine_now_ns(b) && machine_insns(a) == machine_insns(b);

    for (unsigned cpu = 0; same && cpu < machine_cpus(a); cpu++)
        same = vcpu_same(machine_vcpu(a, cpu), machine_vcpu(b, cpu), how);
    return same;
}

/* --- what differs, in words --- */

/* Two machines, and what they are called. */
struct sides {
    FILE *out;
    const char *name_a, *name_b;
};

static void print_number(const struct sides *s, const char *what, uint64_t a,
                         uint64_t b) {
    fprintf(s->out, "  %-16s %-8s %016llx  %-8s %016llx\n", what, s->name_a,
            (unsigned long long)a, s->name_b, (unsigned long long)b);
}

static void print_bytes(FILE *out, const char *name, const uint8_t *p, size_t len) {
    fprintf(out, " %s ", name);
    while (len--)
        fprintf(out, "%02x", p[len]);
}

static void print_register(const struct sides *s, const struct vcpu_part *p, unsigned reg,
                           const struct vcpu *a, const struct vcpu *b) {
    unsigned at = vcpu_part_offset(p, reg);

    if (p->group != VCPU_GROUP_VECTOR) {
        print_number(s, p->name, vcpu_part_number(a, p), vcpu_part_number(b, p));
        return;
    }
    if (p->count > 1)
        fprintf(s->out, "  %s%u", p->name, reg);
    else
        fprintf(s->out, "  %-16s", p->name);
    print_bytes(s->out, s->name_a, (const uint8_t *)a + at, p->size);
    print_bytes(s->out, s->name_b, (const uint8_t *)b + at, p->size);
    fputc('\n', s->out);
}

static void print_cpu(const struct sides *s, const struct vcpu *a, const struct vcpu *b,
                      unsigned how) {
    for (size_t n = 0; n < vcpu_part_count; n++)
        for (unsigned reg = 0; reg < vcpu_parts[n].count; reg++)
            if (vcpu_part_differs(a, b, &vcpu_parts[n], reg, how))
                print_register(s, &vcpu_parts[n], reg, a, b);
}

void state_print(const struct machine *a, const struct machine *b, const char *name_a,
                 const char *name_b, unsigned how, FILE *out) {
    const struct sides s = {out, name_a, name_b};

    if (machine_insns(a) != machine_insns(b))
        print_number(&s, "instructions", machine_insns(a), machine_insns(b));
    if (machine_now_ns(a) != machine_now_ns(b))
        print_number(&s, "virtual ns", machine_now_ns(a), machine_now_ns(b));
    for (unsigned cpu = 0; cpu < machine_cpus(a); cpu++)
        print_cpu(&s, machine_vcpu(a, cpu), machine_vcpu(b, cpu), how);
}

/* --- memory --- */

/* Which pages of RAM the host has given to M: the others are zero, unless they are a
 * file's. NULL: no memory. */
static uint8_t *resident(const struct machine *m, size_t *pages) {
    uint64_t size;
    uint8_t *ram = machine_ram(m, &size);
    uint8_t *map = malloc(size >> 12);

    *pages = size >> 12;
    if (map && (machine_ram_shown(m) || os_memory_resident(ram, size, map)))
        memset(map, 1, *pages);
    return map;
}

size_t state_pages(const struct machine *a, const struct machine *b, uint64_t *pages,
                   size_t max) {
    size_t count, found = 0;
    uint8_t *in_a = resident(a, &count), *in_b = resident(b, &count);

    for (size_t n = 0; n < count && found < max; n++)
        if ((!in_a || !in_b || (in_a[n] & 1) || (in_b[n] & 1)) &&
            state_page_differs(a, b, n << 12))
            pages[found++] = n << 12;
    free(in_a);
    free(in_b);
    return found;
}

bool state_page_differs(const struct machine *a, const struct machine *b, uint64_t addr) {
    uint64_t size;

    return memcmp(machine_ram(a, &size) + addr, machine_ram(b, &size) + addr, 4096);
}

void state_print_page(const struct machine *a, const struct machine *b,
                      const char *name_a, const char *name_b, uint64_t addr, FILE *out) {
    uint64_t size;
    const uint8_t *pa = machine_ram(a, &size) + addr, *pb = machine_ram(b, &size) + addr;
    uint64_t wa, wb;

    for (unsigned at = 0; at < 4096; at += 8) {
        if (!memcmp(pa + at, pb + at, 8))
            continue;
        memcpy(&wa, pa + at, 8);
        memcpy(&wb, pb + at, 8);
        fprintf(out, "  RAM %08llx     %-8s %016llx  %-8s %016llx\n",
                (unsigned long long)addr + at, name_a, (unsigned long long)wa, name_b,
                (unsigned long long)wb);
        return;
    }
}

/* --- digest --- */

static uint64_t mix_page(uint64_t h, const uint8_t *page, size_t number) {
    uint64_t word, any = 0, was = h;

    h = vcpu_mix(h, number);
    for (size_t at = 0; at < 4096; at += 8) {
        memcpy(&word, page + at, 8);
        any |= word;
        h = vcpu_mix(h, word);
    }
    return any ? h : was;
}

uint64_t state_digest(const struct machine *m) {
    uint64_t size, h = 0;
    size_t count;
    const uint8_t *ram = machine_ram(m, &size);
    uint8_t *in = resident(m, &count);

    for (unsigned cpu = 0; cpu < machine_cpus(m); cpu++)
        h = vcpu_digest(h, machine_vcpu(m, cpu));
    for (size_t n = 0; n < count; n++)
        if (!in || (in[n] & 1))
            h = mix_page(h, ram + (n << 12), n);
    free(in);
    return h;
}
