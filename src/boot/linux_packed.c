/*
 * The kernel that a bzImage has packed, an ELF executable, entered as its decompressor
 * would enter it: the same registers and zero page, at the address that it is linked for.
 * Unpacked here, natively, that takes a tenth of the time. What else a decompressor does
 * is done by nobody: it moves the kernel to a random address (KASLR).
 */
#include "boot/linux_int.h"
#include "boot/unpack.h"

/* More than any kernel: Linux links itself into 1 GiB of addresses. */
#define UNPACKED_MAX (1ull << 30)

/* False: there is nothing that we can unpack. */
static bool unpack(const struct boot_job *j, const struct linux_header *h,
                   struct boot_file *out) {
    const uint8_t *k = j->image->kernel.data;
    uint64_t off = boot_get(k, PAYLOAD_OFFSET, 4), len = boot_get(k, PAYLOAD_LENGTH, 4);

    out->path = j->image->kernel.path;
    if (!len || !boot_within(off, len, h->len))
        return false;
    out->data = boot_unpack(k + h->setup + off, len, UNPACKED_MAX, &out->size);
    return out->data;
}

bool linux_unpack(const struct boot_job *j, const struct linux_header *h,
                  struct linux_packed *p) {
    struct boot_elf *e = &p->elf;

    p->unpacked = (struct boot_file){0};
    if (j->cfg->protocol != BOOT_AUTO || h->version < 0x20a ||
        !unpack(j, h, &p->unpacked))
        return false;
    p->image = *j->image;
    p->image.kernel = p->unpacked;
    p->job = *j;
    p->job.image = &p->image;
    if (boot_elf_parse(&p->job, e) || e->is64 != h->is64 ||
        !boot_elf_holds(e, e->entry)) {
        *j->why = 0;
        return false;
    }
    p->place = (struct linux_place){h->pref, e->top, h->alignment};
    if (h->pref + h->init_size > e->top)
        p->place.top = h->pref + h->init_size;
    return boot_ram_holds(j, h->pref, p->place.top - h->pref);
}
