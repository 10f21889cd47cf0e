/* --disk and --cdrom; see disk_option.h. */
#include "ctl/disk_option.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "ctl/options.h"

#define RECONNECT 60u /* seconds */

bool disk_option_help(const char *value) {
    if (strcmp(value, "help") != 0)
        return false;
    printf(
        "--disk FILE[,OPTION...]\n"
        "\n"
        "A disk, as often as there are disks. FILE is an image, a block device, or the\n"
        "nbd:// or nbd+unix:// URI of a server; a comma in it is written twice.\n"
        "fat:DIR is a FAT file system with what DIR has now; DIR stays as it is.\n"
        "\n"
        "  format=raw|qcow2   what FILE is (default: qcow2 if it is so named, else "
        "raw)\n"
        "  readonly           the guest cannot write to it\n"
        "  overlay=temp       what the guest writes is forgotten at the end\n"
        "  overlay=FILE       what it writes goes to this qcow2 image, made if "
        "need be\n"
        "  backing=allow      backing files may lie anywhere, not only beside the "
        "image\n"
        "  if=virtio|ide      how it is attached (default: virtio)\n"
        "  sector=512|4096    the smallest piece that the guest can read or write "
        "(default:\n"
        "                     as a block device has it, else 512)\n"
        "  reconnect=SECONDS  how long the guest waits for a server that has gone, "
        "before "
        "it\n"
        "                     sees errors (default: 60)\n"
        "  bandwidth=SIZE[:BURST]  so many bytes a second, and BURST at once\n"
        "  iops=N[:BURST]     so many requests a second\n");
    return true;
}

/* NAME[=VALUE] */
static bool take_part(struct disk_option *d, char *name) {
    static const char *const formats[] = {"raw", "qcow2"};
    static const char *const kinds[] = {"virtio", "ide"};
    static const char *const allows[] = {"allow"};
    static const char *const sectors[] = {"512", "4096"};
    char *value = strchr(name, '=');
    size_t choice;

    if (value)
        *value++ = 0;
    if (!strcmp(name, "readonly") && !value) {
        d->spec.readonly = true;
        return true;
    }
    if (!strcmp(name, "overlay") && value && *value) {
        d->spec.overlay = value;
        return true;
    }
    if (!strcmp(name, "format") && value) {
        if (!options_choice("--disk: format", value, formats, 2, &choice))
            return false;
        d->spec.format = choice ? BLOCK_QCOW2 : BLOCK_RAW;
        return true;
    }
    if (!strcmp(name, "if") && value) {
        if (!options_choice("--disk: if", value, kinds, 2, &choice))
            return false;
        d->kind = choice ? MACHINE_DISK_IDE : MACHINE_DISK_VIRTIO;
        return true;
    }
    if (!strcmp(name, "backing") && value) {
        d->spec.backing_allowed = true;
        return options_choice("--disk: backing", value, allows, 1, &choice);
    }
    if (!strcmp(name, "sector") && value) {
        if (!options_choice("--disk: sector", value, sectors, 2, &choice))
            return false;
        d->spec.sector = choice ? BLOCK_SECTOR_MAX : BLOCK_SECTOR;
        return true;
    }
    if (!strcmp(name, "bandwidth") && value)
        return options_rate("--disk: bandwidth", value, true, &d->limit[BLOCK_BYTES]);
    if (!strcmp(name, "iops") && value)
        return options_rate("--disk: iops", value, false, &d->limit[BLOCK_OPERATIONS]);
    if (!strcmp(name, "reconnect") && value)
        return options_number("--disk: reconnect", value, 0, 1000000, &d->spec.reconnect);
    log_error(
        "--disk: '%s%s%s' is none of format=, readonly, overlay=, backing=allow, "
        "if=, sector=, reconnect=, bandwidth= and iops=; a comma in a file's name is "
        "written twice",
        name, value ? "=" : "", value ? value : "");
    return false;
}

static struct disk_option *add(struct disk_options *o, const char *option,
                               const char *value) {
    struct disk_option *d = &o->disk[o->count];

    if (o->count == MACHINE_DISKS) {
        log_error("--disk and --cdrom are possible %u times at most", MACHINE_DISKS);
        return NULL;
    }
    *d = (struct disk_option){.text = strdup(value), .spec.reconnect = RECONNECT};
    if (!d->text) {
        log_error("out of memory");
        return NULL;
    }
    o->count++;
    d->spec.path = d->text;
    if (*d->text && *d->text != ',')
        return d;
    log_error("%s wants a file, not '%s'", option, value);
    return NULL;
}

bool disk_option_take(struct disk_options *o, const char *value) {
    struct disk_option *d = add(o, "--disk", value);
    char *part = d ? options_cut(d->text) : NULL;

    while (part) {
        char *rest = options_cut(part);

        if (!take_part(d, part))
            return false;
        part = rest;
    }
    if (d && block_is_directory(d->text) && !d->spec.readonly && !d->spec.overlay)
        d->spec.overlay = "temp";
    if (d && d->spec.readonly && d->spec.overlay) {
        log_error("--disk: an overlay takes what the guest writes, and readonly lets it "
                  "write nothing; leave one of them out");
        return false;
    }
    if (d && d->kind == MACHINE_DISK_IDE && d->spec.sector > BLOCK_SECTOR) {
        log_error(
            "--disk: a disk at IDE has sectors of %u bytes; leave sector= or if=ide "
            "out",
            BLOCK_SECTOR);
        return false;
    }
    return d;
}

bool disk_option_take_cdrom(struct disk_options *o, const char *value) {
    struct disk_option *d = add(o, "--cdrom", value);

    if (!d)
        return false;
    d->kind = MACHINE_DISK_CDROM;
    d->spec.format = BLOCK_RAW;
    d->spec.readonly = true;
    return true;
}

void disk_options_free(struct disk_options *o) {
    while (o->count)
        free(o->disk[--o->count].text);
}

const char *disk_option_overlay(const struct disk_option *d) {
    const char *overlay = d->spec.overlay;

    return overlay && strcmp(overlay, "temp") ? overlay : NULL;
}

bool disk_options_repeat(const struct disk_options *o, const char *option) {
    for (unsigned n = 0; n < o->count; n++) {
        const struct block_spec *s = &o->disk[n].spec;

        if (block_is_server(s->path)) {
            log_error("%s: what the server of '%s' does cannot be repeated; copy the "
                      "disk to a file",
                      option, s->path);
            return false;
        }
        if (o->disk[n].limit[BLOCK_BYTES].amount ||
            o->disk[n].limit[BLOCK_OPERATIONS].amount) {
            log_error(
                "%s: a run that can be repeated has no limits; leave bandwidth= and "
                "iops= of '%s' out",
                option, s->path);
            return false;
        }
        if (s->readonly || (s->overlay && !disk_option_overlay(&o->disk[n])))
            continue;
        log_error("%s: the run would change '%s', and could not be repeated; add "
                  ",overlay=temp or ,readonly to its --disk",
                  option, s->path);
        return false;
    }
    return true;
}

int disk_options_open(const struct disk_options *o, enum jail_want jail,
                      struct machine_config *cfg) {
    char why[512];

    cfg->disk_count = 0;
    for (unsigned n = 0; n < o->count; n++) {
        struct machine_disk *d = &cfg->disks[n];
        struct block_spec spec = o->disk[n].spec;
        int rc;

        spec.jail = jail;
        d->kind = o->disk[n].kind;
        memcpy(d->limit, o->disk[n].limit, sizeof(d->limit));
        rc = block_open(&spec, &d->block, why, sizeof(why));
        if (rc) {
            log_error("%s: %s", d->kind == MACHINE_DISK_CDROM ? "--cdrom" : "--disk",
                      why);
            disk_options_close(cfg);
            return rc;
        }
        cfg->disk_count++;
    }
    return 0;
}

bool disk_options_close(struct machine_config *cfg) {
    bool good = true;

    while (cfg->disk_count)
        good &= !block_close(cfg->disks[--cfg->disk_count].block);
    return good;
}
