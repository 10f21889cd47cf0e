/*
 * The loaders: a header of eight bytes (protocol, RAM, the initrd's size, the command
 * line's), then the kernel file. Files are memfds, opened as a user's are.
 *
 * What a loader has accepted must be a guest that can start: registers in range, and an
 * entry point in RAM.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "boot/boot.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "dev/tables/acpi.h"
#include "fuzz/fuzz.h"

enum { SIZES = 4 };

static struct vcpu *v;
static struct mem *memory[SIZES];
static int kernel_fd, initrd_fd;
static char kernel_path[32], initrd_path[32];

static int file_new(char *path) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    HOLDS(fd >= 0);
    snprintf(path, sizeof(kernel_path), "/proc/self/fd/%d", fd);
    return fd;
}

static void set_up(void) {
    static const uint64_t ram[SIZES] = {4 << 20, 16 << 20, 40 << 20, 5ull << 30};
    static const struct cpuid_config cfg = {.tsc_hz = 1000000000, .paravirt = true};

    if (v)
        return;
    vec_init();
    v = aligned_alloc(64, sizeof(*v));
    memset(v, 0, sizeof(*v));
    v->cpuid = cpuid_model_new(&cfg);
    for (unsigned k = 0; k < SIZES; k++)
        HOLDS(!mem_create(ram[k], &memory[k]));
    kernel_fd = file_new(kernel_path);
    initrd_fd = file_new(initrd_path);
}

static void check_state(const struct mem *m, enum boot_protocol p) {
    uint8_t byte;

    HOLDS(!v->vec_live);
    HOLDS((v->cr0 & 1) == (v->mode != MODE_16));
    HOLDS(v->mode == MODE_64 || !(v->rip >> 32));
    HOLDS(mem_read(m, gpa(v->seg[SEG_CS].base + v->rip), &byte, 1));
    if (p == BOOT_LINUX16 || v->mode == MODE_16)
        HOLDS(p == BOOT_LINUX16 || (p == BOOT_AUTO && v->seg[SEG_CS].sel == 0xf000));
    if (p == BOOT_LINUX64)
        HOLDS(v->mode == MODE_64);
    if (p == BOOT_PVH || p == BOOT_MULTIBOOT || p == BOOT_LINUX32)
        HOLDS(v->mode == MODE_32);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};
    unsigned protocol = (unsigned)fuzz_get(&in, 1) % (BOOT_LINUX16 + 1);
    struct boot_config cfg = {.protocol = (enum boot_protocol)protocol};
    unsigned choice = (unsigned)fuzz_get(&in, 1);
    uint64_t initrd = fuzz_get(&in, 2), text = fuzz_get(&in, 2);
    uint64_t shift = fuzz_get(&in, 1) % 13;
    const struct acpi_config acpi = {.cpus = 1};
    struct boot_image *image = NULL;
    char why[512] = "", *cmdline;
    struct mem *m;
    int rc;

    set_up();
    fuzz_get(&in, 1); /* spare */
    /* Much memory takes long to reset; it is there for what lies above 4 GiB. */
    m = memory[choice >> 4 == 15 ? SIZES - 1 : choice % (SIZES - 1)];
    mem_reset(m);
    if (choice & 4 && mem_set_kind(m, gpa(0xf0000), 0x10000, MEM_ROM))
        abort();
    v->mem = m;
    vcpu_reset(v);
    HOLDS(!acpi_build(m, gpa(ACPI_WHERE), &acpi, &cfg.rsdp, &cfg.acpi_len));
    cmdline = malloc(text + 1);
    memset(cmdline, 'x', text);
    cmdline[text] = '\0';
    cfg.cmdline = choice & 8 ? NULL : cmdline;
    HOLDS(!ftruncate(kernel_fd, 0) && !ftruncate(initrd_fd, 0));
    HOLDS(pwrite(kernel_fd, in.p, in.left, 0) == (ssize_t)in.left);
    HOLDS(!ftruncate(initrd_fd, (off_t)(initrd << shift)));
    rc = boot_image_open(kernel_path, initrd ? initrd_path : NULL, &image, why,
                         sizeof(why));
    if (!rc)
        rc = boot_image_load(image, v, m, &cfg, why, sizeof(why));
    boot_image_close(image);
    free(cmdline);
    if (rc)
        HOLDS(strstr(why, "/proc/self/fd/") && !strchr(why, '\n'));
    else
        check_state(m, cfg.protocol);
    return 0;
}
