/* A Linux kernel's header, for its loaders: linux_header.c reads and checks it. */
#ifndef BOOT_LINUX_INT_H
#define BOOT_LINUX_INT_H

#include "boot/boot_int.h"

/* Offsets in the first sectors, which are also offsets in the zero page. */
enum {
    SETUP_SECTS = 0x1f1,
    SYSSIZE = 0x1f4,
    VID_MODE = 0x1fa,
    BOOT_FLAG = 0x1fe,
    JUMP = 0x200,
    MAGIC = 0x202,
    VERSION = 0x206,
    LOADER = 0x210,
    LOADFLAGS = 0x211,
    SETUP_MOVE_SIZE = 0x212,
    CODE32_START = 0x214,
    RAMDISK_IMAGE = 0x218,
    RAMDISK_SIZE = 0x21c,
    HEAP_END = 0x224,
    CMD_LINE_PTR = 0x228,
    INITRD_MAX = 0x22c,
    ALIGNMENT = 0x230,
    RELOCATABLE = 0x234,
    MIN_ALIGNMENT = 0x235,
    XLOADFLAGS = 0x236,
    CMDLINE_SIZE = 0x238,
    PAYLOAD_OFFSET = 0x248,
    PAYLOAD_LENGTH = 0x24c,
    PREF_ADDRESS = 0x258,
    INIT_SIZE = 0x260,
    HEADER_END = 0x290,
    /* Only in the zero page, but for those of the old command line. */
    EXT_MEM_K = 0x002,
    CL_MAGIC = 0x020,
    CL_OFFSET = 0x022,
    ACPI_RSDP = 0x070,
    EXT_RAMDISK_IMAGE = 0x0c0,
    EXT_RAMDISK_SIZE = 0x0c4,
    ALT_MEM_K = 0x1e0,
    E820_ENTRIES = 0x1e8,
    E820_TABLE = 0x2d0,
};

/* Bits of LOADFLAGS. */
#define LOADED_HIGH 0x01u
#define CAN_USE_HEAP 0x80u

/* Bits of XLOADFLAGS. */
#define XLF_KERNEL_64 1u
#define XLF_ABOVE_4G 2u

/* What the header says, checked. */
struct linux_header {
    unsigned version; /* 0: there is no header but the boot sector's */
    unsigned xload;
    uint64_t setup, len; /* real-mode part and the rest of the file, in bytes */
    uint64_t pref, init_size, alignment;
    bool relocatable, is64, high;
};

/* Where the kernel goes and what it needs until it has read its memory map. */
struct linux_place {
    uint64_t load, top, alignment;
};

/* A kernel without its decompressor. */
struct linux_packed {
    struct boot_file unpacked; /* its data are to be freed; not kept for resets, being
                                * large */
    struct linux_place place;
    struct boot_elf elf;
    /* For boot_elf_load(): the same with the ELF file as the kernel. */
    struct boot_image image;
    struct boot_job job;
};

/* Unpacks the kernel in a bzImage and says where it goes; the pointers in *P lead into
 * it. False: it needs its decompressor, or was asked for with it. In both cases there
 * may be unpacked data. */
bool linux_unpack(const struct boot_job *j, const struct linux_header *h,
                  struct linux_packed *p);

/* Whether the 32-bit entry, if it has one at all, rests on what the 16-bit setup does. */
bool linux_needs_setup(const struct boot_file *f);
/* IS16: for the 16-bit entry, which older ones have too. */
int linux_parse(const struct boot_job *j, bool is16, struct linux_header *h);
/* For one that is not relocated: it is loaded at 1 MiB and moves itself. */
int linux_place_fixed(const struct boot_job *j, const struct linux_header *h,
                      struct linux_place *p);
/* Places the initrd above FLOOR and says so in HEADER, the header's copy. */
int linux_put_ramdisk(const struct boot_job *j, const struct linux_header *h,
                      uint64_t floor, uint8_t *header);
/* Characters of command line that the kernel takes. */
uint64_t linux_cmdline_limit(const struct boot_job *j, const struct linux_header *h);
/* What `vga=` on the command line asks for, or normal text mode. */
unsigned linux_video_mode(const char *cmdline);

#endif
