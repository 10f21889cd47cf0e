/* What the software engine translates, and what it interprets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/counters.h"
#include "bt/bt.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "interp/interp.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "soft/soft.h"
#include "x86/cr.h"

enum { CODE = 0x10000, ROUNDS = 1000 };

/* mov cx, 1000 or mov ecx, 1000; 1: dec; jnz 1b; hlt */
static const uint8_t code16[] = {0xb9, 0xe8, 0x03, 0x49, 0x75, 0xfd, 0xf4};
static const uint8_t code32[] = {0xb9, 0xe8, 0x03, 0, 0, 0x49, 0x75, 0xfd, 0xf4};

static struct counters counters;
static struct soft soft;
static struct vcpu *v;

static void on_exit_hook(void *arg, struct vcpu *w, struct exit *e) {
}

static int on_irq_ack(void *arg) {
    return -1;
}

static const struct vcpu_hooks hooks = {.exit = on_exit_hook, .irq_ack = on_irq_ack};

static int setup(void **state) {
    static const struct cpuid_config cfg = {.model = "host", .tsc_hz = 1000000000};
    struct bt_options opt = bt_defaults();
    struct mem_hooks *h;

    vec_init();
    assert_int_equal(sem_init(), 0);
    memset(&counters, 0, sizeof(counters));
    opt.cache = 2;
    v = vcpu_new();
    assert_non_null(v);
    v->cnt = &counters;
    v->hooks = &hooks;
    v->cpuid = cpuid_model_new(&cfg);
    assert_int_equal(mem_create(MEM_MIN_RAM, &v->mem), 0);
    assert_int_equal(mmu_create(v, MMU_FLUSH), 0);
    soft = (struct soft){.v = v, .ip = interp_new(v)};
    assert_non_null(soft.ip);
    h = mem_hooks(v->mem);
    h->on_write[__builtin_ctz(MEM_TRACE_CODE)] = interp_code_written;
    h->on_write_arg[__builtin_ctz(MEM_TRACE_CODE)] = soft.ip;
    assert_int_equal(bt_new(v, soft.ip, &opt, &soft.bt), 0);
    return 0;
}

static int teardown(void **state) {
    bt_free(soft.bt);
    interp_free(soft.ip);
    mmu_destroy(v);
    mem_destroy(v->mem);
    cpuid_model_free((struct cpuid_model *)(uintptr_t)v->cpuid);
    vcpu_free(v);
    return 0;
}

/* CS:RIP is at the code, in real mode or in flat 32-bit code without paging. */
static void start(bool flat) {
    const uint8_t *code = flat ? code32 : code16;

    assert_true(
        mem_write(v->mem, gpa(CODE), code, flat ? sizeof(code32) : sizeof(code16)));
    vcpu_reset(v);
    v->cr0 = (flat ? X86_CR0_PE : 0) | X86_CR0_ET;
    for (unsigned n = 0; n < SEG_COUNT; n++)
        v->seg[n] =
            (struct segment){.sel = flat ? (uint16_t)(8 * n + 8) : CODE >> 4,
                             .ar = (n == SEG_CS ? 0x9b : 0x93) | (flat ? 0xc000 : 0),
                             .limit = flat ? UINT32_MAX : 0xffff,
                             .base = flat ? 0 : CODE};
    v->cpl = 0;
    v->rip = flat ? CODE : 0;
    vcpu_clear(v, ~0u);
    vcpu_update_mode(v);
    mmu_mode_changed(v);
}

static void assert_done(bool flat) {
    assert_int_equal(v->gpr[REG_RCX], 0);
    assert_int_equal(v->rip, flat ? CODE + sizeof(code32) : sizeof(code16));
}

static void test_flat_is_translated(void **state) {
    start(true);
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_done(true);
    assert_true(counters.bt_entries > 0);
    assert_true(counters.insns_retired < ROUNDS); /* of them the interpreter tells */
}

static void test_real_is_interpreted(void **state) {
    start(false);
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_done(false);
    assert_int_equal(counters.bt_entries, 0);
    assert_int_equal(counters.bt_translations, 0);
    assert_int_equal(counters.insns_retired, 2 * ROUNDS + 2);
}

/* As a boot loader does it: the interpreter goes to the far jump and no further. */
static void test_real_to_flat(void **state) {
    static const uint8_t enter[] = {
        0x0f, 0x01, 0x16, 0x40, 0x00,             /* lgdt [0x40] */
        0x0f, 0x20, 0xc0, 0x0c, 0x01,             /* mov eax, cr0; or al, 1 */
        0x0f, 0x22, 0xc0,                         /* mov cr0, eax */
        0x66, 0xea, 0x00, 0x01, 0x01, 0x00, 8, 0, /* jmp 8:0x10100 */
    };
    static const uint8_t gdt[] = {0x0f, 0x00, 0x80, 0x00, 0x01, 0x00};
    static const uint64_t flat_code = 0x00cf9b000000ffff;

    start(false);
    assert_true(mem_write(v->mem, gpa(CODE), enter, sizeof(enter)));
    assert_true(mem_write(v->mem, gpa(CODE + 0x40), gdt, sizeof(gdt)));
    assert_true(mem_write(v->mem, gpa(CODE + 0x88), &flat_code, sizeof(flat_code)));
    assert_true(mem_write(v->mem, gpa(CODE + 0x100), code32, sizeof(code32)));
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_int_equal(v->gpr[REG_RCX], 0);
    assert_int_equal(v->rip, CODE + 0x100 + sizeof(code32));
    assert_true(counters.bt_entries > 0);
    assert_in_range(counters.insns_retired, 5, 6); /* HLT may be the sixth */
    assert_int_equal(counters.shadow_flushes, 0);
}

/* While a breakpoint is armed, every instruction is looked at. */
static void test_debugged_is_interpreted(void **state) {
    start(true);
    v->dr[0] = CODE + 0x1000;
    v->dr[7] |= 1;
    mmu_breakpoints_changed(v);
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_done(true);
    assert_int_equal(counters.bt_entries, 0);
}

/* The instruction behind STI or MOV SS alone; then it goes on in translated code. */
static void test_shadow_is_interpreted(void **state) {
    start(true);
    v->irq_shadow = true;
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_done(true);
    assert_true(counters.bt_entries > 0);
    assert_true(counters.insns_retired >= 1 && counters.insns_retired < ROUNDS);
}

static void test_kicked(void **state) {
    start(true);
    vcpu_raise(v, VCPU_EVENT_KICK);
    assert_int_equal(soft_run(&soft), EXIT_kick);
    assert_int_equal(v->rip, CODE);
    bt_kick(soft.bt); /* nothing runs: not remembered */
    vcpu_clear(v, VCPU_EVENT_KICK);
    assert_int_equal(soft_run(&soft), EXIT_halt);
    assert_done(true);
}

/* A step is a fragment: each comes back, and all of them get there. */
static void test_steps(void **state) {
    unsigned steps = 0;
    enum exit_reason why;

    start(true);
    v->step = true;
    do {
        vcpu_clear(v, VCPU_EVENT_KICK);
        why = soft_run(&soft);
        steps++;
    } while (why == EXIT_kick);
    v->step = false;
    assert_int_equal(why, EXIT_halt);
    assert_done(true);
    assert_true(steps > 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_flat_is_translated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_real_is_interpreted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_real_to_flat, setup, teardown),
        cmocka_unit_test_setup_teardown(test_debugged_is_interpreted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shadow_is_interpreted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kicked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_steps, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
