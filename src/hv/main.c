/*
 * bivisor.elf: what bare/start.S calls. The modules are the guest's kernel and, if there
 * is a second, its initial RAM disk. A guest that resets is booted again.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bare/bare.h"
#include "base/log.h"
#include "boot/boot.h"
#include "hv/hv.h"

static int fail(const char *why) {
    log_error("%s", why);
    return 1;
}

static struct boot_bytes bytes_of(const struct bare_module *m) {
    return (struct boot_bytes){.name = m->args, .data = m->data, .size = m->size};
}

static int open_image(struct boot_image **out) {
    unsigned count;
    const struct bare_module *m = bare_modules(&count);
    struct boot_bytes kernel, initrd;

    if (!count)
        return -ENOENT;
    kernel = bytes_of(&m[0]);
    if (count > 1)
        initrd = bytes_of(&m[1]);
    return boot_image_of(&kernel, count > 1 ? &initrd : NULL, out);
}

static int tell(const struct hv_vm *m, enum hv_end end) {
    static const char *const what[] = {
        [HV_POWEROFF] = "powered off",
        [HV_RESET] = "reset",
        [HV_DEBUG_EXIT] = "wrote to the debug-exit port",
        [HV_SHUTDOWN] = "triple fault",
        [HV_ERROR] = "the engine failed",
    };

    log_line(LOG_INFO, "the guest has ended: %s", what[end]);
    switch (end) {
    case HV_POWEROFF:
        return 0;
    case HV_DEBUG_EXIT:
        return (int)(hv_vm_exit_value(m) << 1 | 1) & 0xff;
    default:
        return end == HV_SHUTDOWN ? 3 : 1;
    }
}

int main(void) {
    static char text[4096];
    char why[384] = "";
    struct hv_config cfg;
    struct boot_image *image;
    struct hv_vm *vm;
    enum hv_end end;
    int status, rc;

    log_set_level(LOG_INFO);
    snprintf(text, sizeof(text), "%s", bare_cmdline());
    if (hv_config_parse(text, &cfg, why, sizeof(why)))
        return fail(why);
    rc = open_image(&image);
    if (rc)
        return fail(
            rc == -ENOMEM
                ? "out of memory"
                : "there is no module: the first is the guest's kernel, the second its "
                  "initial RAM disk");
    log_line(LOG_INFO, "%llu MiB of memory; engine %s, %llu MiB for the guest",
             (unsigned long long)bare_memory() >> 20, cfg.engine,
             (unsigned long long)cfg.memory >> 20);
    if (hv_vm_new(&cfg, image, &vm, why, sizeof(why)))
        return fail(why);
    do {
        if (hv_vm_boot(vm, why, sizeof(why)))
            return fail(why);
        end = hv_vm_run(vm);
    } while (end == HV_RESET);
    if (cfg.stats)
        hv_vm_stats(vm);
    status = tell(vm, end);
    return status;
}
