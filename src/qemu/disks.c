/* -drive, -blockdev, -hda and others, and the -device of a disk; see qemu_int.h. */
#include <stdio.h>
#include <string.h>

#include "qemu/qemu_int.h"

/* What says how QEMU does its work on a disk, and not what the guest sees. */
#define HOW_IT_WORKS                                                                     \
    "id cache cache.* aio discard detect-zeroes werror rerror locking throttling.* "     \
    "throttling-group l2-cache-* cache-size refcount-* overlap-check* copy-on-read "     \
    "lazy-refcounts pass-discard-* iops* bps* stats-* auto-read-only force-share "       \
    "cache-clean-interval node-name serial bus unit "

static struct qemu_disk *add(struct qemu *q, const char *option) {
    struct qemu_disk *d = &q->disk[q->disk_count];

    if (q->disk_count == QEMU_DISKS) {
        qemu_refuse(q, "%s: more than %u disks are not possible", option, QEMU_DISKS);
        return NULL;
    }
    q->disk_count++;
    *d = (struct qemu_disk){.index = -1, .bootindex = -1};
    return d;
}

/* --- files --- */

/* QEMU's nbd:HOST:PORT and nbd:unix:PATH as the URIs that we know. */
static const char *server(struct qemu *q, const char *file) {
    char *text = qemu_format(q, "%s", file + 4), *export = strstr(text, ":exportname=");
    const char *name = "";

    if (export) {
        *export = 0;
        name = export + strlen(":exportname=");
    }
    if (!strncmp(text, "unix:", 5))
        return qemu_format(q, "nbd+unix:///%s?socket=%s", name, text + 5);
    return qemu_format(q, "nbd://%s/%s", text, name);
}

/* fat:[rw:][floppy:][12:|16:|32:][LABEL:]DIR. NULL after a refusal. */
static const char *directory(struct qemu *q, const char *option, const char *file) {
    const char *dir = strrchr(file, ':') + 1;

    if (strstr(file, ":floppy:")) {
        qemu_refuse(q, "%s: there is no floppy drive for '%s'", option, file);
        return NULL;
    }
    if (strstr(file, ":rw:"))
        qemu_note(q, "%s: what the guest writes does not come to the directory '%s'",
                  option, dir);
    return qemu_format(q, "fat:%s", dir);
}

static bool take_file(struct qemu *q, const char *option, struct qemu_disk *d,
                      const char *file) {
    static const char *const beyond[] = {
        "json:",    "http:",     "https:",   "ssh:",     "rbd:",   "iscsi:",
        "ftp:",     "sheepdog:", "gluster:", "nfs:",     "vvfat:", "vxhs:",
        "gluster+", "blkdebug:", "null-co:", "null-aio:"};

    for (size_t n = 0; n < ARRAY_SIZE(beyond); n++)
        if (!strncmp(file, beyond[n], strlen(beyond[n])))
            return qemu_refuse(q,
                               "%s: bivisor has files, block devices and nbd:// "
                               "servers, and not '%s'",
                               option, file);
    if (!strncmp(file, "file:", 5))
        file += 5;
    if (!strncmp(file, "fat:", 4) && !(file = directory(q, option, file)))
        return false;
    if (!strncmp(file, "nbd:", 4) && strncmp(file, "nbd://", 6) != 0)
        file = server(q, file);
    d->file = file;
    return true;
}

static bool take_format(struct qemu *q, const char *option, struct qemu_disk *d,
                        const char *format) {
    if (!format)
        return true;
    if (strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0)
        return qemu_refuse(q,
                           "%s: bivisor knows raw and qcow2, not '%s'; `qemu-img "
                           "convert` makes one of it",
                           option, format);
    d->format = format;
    return true;
}

static bool take_interface(struct qemu *q, const char *option, struct qemu_disk *d,
                           const char *name) {
    static const struct {
        const char *name;
        enum qemu_disk_how how;
    } known[] = {{"ide", QEMU_IDE},       {"virtio", QEMU_VIRTIO}, {"none", QEMU_NONE},
                 {"pflash", QEMU_PFLASH}, {"scsi", QEMU_IDE},      {"sata", QEMU_IDE}};

    for (size_t n = 0; n < ARRAY_SIZE(known); n++) {
        if (!strcmp(name, known[n].name)) {
            d->how = known[n].how;
            if (!strcmp(name, "scsi"))
                qemu_note(q, "%s: if=scsi: " QEMU_AT_IDE, option);
            return true;
        }
    }
    return qemu_refuse(q, "%s: bivisor has disks at virtio and ide, and not at '%s'",
                       option, name);
}

bool qemu_take_drive(struct qemu *q, const char *option, const char *value) {
    struct qemu_disk *d = add(q, option);
    struct qemu_list l;
    const char *text;
    bool readonly;

    if (!d || !qemu_split(q, &l, option, value, "file"))
        return false;
    d->id = qemu_value(&l, "id");
    if ((text = qemu_value(&l, "if")) && !take_interface(q, option, d, text))
        return false;
    if ((text = qemu_value(&l, "media"))) {
        if (strcmp(text, "disk") != 0 && strcmp(text, "cdrom") != 0)
            return qemu_refuse(q, "%s: media wants disk or cdrom, not '%s'", option,
                               text);
        d->cdrom = !strcmp(text, "cdrom");
    }
    if (!qemu_switch(q, &l, "readonly", false, &d->readonly) ||
        !qemu_switch(q, &l, "read-only", d->readonly, &readonly) ||
        !qemu_switch(q, &l, "snapshot", false, &d->snapshot) ||
        !qemu_number(q, &l, "index", -1, 63, &d->index) ||
        (d->index < 0 && !qemu_number(q, &l, "unit", -1, 63, &d->index)))
        return false;
    d->readonly = readonly;
    text = qemu_value(&l, "format");
    if (!take_format(q, option, d, text ? text : qemu_value(&l, "driver")))
        return false;
    text = qemu_value(&l, "file");
    if (!text)
        text = qemu_value(&l, "file.filename");
    if (!text && !d->cdrom)
        return qemu_refuse(q, "%s names no file: '%s'", option, value);
    qemu_value(&l, "file.driver");
    if (!text) { /* an empty drive */
        q->disk_count--;
        return qemu_rest(q, &l, HOW_IT_WORKS);
    }
    return take_file(q, option, d, text) && qemu_rest(q, &l, HOW_IT_WORKS);
}

/* driver=qcow2|raw|file|host_device,node-name=...,file=NODE or file.filename=... */
bool qemu_take_blockdev(struct qemu *q, const char *option, const char *value) {
    struct qemu_disk *d = add(q, option);
    struct qemu_list l;
    const char *driver, *file;

    if (!d || !qemu_split(q, &l, option, value, "driver") ||
        !qemu_switch(q, &l, "read-only", false, &d->readonly))
        return false;
    d->how = QEMU_NONE;
    d->id = qemu_value(&l, "node-name");
    driver = qemu_value(&l, "driver");
    if (!driver || !d->id)
        return qemu_refuse(q, "%s wants driver= and node-name=, not '%s'", option, value);
    file = qemu_value(&l, "file.filename");
    if (!file)
        file = qemu_value(&l, "filename");
    d->below = qemu_value(&l, "file");
    qemu_value(&l, "file.driver");
    qemu_value(&l, "file.locking");
    if (strcmp(driver, "file") != 0 && strcmp(driver, "host_device") != 0 &&
        !take_format(q, option, d, driver))
        return false;
    if (!file && !d->below)
        return qemu_refuse(q, "%s names no file: '%s'", option, value);
    return (!file || take_file(q, option, d, file)) &&
           qemu_rest(q, &l, HOW_IT_WORKS "file.* ");
}

bool qemu_take_image(struct qemu *q, const char *option, const char *value) {
    struct qemu_disk *d = add(q, *option == '-' ? option : "a disk");

    if (!d)
        return false;
    if (!strcmp(option, "-pflash")) {
        d->how = QEMU_PFLASH;
    } else if (!strcmp(option, "-cdrom")) {
        d->cdrom = true;
        d->index = 2;
    } else {
        d->index = *option == '-' ? option[3] - 'a' : 0;
    }
    return take_file(q, option, d, value);
}

/* --- -device --- */

static struct qemu_disk *find(struct qemu *q, const char *id) {
    for (size_t n = 0; id && n < q->disk_count; n++)
        if (q->disk[n].id && !strcmp(q->disk[n].id, id))
            return &q->disk[n];
    return NULL;
}

/* The file is that of the node below, or of the one below that. */
static bool resolve(struct qemu *q, const char *option, struct qemu_disk *d) {
    for (unsigned depth = 0; !d->file && d->below && depth < 4; depth++) {
        const struct qemu_disk *below = find(q, d->below);

        if (!below)
            return qemu_refuse(q, "%s: there is no block device '%s'", option, d->below);
        d->file = below->file;
        d->below = below->below;
        d->readonly |= below->readonly;
        if (!d->format)
            d->format = below->format;
    }
    return d->file || qemu_refuse(q, "%s: '%s' leads to no file", option, d->id);
}

/* The drive may come after its device on the command line: QEMU takes all drives first.
 */
bool qemu_attach_disk(struct qemu *q, struct qemu_list *l, enum qemu_disk_how how,
                      bool cdrom) {
    const char *id = qemu_value(l, "drive");
    struct qemu_disk *d = find(q, id);

    if (!id && cdrom)
        return qemu_rest(q, l, "id bus unit "); /* an empty drive */
    if (!d)
        return qemu_refuse(q, "%s: there is no drive '%s'", l->option, id ? id : "");
    if (d->how != QEMU_NONE)
        return qemu_refuse(q,
                           "%s: drive '%s' is attached already; if=none lets a device "
                           "have it",
                           l->option, id);
    if (!resolve(q, l->option, d) ||
        !qemu_number(q, l, "bootindex", -1, 1 << 20, &d->bootindex) ||
        !qemu_number(q, l, "logical_block_size", 0, 1 << 21, &d->sector))
        return false;
    d->how = how;
    d->cdrom = cdrom;
    return qemu_rest(q, l,
                     "id bus unit addr serial physical_block_size "
                     "num-queues queue-size iothread scsi config-wce write-cache "
                     "disable-modern disable-legacy share-rw discard_granularity "
                     "min_io_size opt_io_size model ver wwn rotation_rate lun channel "
                     "scsi-id multifunction x-* event_idx iommu_platform packed ats "
                     "ioeventfd vectors romfile rombar "
                     "device_id removable request-merging seg-max-adjust werror rerror "
                     "product vendor dpofua port port_index attached max_* pcie_port ");
}
