/*
 * Memory and devices that move while the guest runs, on every engine that this host can
 * run: what the guest loads, stores and executes is what is there at that moment. The
 * guest asks for each change by a store to a port, as a driver does that programs a BAR.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lib/tiny.h"
#include "machine/machine_int.h"

#define ORDER_PORT 0x510
#define REPORT_PORT 0x514
#define WINDOW 0xb8000u
#define ELSEWHERE 0xe0000000u

/* ORDER(N): the board does N. REPORT: the value in EAX. */
#define ORDER(n) "mov $" #n ", %al; mov $0x510, %dx; out %al, (%dx);"
#define REPORT "mov $0x514, %dx; out %eax, (%dx);"
__asm__(".pushsection .rodata\n.globl guest_code, guest_code_end\nguest_code: .code32\n"
        "mov $0x200000, %esp; mov $0xb8000, %edi; mov $0xe0000000, %ebx;"
        "movl $0x11111111, (%edi);"
        "mov (%edi), %eax;" REPORT ORDER(1) /* the window is a device */
        "mov (%edi), %eax;" REPORT "movl $5, (%edi);"
        "mov (%edi), %eax;" REPORT ORDER(2) /* and video memory */
        "mov (%edi), %eax;" REPORT "movl $0x44444444, (%edi);"
        "mov (%edi), %eax;" REPORT ORDER(3) /* which moves */
        "mov (%edi), %eax;" REPORT
        "mov (%ebx), %eax;" REPORT ORDER(4) /* the window is RAM */
        "mov (%edi), %eax;" REPORT
        "movb $0xb8, (%ebx); movl $5, 1(%ebx); movb $0xc3, 5(%ebx);" /* returns 5 */
        "mov $20, %esi; 1: call *%ebx; dec %esi; jnz 1b;" REPORT ORDER(
            5) /* a ROM in its place, which returns 6 */
        "call *%ebx;" REPORT
        "movl $0, (%ebx); call *%ebx;" REPORT ORDER(6) /* nobody is there */
        "mov (%ebx), %eax;" REPORT ORDER(7)            /* the device moves there */
        "mov (%ebx), %eax;" REPORT
        "mov (%ebx), %eax;" REPORT /* it has moved itself away with that load */
        "mov 0x1000(%ebx), %eax;" REPORT
        "mov $0x10, %eax; mov $0xf4, %dx; out %eax, (%dx); hlt\n"
        "guest_code_end: .code64\n.popsection");
extern const uint8_t guest_code[], guest_code_end[];

static const uint32_t expected[] = {
    0x11111111, 0x22222222, 0x22222227, 0x33333333, 0x44444444,
    0x22222227, 0x44444444, 0x11111111, 5,          6,
    6,          0xffffffff, 0x22222227, 0xffffffff, 0x22222227,
};

struct board_of_test {
    struct machine *m;
    struct mem_region *video, *rom;
    struct bus_range *device;
    uint32_t value; /* of the device */
    bool runs_away;
    uint32_t got[32];
    unsigned reports;
};

static uint64_t device_read(void *arg, uint64_t addr, unsigned size) {
    struct board_of_test *t = arg;

    if (t->runs_away)
        bus_range_move(t->device, ELSEWHERE + 0x1000);
    t->runs_away = false;
    return t->value;
}

static void device_write(void *arg, uint64_t addr, unsigned size, uint64_t value) {
    struct board_of_test *t = arg;

    t->value += (uint32_t)value;
}

static const struct bus_ops device_ops = {.read = device_read, .write = device_write};

static void obey(struct board_of_test *t, unsigned order) {
    static const uint8_t six[] = {0xb8, 6, 0, 0, 0, 0xc3};
    struct mem *mem = t->m->mem;
    const uint32_t threes = 0x33333333;

    switch (order) {
    case 1:
        assert_int_equal(mem_set_kind(mem, gpa(0xa0000), 0x20000, MEM_NONE), 0);
        break;
    case 2:
        assert_int_equal(mem_region_add(mem, gpa(WINDOW), 0x8000, MEM_RAM, &t->video), 0);
        memcpy(mem_region_host(mem, t->video), &threes, 4);
        break;
    case 3:
        assert_int_equal(mem_region_move(mem, t->video, gpa(ELSEWHERE)), 0);
        break;
    case 4:
        assert_int_equal(mem_set_kind(mem, gpa(0xa0000), 0x20000, MEM_RAM), 0);
        break;
    case 5:
        mem_region_show(mem, t->video, false);
        assert_int_equal(mem_region_add(mem, gpa(ELSEWHERE), 0x1000, MEM_ROM, &t->rom),
                         0);
        memcpy(mem_region_host(mem, t->rom), six, sizeof(six));
        break;
    case 6:
        mem_region_remove(mem, t->rom);
        mem_region_remove(mem, t->video);
        break;
    default:
        bus_range_move(t->device, ELSEWHERE);
        t->runs_away = true;
    }
}

static void port_write(void *arg, uint64_t addr, unsigned size, uint64_t value) {
    struct board_of_test *t = arg;

    if (!addr)
        obey(t, (unsigned)value);
    else if (t->reports < ARRAY_SIZE(t->got))
        t->got[t->reports++] = (uint32_t)value;
}

static uint64_t port_read(void *arg, uint64_t addr, unsigned size) {
    return 0;
}

static const struct bus_ops port_ops = {.read = port_read, .write = port_write};

/* False: the host cannot run this engine. */
static bool runs(const char *engine, struct boot_image *image) {
    struct machine_config cfg = {
        .engine = engine, .memory = 16 << 20, .no_pci = true, .image = image};
    struct board_of_test t = {.value = 0x22222222};
    char why[512];

    machine_options_default(&cfg.options);
    if (machine_create(&cfg, &t.m, why, sizeof(why)))
        return false;
    assert_int_equal(machine_boot(t.m, why, sizeof(why)), 0);
    assert_non_null(bus_attach_pio(t.m->bus, ORDER_PORT, 8, &port_ops, &t, "test"));
    t.device = bus_attach_mmio(t.m->bus, gpa(WINDOW), 0x100, &device_ops, &t, "device");
    assert_non_null(t.device);
    assert_int_equal(machine_run(t.m), MACHINE_DEBUG_EXIT);
    for (unsigned n = 0; n < ARRAY_SIZE(expected); n++)
        if (t.got[n] != expected[n])
            fail_msg("%s: report %u is 0x%x, not 0x%x", engine, n, t.got[n], expected[n]);
    assert_int_equal(t.reports, ARRAY_SIZE(expected));
    machine_free(t.m);
    return true;
}

static void test_every_engine(void **state) {
    char path[32], why[512];
    int fd = tiny_kernel(guest_code, (size_t)(guest_code_end - guest_code), path);
    const struct engine_ops *const *engines;
    struct boot_image *image;
    unsigned ran = 0;
    size_t count;

    assert_true(fd >= 0);
    assert_int_equal(boot_image_open(path, NULL, &image, why, sizeof(why)), 0);
    close(fd);
    engines = machine_engines(&count);
    for (size_t n = 0; n < count; n++)
        ran += runs(engines[n]->name, image);
    assert_in_range(ran, 2, count); /* interp and bt run everywhere */
    boot_image_close(image);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_engine)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
