/*
 * What KVM itself counts: most exits of hardware never reach us. The binary interface
 * describes itself (Linux, Documentation/virt/kvm/api.rst, "KVM_GET_STATS_FD"); nothing
 * is known here of what a kernel counts.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm/kvm_int.h"

#define NAME_MAX_SANE 128u
#define DESC_MAX_SANE 512u

static bool read_at(int fd, void *buf, size_t size, uint64_t at) {
    return pread(fd, buf, size, (off_t)at) == (ssize_t)size;
}

/* Single cumulative numbers, instantaneous values and peaks; histograms are left out. */
static void emit_one(int fd, const struct kvm_stats_header *h,
                     const struct kvm_stats_desc *d,
                     void (*emit)(void *arg, const char *name, uint64_t value),
                     void *arg) {
    uint32_t type = d->flags & KVM_STATS_TYPE_MASK;
    uint64_t value;

    if (d->size != 1 || type == KVM_STATS_TYPE_LINEAR_HIST ||
        type == KVM_STATS_TYPE_LOG_HIST)
        return;
    if (read_at(fd, &value, sizeof(value), (uint64_t)h->data_offset + d->offset) && value)
        emit(arg, d->name, value);
}

void kvm_stats(struct kvm *k, void (*emit)(void *arg, const char *name, uint64_t value),
               void *arg) {
    int fd = ioctl(k->fd, KVM_GET_STATS_FD, 0);
    struct kvm_stats_header h;
    struct kvm_stats_desc *d;
    size_t size;

    if (fd < 0)
        return; /* Linux before 5.14 */
    if (!read_at(fd, &h, sizeof(h), 0) || h.name_size > NAME_MAX_SANE || !h.name_size ||
        h.num_desc > DESC_MAX_SANE) {
        close(fd);
        return;
    }
    size = sizeof(*d) + h.name_size;
    d = malloc(size);
    for (uint32_t i = 0; d && i < h.num_desc; i++)
        if (read_at(fd, d, size, h.desc_offset + (uint64_t)i * size)) {
            d->name[h.name_size - 1] = 0;
            emit_one(fd, &h, d, emit, arg);
        }
    free(d);
    close(fd);
}
