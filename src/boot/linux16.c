/*
 * Linux through its 16-bit entry: "The Linux/x86 Boot Protocol", "Memory Layout of The
 * Real-Mode Code", "Loading The Rest of The Kernel", "Running the Kernel". For zImages
 * and kernels before protocol 2.02, for those whose setup does more than ask the BIOS
 * (iPXE), and on demand for all.
 *
 * What the setup asks of a BIOS the board's ROM answers (boot/bios.h): the CPU begins
 * there, and it enters the setup.
 */
#include "boot/bios.h"
#include "boot/linux_int.h"
#include "x86/cr.h"

#define OLD_SEGMENT 0x90000u /* before 2.02 and for zImages */
#define NEW_SEGMENT 0x10000u
#define LOW_KERNEL 0x10000u /* of a zImage, up to OLD_SEGMENT */
/* Offsets in the segment. */
#define SETUP_MAX 0x8000u
#define OLD_HEAP_END 0x9800u /* then the command line, up to 0xa000 */
#define NEW_HEAP_END 0xe000u

#define OLD_CMDLINE_MAX 0x7ffu
#define NEW_CMDLINE_MAX 0xffffu

/* Where the parts go; BASE is the setup's. */
struct layout {
    uint64_t base, kernel, cmdline, cmdline_max, top;
    unsigned heap_end;
};

static int find_layout(const struct boot_job *j, const struct linux_header *h,
                       struct layout *l) {
    const char *path = j->image->kernel.path;
    struct linux_place p;
    int rc;

    *l = (struct layout){NEW_SEGMENT,     BOOT_HIGH, BOOT_CMDLINE,
                         NEW_CMDLINE_MAX, 0,         NEW_HEAP_END};
    if (!h->high || h->version < 0x202)
        *l = (struct layout){OLD_SEGMENT,
                             h->high ? BOOT_HIGH : LOW_KERNEL,
                             OLD_SEGMENT + OLD_HEAP_END,
                             OLD_CMDLINE_MAX,
                             BOOT_HIGH,
                             OLD_HEAP_END};
    if (h->setup > SETUP_MAX)
        return boot_refuse(j, "%s has a 16-bit setup of %llu KiB; 32 KiB are possible",
                           path, (unsigned long long)h->setup >> 10);
    if (!h->high && h->len > OLD_SEGMENT - LOW_KERNEL)
        return boot_refuse(j,
                           "%s has %llu KiB to be loaded below 1 MiB, where 512 KiB are "
                           "possible; is it a kernel?",
                           path, (unsigned long long)h->len >> 10);
    if (!h->high)
        return 0;
    rc = linux_place_fixed(j, h, &p);
    l->top = p.top;
    return rc;
}

/* Fields of the setup's header, each from the version on that has it. */
static void fill_header(const struct boot_job *j, const struct linux_header *h,
                        const struct layout *l, uint8_t *setup) {
    boot_set(setup, VID_MODE, 2, linux_video_mode(j->cmdline));
    if (h->version >= 0x200)
        boot_set(setup, LOADER, 1, 0xff);
    if (h->version >= 0x201) {
        boot_set(setup, LOADFLAGS, 1, setup[LOADFLAGS] | CAN_USE_HEAP);
        boot_set(setup, HEAP_END, 2, l->heap_end - 0x200);
    }
    if (h->version >= 0x202) {
        boot_set(setup, CMD_LINE_PTR, 4, l->cmdline);
        return;
    }
    boot_set(setup, CL_MAGIC, 2, 0xa33f);
    boot_set(setup, CL_OFFSET, 2, l->cmdline - l->base);
    if (h->version >= 0x200)
        boot_set(setup, SETUP_MOVE_SIZE, 2,
                 l->cmdline - l->base + strlen(j->cmdline) + 1);
}

static void enter(struct vcpu *v, const struct layout *l) {
    v->seg[SEG_CS].sel = BIOS_SEGMENT;
    v->seg[SEG_CS].base = BIOS_BASE;
    v->rip = BIOS_START;
    v->gpr[REG_RBX] = l->base >> 4;
    v->gpr[REG_RCX] = l->heap_end;
    vcpu_update_mode(v);
}

int boot_linux16(const struct boot_job *j) {
    const struct boot_file *f = &j->image->kernel;
    uint8_t setup[SETUP_MAX];
    struct linux_header h;
    struct layout l;
    uint64_t limit;
    int rc;

    if (f->size < BOOT_FLAG + 2 || boot_get(f->data, BOOT_FLAG, 2) != 0xaa55)
        return boot_refuse(j, "%s is no Linux kernel with a 16-bit setup", f->path);
    rc = linux_parse(j, true, &h);
    if (!rc)
        rc = find_layout(j, &h, &l);
    if (rc)
        return rc;
    limit = linux_cmdline_limit(j, &h);
    rc = boot_put_cmdline(j, l.cmdline, limit < l.cmdline_max ? limit : l.cmdline_max);
    if (rc)
        return rc;
    memcpy(setup, f->data, h.setup);
    fill_header(j, &h, &l, setup);
    rc = linux_put_ramdisk(j, &h, l.top, setup);
    if (rc)
        return rc;
    boot_put(j, l.base, setup, h.setup);
    boot_put(j, l.kernel, f->data + h.setup, h.len);
    enter(j->v, &l);
    return 0;
}
