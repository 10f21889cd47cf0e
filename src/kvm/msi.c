/*
 * Messages to the kernel's local APIC from the I/O APIC, which is ours (a "split" set of
 * interrupt controllers; Linux, Documentation/virt/kvm/api.rst, "KVM_CAP_SPLIT_IRQCHIP").
 *
 * KVM reports the end of a level-triggered interrupt only for vectors that stand in its
 * routing table. A message that is the first of its vector puts it there, in place of
 * the oldest: our I/O APIC has no more inputs than the table has rows.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/kvm_int.h"

#define MSI_LEVEL 0x8000u

static bool routed(const struct kvm *k, uint64_t addr, uint32_t data) {
    for (unsigned i = 0; i < KVM_ROUTES; i++)
        if (k->route[i].addr == addr && k->route[i].data == data)
            return true;
    return false;
}

static void route(struct kvm *k, uint64_t addr, uint32_t data) {
    struct {
        struct kvm_irq_routing head;
        struct kvm_irq_routing_entry entry[KVM_ROUTES];
    } table = {0};

    k->route[k->route_next].addr = addr;
    k->route[k->route_next].data = data;
    k->route_next = (k->route_next + 1) % KVM_ROUTES;
    for (unsigned i = 0; i < KVM_ROUTES; i++) {
        if (!k->route[i].addr)
            continue;
        table.entry[table.head.nr++] = (struct kvm_irq_routing_entry){
            .gsi = i,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = (uint32_t)k->route[i].addr,
                      .data = k->route[i].data}};
    }
    ioctl(k->vm, KVM_SET_GSI_ROUTING, &table);
}

bool kvm_msi(struct kvm *k, uint64_t addr, uint32_t data) {
    struct kvm_msi msi = {.address_lo = (uint32_t)addr, .data = data};

    if ((data & MSI_LEVEL) && !routed(k, addr, data))
        route(k, addr, data);
    return ioctl(k->vm, KVM_SIGNAL_MSI, &msi) > 0;
}
