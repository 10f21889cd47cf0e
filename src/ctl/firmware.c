/*
 * Firmware by name: the first file that is there of those where Debian and others keep
 * it. See firmware.h.
 */
#include "ctl/firmware.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILES 5

static const struct {
    const char *name, *what, *package;
    const char *files[FILES];
} known[] = {
    {"bios",
     "SeaBIOS",
     "seabios",
     {"/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin",
      "/usr/share/kvm/bios-256k.bin"}},
    {"uefi",
     "OVMF",
     "ovmf",
     {"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd",
      "/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/ovmf/OVMF_CODE.fd",
      "/usr/share/qemu/edk2-x86_64-code.fd"}},
};

const char *firmware_find(const char *name, char *why, size_t why_size) {
    for (size_t k = 0; k < ARRAY_SIZE(known); k++) {
        if (strcmp(name, known[k].name))
            continue;
        for (size_t i = 0; i < FILES && known[k].files[i]; i++)
            if (!access(known[k].files[i], R_OK))
                return known[k].files[i];
        snprintf(
            why, why_size,
            "--firmware %s: %s is not installed (no %s); install it (Debian's package "
            "is called %s), or name a file",
            name, known[k].what, known[k].files[0], known[k].package);
        return NULL;
    }
    return name;
}
