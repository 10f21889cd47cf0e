/*
 * Every allocation fails once: a machine is made and run again and again, with the first,
 * the second, the third ... of them failing, until none is left to fail. Each time there
 * is an error with a sentence, or it does not matter; nothing is leaked or freed twice.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <unistd.h>

#include "block/block.h"
#include "lib/engines.h"
#include "lib/failing.h"
#include "lib/tiny.h"
#include "machine/machine.h"
#include "net/net.h"

/* --- what is left behind --- */

struct left {
    long blocks;
    unsigned mappings, fds;
};

static struct left left_now(void) {
    struct left l = {blocks, mappings(), 0};

    for (int fd = 0; fd < 256; fd++)
        l.fds += fcntl(fd, F_GETFD) >= 0;
    return l;
}

static void same_left(const struct left *before, const char *what, unsigned n) {
    struct left now = left_now();

    if (memcmp(&now, before, sizeof(now)))
        fail_msg("%s, failure %u: %ld blocks, %d mappings, %d descriptors are left", what,
                 n, now.blocks - before->blocks, (int)(now.mappings - before->mappings),
                 (int)(now.fds - before->fds));
}

static char kernel[32];
static struct boot_image *image;
static struct net *net; /* of a card that is PCI's own */
static char socket_path[64];

static int setup(void **state) {
    struct net_config cfg = {.kind = NET_SOCKET, .listen = true};
    char why[256];
    int fd = tiny_kernel(FAILING_GUEST, sizeof(FAILING_GUEST) - 1, kernel);

    if (fd < 0 || boot_image_open(kernel, NULL, &image, why, sizeof(why)))
        return -1;
    snprintf(socket_path, sizeof(socket_path), "/tmp/bivisor-nomem.%d", (int)getpid());
    cfg.name = socket_path;
    return net_open(&cfg, &net, why, sizeof(why));
}

static int teardown(void **state) {
    boot_image_close(image);
    net_close(net);
    unlink(socket_path);
    return 0;
}

static struct machine_config config_of(const char *engine) {
    struct machine_config cfg = {.engine = engine,
                                 .memory = 16 << 20,
                                 .image = image,
                                 .virtio = MACHINE_VIRTIO_PCI,
                                 .rng = true,
                                 .nets = {{.net = net, .model = MACHINE_NET_E1000}},
                                 .net_count = 1,
                                 .balloon = true};
    char why[128];

    machine_options_default(&cfg.options);
    assert_int_equal(machine_options_parse(&cfg.options, engine_named("bt"), "cache=1",
                                           why, sizeof(why)),
                     0);
    return cfg;
}

/* --- machine_create() --- */

/* FIRST: what the process keeps for good, it may have got just now. */
static void create_with_failures(const struct machine_config *cfg, bool first) {
    struct left before = left_now();
    unsigned n = 0;

    do {
        struct machine *m = NULL;
        char why[512] = "";
        int rc;

        failing_arm(++n);
        rc = machine_create(cfg, &m, why, sizeof(why));
        fail_at = 0;
        if (!rc)
            machine_free(m);
        else if (rc > 0 || !*why || strchr(why, '\n') || strstr(why, "executable"))
            fail_msg("%s, failure %u: %d, '%s'", cfg->engine, n, rc, why);
        if (!first)
            same_left(&before, cfg->engine, n);
    } while (failed);
    assert_in_range(n, 20, 1000);
}

/* Nothing is there yet, also of what is made once for the process. */
static void test_first_machine(void **state) {
    struct machine_config cfg = config_of("bt");

    create_with_failures(&cfg, true);
}

static void test_engines(void **state) {
    size_t count;
    const struct engine_ops *const *all = machine_engines(&count);

    for (size_t k = 0; k < count; k++) {
        struct machine_config cfg = config_of(all[k]->name);

        create_with_failures(&cfg, false);
    }
}

/* With what each CPU has besides, its thread among it. */
static void test_many_cpus(void **state) {
    size_t count;
    const struct engine_ops *const *all = machine_engines(&count);

    for (size_t k = 0; k < count; k++) {
        struct machine_config cfg = config_of(all[k]->name);

        cfg.cpus = 3;
        create_with_failures(&cfg, false);
    }
}

/* Cells, and the process that makes them. */
static void test_direct(void **state) {
    struct machine_config cfg = config_of("bt");

    cfg.cpus = 2;
    cfg.direct = DIRECT_ON;
    create_with_failures(&cfg, false);
}

/* What another host forbids. The interpreter's share is there since the first test. */
static void test_no_code_memory(void **state) {
    struct machine_config cfg = config_of("bt");
    struct machine *m;
    char why[512];

    deny_code = true;
    assert_int_equal(machine_create(&cfg, &m, why, sizeof(why)), -ENODEV);
    assert_non_null(strstr(why, "executable memory"));
    cfg = config_of("interp");
    assert_int_equal(machine_create(&cfg, &m, why, sizeof(why)), 0);
    machine_free(m);
    deny_code = false;
}

static void test_options(void **state) {
    struct machine_config cfg = config_of("bt");
    char why[128];

    cfg.counted = true;
    create_with_failures(&cfg, false);
    cfg = config_of("interp");
    cfg.paravirt = true;
    cfg.policy = MMU_PCID;
    create_with_failures(&cfg, false);
    cfg.policy = MMU_TRACE;
    create_with_failures(&cfg, false);
    cfg = config_of("kvm");
    assert_int_equal(machine_options_parse(&cfg.options, engine_named("kvm"),
                                           "irqchip=kernel", why, sizeof(why)),
                     0);
    create_with_failures(&cfg, false);
    cfg = config_of("auto");
    create_with_failures(&cfg, false);
}

/* --- boot and run --- */

static void run_with_failures(const struct machine_config *cfg) {
    char why[512], said[1024];
    unsigned n = 0;

    do {
        int log = memfd_create("log", 0), saved = dup(STDERR_FILENO);
        enum machine_end end = MACHINE_ERROR;
        struct left before = left_now();
        struct machine *m;
        ssize_t len;
        int rc;

        fail_at = 0;
        assert_int_equal(machine_create(cfg, &m, why, sizeof(why)), 0);
        *why = 0;
        failing_arm(++n);
        dup2(log, STDERR_FILENO);
        rc = machine_boot(m, why, sizeof(why));
        if (!rc)
            end = machine_run(m);
        fail_at = 0;
        dup2(saved, STDERR_FILENO);
        machine_free(m);
        len = pread(log, said, sizeof(said) - 1, 0);
        said[len > 0 ? len : 0] = 0;
        if (rc)
            assert_true(*why && !*said);
        else if (end == MACHINE_ERROR)
            assert_true(len > 1 && strchr(said, '\n') == said + len - 1);
        else
            assert_int_equal(end, MACHINE_DEBUG_EXIT);
        if (rc || end == MACHINE_ERROR)
            same_left(&before, cfg->engine, n);
        close(log);
        close(saved);
    } while (failed);
}

static void test_run(void **state) {
    struct machine_config cfg = config_of("interp");

    run_with_failures(&cfg);
    cfg = config_of("bt");
    run_with_failures(&cfg);
    cfg.cpus = 3;
    run_with_failures(&cfg);
}

/* Firmware with variables, and disks that it would boot. */
static void test_firmware(void **state) {
    static uint8_t rom[0x1000], vars[0x2000], vga_bios[512];
    static const uint8_t reset[] = {0xb0, 0x00, 0xe6, 0xf4, 0xf4}; /* mov out hlt */
    const struct block_spec spec = {.format = BLOCK_RAW, .path = kernel};
    struct machine_config cfg = config_of("bt");
    char path[] = "/tmp/bivisor-rom-XXXXXX", why[256];
    struct boot_image *firmware;
    struct block *disk;
    int fd = mkstemp(path);

    memcpy(rom + 0xff0, reset, sizeof(reset));
    assert_int_equal(write(fd, rom, sizeof(rom)), sizeof(rom));
    close(fd);
    assert_int_equal(boot_image_open_firmware(path, &firmware, why, sizeof(why)), 0);
    unlink(path);
    assert_int_equal(block_open(&spec, &disk, why, sizeof(why)), 0);
    cfg.image = firmware;
    cfg.vars.bytes = vars;
    cfg.vars.size = sizeof(vars);
    cfg.vga_bios = vga_bios;
    cfg.vga_bios_size = sizeof(vga_bios);
    cfg.disks[0] = (struct machine_disk){.block = disk, .kind = MACHINE_DISK_IDE};
    cfg.disk_count = 1;
    cfg.counted = true; /* no workers */
    create_with_failures(&cfg, false);
    run_with_failures(&cfg);
    block_close(disk);
    boot_image_close(firmware);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_machine), cmocka_unit_test(test_engines),
        cmocka_unit_test(test_many_cpus),     cmocka_unit_test(test_no_code_memory),
        cmocka_unit_test(test_direct),        cmocka_unit_test(test_options),
        cmocka_unit_test(test_run),           cmocka_unit_test(test_firmware),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
