/*
 * Memory slots: what the machine's memory is, as KVM is told; and its log of what the
 * guest writes to (KVM API, "KVM_GET_DIRTY_LOG"), from when somebody wants to know. What
 * is written past the guest's CPUs is in the list of mem/track.c already.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "kvm/kvm_int.h"
#include "mem/mem.h"

#define PAGE_BITS 12

/* A slot of no size goes. */
static int set_slot(const struct kvm *k, unsigned n, const struct kvm_slot *s) {
    struct kvm_userspace_memory_region slot = {.slot = n};

    if (s) {
        slot.flags = s->rom ? KVM_MEM_READONLY : k->logging ? KVM_MEM_LOG_DIRTY_PAGES : 0;
        slot.guest_phys_addr = s->start;
        slot.memory_size = s->size;
        slot.userspace_addr = (uintptr_t)s->host;
    }
    return ioctl(k->vm, KVM_SET_USER_MEMORY_REGION, &slot) ? -errno : 0;
}

/* --- the log --- */

static void tell_page(struct kvm *k, const struct kvm_slot *s, uint64_t page) {
    const uint8_t *base = mem_ram_base(k->v->mem);

    mem_track_written(k->v->mem, ((uint64_t)(s->host - base) >> PAGE_BITS) + page);
}

/* KVM forgets what it tells. */
static int tell_slot(struct kvm *k, unsigned n) {
    const struct kvm_slot *s = &k->slot[n];
    size_t words = ((s->size >> PAGE_BITS) + 63) / 64;
    struct kvm_dirty_log log = {.slot = n};
    uint64_t *bits = s->rom ? NULL : calloc(words, sizeof(*bits));
    int rc = 0;

    if (s->rom)
        return 0;
    log.dirty_bitmap = bits;
    if (!bits)
        return -ENOMEM;
    if (ioctl(k->vm, KVM_GET_DIRTY_LOG, &log))
        rc = -errno;
    for (size_t w = 0; w < words && !rc; w++)
        for (uint64_t left = bits[w]; left; left &= left - 1)
            tell_page(k, s, 64 * w + (unsigned)__builtin_ctzll(left));
    free(bits);
    return rc;
}

/* If that is not known, it is all of them. */
static void tell_slots(struct kvm *k) {
    for (unsigned n = 0; n < k->slots && k->logging; n++)
        if (tell_slot(k, n))
            for (uint64_t page = 0; page < k->slot[n].size >> PAGE_BITS; page++)
                tell_page(k, &k->slot[n], page);
}

int kvm_tell_written(struct kvm *k) {
    struct kvm *first = k->first;
    int rc = 0;

    if (k != first)
        return 0;
    if (k->logging) {
        tell_slots(k);
        return 0;
    }
    k->logging = true;
    for (unsigned n = 0; n < k->slots && !rc; n++)
        if (!k->slot[n].rom)
            rc = set_slot(k, n, &k->slot[n]);
    k->logging = !rc;
    return rc;
}

/* --- the map --- */

static struct kvm_slot *room(struct kvm *k, size_t count) {
    if (count <= k->slot_room)
        return k->slot;
    free(k->slot);
    k->slot = calloc(count, sizeof(*k->slot));
    k->slot_room = k->slot ? count : 0;
    return k->slot;
}

int kvm_map_memory(struct kvm *k) {
    size_t count;
    const struct mem_piece *r = mem_map(k->v->mem, &count);
    int rc = 0;

    tell_slots(k);
    /* A slot cannot be changed into another: the old ones go first. */
    while (k->slots)
        set_slot(k, --k->slots, NULL);
    if (!room(k, count))
        return -ENOMEM;
    for (unsigned n = 0; n < count && !rc; n++) {
        k->slot[n] = (struct kvm_slot){.start = r[n].start.a,
                                       .size = r[n].size,
                                       .host = r[n].host,
                                       .rom = r[n].kind == MEM_ROM};
        rc = set_slot(k, n, &k->slot[n]);
        k->slots += !rc;
    }
    return rc;
}
