/*
 * bivisor.elf: what bare/start.S calls. A module whose text has the word `guest` behind
 * its name is a guest's kernel; words behind that one change what the command line says,
 * for this guest. The modules behind it, to the next such one, are the guest's: the
 * first is its initial RAM disk. Where no module has that word there is one guest. One
 * that resets is booted again.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bare/bare.h"
#include "base/log.h"
#include "boot/boot.h"
#include "hv/hv_int.h"

#define TEXT 4096u

static struct guest {
    const struct bare_module *kernel, *initrd;
    struct hv_config cfg;
    struct hv_vm *vm;
    char text[TEXT];
} guest[HV_GUESTS];
static unsigned guests;

static int fail(const char *why) {
    log_error("%s", why);
    return 1;
}

/* What is behind `NAME guest`, or NULL: that is not what the module's text says. */
static const char *words_of(const struct bare_module *m) {
    const char *p = m->args + strcspn(m->args, " ");

    while (*p == ' ')
        p++;
    if (strncmp(p, "guest", 5) || (p[5] && p[5] != ' '))
        return NULL;
    return p + 5;
}

/* Which modules are whose. */
static const char *assign(const struct bare_module *m, unsigned count) {
    for (unsigned n = 0; n < count; n++) {
        if (words_of(&m[n]) || !guests) {
            if (guests == HV_GUESTS)
                return "there are more guests than eight";
            guest[guests++].kernel = &m[n];
        } else if (!guest[guests - 1].initrd) {
            guest[guests - 1].initrd = &m[n];
        } else {
            return "a module is neither a guest's kernel nor its initial RAM disk";
        }
    }
    if (guests)
        return NULL;
    return "there is no module: the first is the guest's kernel, the second its initial "
           "RAM disk";
}

static int configure(struct guest *g, const struct hv_config *all, char *why,
                     size_t size) {
    const char *words = words_of(g->kernel);

    g->cfg = *all;
    g->cfg.number = (unsigned)(g - guest) + 1;
    g->cfg.several = guests > 1;
    snprintf(g->text, sizeof(g->text), "%s", words ? words : "");
    if (hv_config_parse(g->text, &g->cfg, why, size))
        return -EINVAL;
    return hv_config_check(&g->cfg, why, size);
}

/* Where guests' CPUs share one of the host's, who waits for another is to give it away.
 */
static void share_cpus(void) {
    unsigned cpus = 0;

    for (unsigned n = 0; n < guests; n++)
        cpus += guest[n].cfg.cpus;
    for (unsigned n = 0; n < guests; n++)
        guest[n].cfg.svm.pauses = cpus > bare_cpus();
}

static struct boot_bytes bytes_of(const struct bare_module *m) {
    return (struct boot_bytes){.name = m->args, .data = m->data, .size = m->size};
}

static int make(struct guest *g, char *why, size_t size) {
    struct boot_bytes kernel = bytes_of(g->kernel), initrd;
    struct boot_image *image;
    int rc;

    if (g->initrd)
        initrd = bytes_of(g->initrd);
    snprintf(why, size, "out of memory");
    rc = boot_image_of(&kernel, g->initrd ? &initrd : NULL, &image);
    if (!rc)
        rc = hv_vm_new(&g->cfg, image, &g->vm, why, size);
    return rc ? rc : hv_vm_boot(g->vm, why, size);
}

static int status_of(const struct hv_vm *m) {
    switch (hv_vm_end(m)) {
    case HV_POWEROFF:
        return 0;
    case HV_DEBUG_EXIT:
        return (int)(hv_vm_exit_value(m) << 1 | 1) & 0xff;
    default:
        return hv_vm_end(m) == HV_SHUTDOWN ? 3 : 1;
    }
}

/* What the first CPU says holds for all: they are of one kind. */
static void tell_lacks(void) {
    char text[512];
    unsigned n = 0;

    while (n < guests && strcmp(guest[n].cfg.engine, "svm") != 0)
        n++;
    if (n == guests)
        return;
    svm_lacks(hv_svm_host(0), text, sizeof(text));
    log_line(LOG_INFO, "%s", text);
}

int main(void) {
    static char text[TEXT];
    char why[384] = "";
    struct hv_config all = hv_config_defaults();
    const struct bare_module *m;
    const char *wrong;
    unsigned count;
    int status = 0;

    log_set_level(LOG_INFO);
    snprintf(text, sizeof(text), "%s", bare_cmdline());
    if (hv_config_parse(text, &all, why, sizeof(why)))
        return fail(why);
    m = bare_modules(&count);
    wrong = assign(m, count);
    if (wrong)
        return fail(wrong);
    for (unsigned n = 0; n < guests; n++)
        if (configure(&guest[n], &all, why, sizeof(why)))
            return fail(why);
    share_cpus();
    hv_console_start(guests);
    for (unsigned n = 0; n < guests; n++) {
        const struct hv_config *c = &guest[n].cfg;

        log_line(LOG_INFO, "%llu MiB of memory, CPUs: %u; engine %s, %llu MiB for %s",
                 (unsigned long long)bare_memory() >> 20, bare_cpus(), c->engine,
                 (unsigned long long)c->memory >> 20,
                 guests > 1 ? guest[n].kernel->args : "the guest");
        if (make(&guest[n], why, sizeof(why)))
            return fail(why);
    }
    tell_lacks();
    if (guests > 1)
        log_line(LOG_INFO,
                 "%u guests: keys go to the first; Ctrl-A and a digit choose "
                 "another",
                 guests);
    hv_sched_run();
    for (unsigned n = 0; n < guests; n++)
        if (!status)
            status = status_of(guest[n].vm);
    return status;
}
