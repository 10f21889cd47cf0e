/* -device: what each is here; see qemu_int.h. */
#include <string.h>

#include "qemu/qemu_int.h"

enum kind {
    DISK_VIRTIO,
    DISK_IDE,
    DISK_CDROM,
    DISK_ELSEWHERE, /* a disk of SCSI or USB, which is at IDE here */
    CARD,
    PORT,
    PORT_CONSOLE,
    SHARE,
    EXIT,
    BALLOON,
    TABLET,  /* of -vnc; nobody points at other screens */
    HERE,    /* it is there anyway, or what needs it finds a place without */
    WITHOUT, /* the guest goes without it: a note */
    REFUSED, /* it is what the user came for */
};

static const struct device {
    const char *name; /* with a star at its end: all that begin so */
    enum kind kind;
    const char *what; /* WITHOUT: what the guest does not have; REFUSED: what to do */
} devices[] = {
    {"virtio-blk*", DISK_VIRTIO, NULL},
    {"ide-hd", DISK_IDE, NULL},
    {"ide-drive", DISK_IDE, NULL},
    {"ide-cd", DISK_CDROM, NULL},
    {"scsi-hd", DISK_ELSEWHERE, NULL},
    {"scsi-disk", DISK_ELSEWHERE, NULL},
    {"scsi-cd", DISK_CDROM, NULL},
    {"usb-storage", DISK_ELSEWHERE, NULL},
    {"virtio-net*", CARD, NULL},
    {"e1000*", CARD, NULL},
    {"rtl8139", CARD, NULL},
    {"pcnet", CARD, NULL},
    {"ne2k_*", CARD, NULL},
    {"vmxnet3", CARD, NULL},
    {"i82*", CARD, NULL},
    {"igb", CARD, NULL},
    {"tulip", CARD, NULL},
    {"virtserialport", PORT, NULL},
    {"virtconsole", PORT_CONSOLE, NULL},
    {"isa-serial", PORT, NULL},
    {"virtio-9p*", SHARE, NULL},
    {"isa-debug-exit", EXIT, NULL},
    {"virtio-balloon*", BALLOON, NULL},
    {"virtio-serial*", HERE, NULL},
    {"virtio-rng*", HERE, NULL},
    {"VGA", HERE, NULL},
    {"bochs-display", HERE, NULL},
    {"pcie-root-port", HERE, NULL},
    {"pcie-pci-bridge", HERE, NULL},
    {"pci-bridge", HERE, NULL},
    {"ioh3420", HERE, NULL},
    {"ich9-ahci", HERE, NULL},
    {"ahci", HERE, NULL},
    {"piix3-ide", HERE, NULL},
    {"piix4-ide", HERE, NULL},
    {"virtio-scsi*", HERE, NULL},
    {"lsi*", HERE, NULL},
    {"megasas*", HERE, NULL},
    {"mptsas*", HERE, NULL},
    {"am53c974", HERE, NULL},
    {"pvscsi", HERE, NULL},
    {"usb-bot", HERE, NULL},
    {"usb-uas", HERE, NULL},
    {"vmgenid", HERE, NULL},
    {"i8042", HERE, NULL},
    {"vmcoreinfo", WITHOUT, "a place to tell of its own dumps"},
    {"virtio-vga*", WITHOUT, "a screen but a standard VGA"},
    {"virtio-gpu*", WITHOUT, "a screen but a standard VGA"},
    {"qxl*", WITHOUT, "a screen but a standard VGA"},
    {"cirrus-vga", WITHOUT, "a screen but a standard VGA"},
    {"vmware-svga", WITHOUT, "a screen but a standard VGA"},
    {"ramfb", WITHOUT, "a screen but a standard VGA"},
    {"secondary-vga", WITHOUT, "a screen but a standard VGA"},
    {"virtio-keyboard*", WITHOUT, "a keyboard or pointer but PS/2"},
    {"virtio-mouse*", WITHOUT, "a keyboard or pointer but PS/2"},
    {"virtio-tablet*", TABLET, NULL},
    {"virtio-input*", WITHOUT, "a keyboard or pointer but PS/2"},
    {"usb-kbd", WITHOUT, "a keyboard or pointer but PS/2"},
    {"usb-mouse", WITHOUT, "a keyboard or pointer but PS/2"},
    {"usb-tablet", TABLET, NULL},
    {"qemu-xhci", WITHOUT, "USB"},
    {"nec-usb-xhci", WITHOUT, "USB"},
    {"usb-ehci", WITHOUT, "USB"},
    {"piix3-usb-uhci", WITHOUT, "USB"},
    {"piix4-usb-uhci", WITHOUT, "USB"},
    {"ich9-usb-*", WITHOUT, "USB"},
    {"pci-ohci", WITHOUT, "USB"},
    {"usb-hub", WITHOUT, "USB"},
    {"usb-audio", WITHOUT, "sound"},
    {"intel-hda", WITHOUT, "sound"},
    {"ich9-intel-hda", WITHOUT, "sound"},
    {"hda-*", WITHOUT, "sound"},
    {"AC97", WITHOUT, "sound"},
    {"ac97", WITHOUT, "sound"},
    {"ES1370", WITHOUT, "sound"},
    {"sb16", WITHOUT, "sound"},
    {"adlib", WITHOUT, "sound"},
    {"gus", WITHOUT, "sound"},
    {"virtio-sound*", WITHOUT, "sound"},
    {"i6300esb", WITHOUT, "a watchdog"},
    {"ib700", WITHOUT, "a watchdog"},
    {"pvpanic*", WITHOUT, "a way to tell of its panics"},
    {"tpm-*", WITHOUT, "a TPM"},
    {"isa-debugcon", WITHOUT, "a debug console at port 0xe9 or 0x402"},
    {"intel-iommu", WITHOUT, "an IOMMU"},
    {"amd-iommu", WITHOUT, "an IOMMU"},
    {"virtio-iommu*", WITHOUT, "an IOMMU"},
    {"scsi-*", REFUSED, "give it as virtio-blk-pci"},
    {"nvme*", REFUSED, "give it as virtio-blk-pci"},
    {"sd-card", REFUSED, "give it as virtio-blk-pci"},
    {"floppy", REFUSED, "give it as a disk"},
    {"vhost-vsock*", REFUSED,
     "--bivisor --vsock=CID=N,path=PATH has such sockets at unix sockets"},
    {"vhost-user-fs*", REFUSED, "-virtfs shares a directory"},
};

static bool matches(const char *pattern, const char *name) {
    size_t len = strlen(pattern);

    if (pattern[len - 1] == '*')
        return !strncmp(pattern, name, len - 1);
    return !strcmp(pattern, name);
}

static const struct device *find(const char *name) {
    for (size_t n = 0; n < ARRAY_SIZE(devices); n++)
        if (matches(devices[n].name, name))
            return &devices[n];
    return NULL;
}

/* The debug-exit port is where kvm-unit-tests and others have it. */
static bool check_exit(struct qemu *q, struct qemu_list *l) {
    const char *base = qemu_value(l, "iobase");
    uint64_t port = 0x501;

    if ((base && !qemu_parse_number(base, &port)) || port != 0xf4)
        return qemu_refuse(q, "%s: the debug-exit port is at iobase=0xf4, not at %s",
                           l->option, base ? base : "0x501");
    return qemu_rest(q, l, "iosize id ");
}

static bool take(struct qemu *q, struct qemu_list *l, const struct device *d) {
    switch (d->kind) {
    case DISK_VIRTIO:
        return qemu_attach_disk(q, l, QEMU_VIRTIO, false);
    case DISK_IDE:
    case DISK_CDROM:
        return qemu_attach_disk(q, l, QEMU_IDE, d->kind == DISK_CDROM);
    case DISK_ELSEWHERE:
        qemu_note(q, "%s: " QEMU_AT_IDE, l->option);
        return qemu_attach_disk(q, l, QEMU_IDE, false);
    case CARD:
        return qemu_attach_card(q, l, l->head);
    case PORT:
    case PORT_CONSOLE:
        return qemu_attach_port(q, l, d->kind == PORT_CONSOLE);
    case SHARE:
        return qemu_attach_share(q, l);
    case EXIT:
        return check_exit(q, l);
    case BALLOON:
        q->balloon = true;
        return true;
    case TABLET:
        q->tablet = true;
        return true;
    case HERE:
        return true;
    case WITHOUT:
        qemu_note(q, "%s: the guest goes without %s", l->option, d->what);
        return true;
    default:
        return qemu_refuse(q, "%s: bivisor has none; %s", l->option, d->what);
    }
}

bool qemu_take_device(struct qemu *q, const char *option, const char *value) {
    const struct device *d;
    struct qemu_list l;

    if (!qemu_split(q, &l, option, value, NULL) || !l.head)
        return qemu_refuse(q, "%s wants the name of a device, not '%s'", option, value);
    d = find(l.head);
    if (!d)
        return qemu_refuse(q, "%s: bivisor has no '%s'", option, l.head);
    l.option = qemu_format(q, "%s %s", option, l.head);
    return take(q, &l, d);
}
