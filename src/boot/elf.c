/*
 * ELF executables, 32-bit and 64-bit: headers, loadable segments, the place of the entry.
 * Segments go to their physical addresses (p_paddr), as all loaders of kernels do it.
 *
 * Everything is checked before the first byte is copied: each segment lies in the file,
 * in RAM between 1 MiB and 4 GiB (for multiboot below 1 MiB too), and on no other. Not
 * here: sections, relocation.
 */
#include "boot/boot_int.h"

enum { ET_EXEC = 2, ET_REL = 1, ET_DYN = 3, EM_386 = 3, EM_X86_64 = 62, PT_LOAD = 1 };

bool boot_elf_probe(const struct boot_file *f) {
    return f->size >= 4 && !memcmp(f->data, "\177ELF", 4);
}

static const char *machine_name(unsigned machine) {
    static const struct {
        unsigned id;
        const char *name;
    } known[] = {
        {2, "SPARC"},    {8, "MIPS"},      {20, "PowerPC"},   {21, "64-bit PowerPC"},
        {22, "S/390"},   {40, "ARM"},      {42, "SuperH"},    {43, "64-bit SPARC"},
        {50, "Itanium"}, {183, "AArch64"}, {243, "RISC-V"},   {258, "LoongArch"},
        {4, "m68k"},     {15, "PA-RISC"},  {0x9026, "Alpha"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (known[i].id == machine)
            return known[i].name;
    }
    return NULL;
}

static int check_machine(const struct boot_job *j) {
    const struct boot_file *f = &j->image->kernel;
    unsigned machine = (unsigned)boot_get(f->data, 18, 2), type;
    bool big = f->data[5] == 2;
    const char *name;

    if (big)
        machine = (machine & 0xff) << 8 | machine >> 8;
    name = machine_name(machine);
    if (name)
        return boot_refuse(j, "%s is an ELF file for %s; this machine is an x86 PC",
                           f->path, name);
    if (big || (machine != EM_386 && machine != EM_X86_64))
        return boot_refuse(
            j, "%s is an ELF file for machine number %u%s; this machine is an x86 PC",
            f->path, machine, big ? ", big-endian" : "");
    type = (unsigned)boot_get(f->data, 16, 2);
    if (type == ET_REL || type == ET_DYN)
        return boot_refuse(j,
                           "%s is a %s, not an executable that has a place of its own; "
                           "link the kernel as a static, non-PIE executable",
                           f->path,
                           type == ET_REL ? "relocatable object file or kernel module"
                                          : "shared object or position-independent ELF");
    if (type != ET_EXEC)
        return boot_refuse(j, "%s is an ELF file of type %u (2, executable, is needed)",
                           f->path, type);
    return 0;
}

static int check_segment(const struct boot_job *j, const struct boot_elf *e,
                         const struct boot_segment *s, bool low) {
    const struct boot_file *f = &j->image->kernel;

    if (s->filesz > s->memsz)
        return boot_refuse(j,
                           "%s is corrupt: a segment is larger in the file than in "
                           "memory",
                           f->path);
    if (!boot_within(s->offset, s->filesz, f->size))
        return boot_refuse(j,
                           "%s is truncated: a segment of %llu bytes at offset 0x%llx "
                           "lies beyond its end",
                           f->path, (unsigned long long)s->filesz,
                           (unsigned long long)s->offset);
    if (!(low ? boot_ram_holds_low : boot_ram_holds)(j, s->at, s->memsz))
        return boot_refuse(j,
                           "%s has a segment of 0x%llx bytes at address 0x%llx, which is "
                           "not RAM%s; give --memory more if it lies above",
                           f->path, (unsigned long long)s->memsz,
                           (unsigned long long)s->at, low ? "" : " from 1 MiB on");
    for (unsigned i = 0; i < e->count; i++) {
        if (s->at < e->seg[i].at + e->seg[i].memsz && e->seg[i].at < s->at + s->memsz)
            return boot_refuse(j, "%s has segments that overlap at address 0x%llx",
                               f->path, (unsigned long long)s->at);
    }
    return 0;
}

static int parse_segments(const struct boot_job *j, struct boot_elf *e, bool low) {
    const struct boot_file *f = &j->image->kernel;

    for (unsigned i = 0; i < e->phnum; i++) {
        const uint8_t *p = f->data + e->phoff + (uint64_t)i * e->phentsize;
        struct boot_segment s;
        int rc;

        if (boot_get(p, 0, 4) != PT_LOAD)
            continue;
        if (e->is64)
            s = (struct boot_segment){boot_get(p, 8, 8), boot_get(p, 32, 8),
                                      boot_get(p, 24, 8), boot_get(p, 40, 8),
                                      boot_get(p, 16, 8)};
        else
            s = (struct boot_segment){boot_get(p, 4, 4), boot_get(p, 16, 4),
                                      boot_get(p, 12, 4), boot_get(p, 20, 4),
                                      boot_get(p, 8, 4)};
        if (!s.memsz && !s.filesz)
            continue;
        if (e->count == BOOT_SEGMENTS)
            return boot_refuse(j, "%s has more than %u segments", f->path, BOOT_SEGMENTS);
        rc = check_segment(j, e, &s, low);
        if (rc)
            return rc;
        e->seg[e->count++] = s;
        if (s.at + s.memsz > e->top)
            e->top = s.at + s.memsz;
    }
    if (!e->count)
        return boot_refuse(j, "%s has no segment to load", f->path);
    return 0;
}

/* Kernels that are linked high name their entry by its virtual address. */
static void place_entry(struct boot_elf *e) {
    for (unsigned i = 0; i < e->count; i++) {
        const struct boot_segment *s = &e->seg[i];

        if (e->entry - s->virt < s->memsz) {
            e->entry = e->entry - s->virt + s->at;
            return;
        }
    }
}

static int parse(const struct boot_job *j, struct boot_elf *e, bool low) {
    const struct boot_file *f = &j->image->kernel;
    const uint8_t *d = f->data;
    int rc;

    *e = (struct boot_elf){0};
    if (!boot_elf_probe(f))
        return boot_refuse(j, "%s is not an ELF file", f->path);
    if (f->size < 52 || f->size < (d[4] == 2 ? 64 : 52))
        return boot_refuse(j, "%s is truncated: it ends within its ELF header", f->path);
    rc = check_machine(j);
    if (rc)
        return rc;
    if ((d[4] != 1 && d[4] != 2) || d[5] != 1)
        return boot_refuse(j, "%s has a corrupt ELF header", f->path);
    e->is64 = d[4] == 2;
    e->entry = boot_get(d, 24, e->is64 ? 8 : 4);
    e->phoff = e->is64 ? boot_get(d, 32, 8) : boot_get(d, 28, 4);
    e->phentsize = (unsigned)boot_get(d, e->is64 ? 54 : 42, 2);
    e->phnum = (unsigned)boot_get(d, e->is64 ? 56 : 44, 2);
    if (!e->phnum || e->phentsize < (e->is64 ? 56u : 32u))
        return boot_refuse(j, "%s has no program headers, so nothing to load", f->path);
    if (!boot_within(e->phoff, (uint64_t)e->phnum * e->phentsize, f->size))
        return boot_refuse(j, "%s is truncated: its program headers lie beyond its end",
                           f->path);
    rc = parse_segments(j, e, low);
    if (!rc)
        place_entry(e);
    return rc;
}

int boot_elf_parse(const struct boot_job *j, struct boot_elf *e) {
    return parse(j, e, false);
}

int boot_elf_parse_low(const struct boot_job *j, struct boot_elf *e) {
    return parse(j, e, true);
}

bool boot_elf_holds(const struct boot_elf *e, uint64_t at) {
    for (unsigned i = 0; i < e->count; i++) {
        if (at - e->seg[i].at < e->seg[i].memsz)
            return true;
    }
    return false;
}

void boot_elf_load(const struct boot_job *j, const struct boot_elf *e) {
    for (unsigned i = 0; i < e->count; i++)
        boot_put(j, e->seg[i].at, j->image->kernel.data + e->seg[i].offset,
                 e->seg[i].filesz);
}
