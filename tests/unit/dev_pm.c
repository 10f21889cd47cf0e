/*
 * ACPI's fixed hardware by itself: the timer and its overflow, status that is cleared by
 * ones, the SCI, sleeping. ACPI Specification 6, "Fixed Hardware Registers".
 */
#include "dev/pc/pm.h"
#include "lib/rig.h"
#include "lib/unit.h"

#define STS PM_EVT_PORT
#define EN (PM_EVT_PORT + 2)
#define SLP_EN 0x2000u
#define SLP_TYPE(n) ((n) << 10)
enum { TMR = 1, GBL = 0x20, PWRBTN = 0x100, SLPBTN = 0x200, RTC = 0x400 };

static struct rig r;
static struct pm *pm;

static int setup(void **state) {
    rig_new(&r);
    pm = pm_new(r.bus, r.clock, rig_line(&r, PM_SCI_IRQ), &r.host);
    return pm ? 0 : -1;
}

static int teardown(void **state) {
    pm_free(pm);
    rig_free(&r);
    return 0;
}

static bool sci(void) {
    return r.line[PM_SCI_IRQ];
}

/* 32 bits at 3.579545 MHz, by bytes as well; nobody writes it. */
static void test_timer(void **state) {
    assert_int_equal(rig_in32(&r, PM_TMR_PORT), 0);
    rig_pass(&r, 1000000000);
    assert_int_equal(rig_in32(&r, PM_TMR_PORT), PM_TMR_HZ);
    rig_out32(&r, PM_TMR_PORT, 0);
    assert_int_equal(rig_in32(&r, PM_TMR_PORT), PM_TMR_HZ);
    for (unsigned k = 0; k < 4; k++)
        assert_int_equal(rig_in(&r, PM_TMR_PORT + k), PM_TMR_HZ >> 8 * k & 0xff);
    assert_int_equal(rig_in16(&r, PM_TMR_PORT + 2), PM_TMR_HZ >> 16);
    rig_pass(&r, 1199000000000ull); /* 1,200 s are more than 2^32 ticks */
    assert_int_equal(rig_in32(&r, PM_TMR_PORT), (uint32_t)(PM_TMR_HZ * 1200ull));
}

/* Bit 31 changes: a status, and an SCI when that is asked for. */
static void test_timer_status(void **state) {
    const uint64_t half = (1ull << 31) * 1000000000 / PM_TMR_HZ; /* just before it */

    rig_pass(&r, half);
    assert_int_equal(rig_in16(&r, STS), 0);
    rig_pass(&r, 300);
    assert_int_equal(rig_in16(&r, STS), TMR);
    assert_false(sci());
    rig_out(&r, PM_SMI_PORT, PM_ACPI_ENABLE);
    assert_false(sci());
    rig_out16(&r, EN, TMR);
    assert_true(sci());
    rig_out16(&r, STS, TMR);
    assert_false(sci());
    assert_int_equal(rig_in16(&r, STS), 0);
    rig_pass(&r, half - 1000);
    assert_false(sci());
    rig_pass(&r, 1000);
    assert_true(sci()); /* without having been looked at */
    rig_out16(&r, EN, 0);
    assert_false(sci());
    assert_int_equal(rig_in16(&r, STS), TMR);
    rig_out16(&r, STS, TMR);
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
}

/* The button is told while the guest is in ACPI mode, wants to know, and has not cleared
 * it. */
static void test_power_button(void **state) {
    pm_power_button(pm);
    assert_int_equal(rig_in16(&r, STS), PWRBTN);
    rig_out16(&r, EN, PWRBTN);
    assert_false(sci());
    rig_out(&r, PM_SMI_PORT, PM_ACPI_ENABLE);
    assert_true(sci());
    rig_out(&r, PM_SMI_PORT, PM_ACPI_DISABLE);
    assert_false(sci());
    rig_out(&r, PM_SMI_PORT, PM_ACPI_ENABLE);
    rig_out16(&r, STS, 0xffff & ~PWRBTN);
    assert_true(sci());
    rig_out(&r, STS + 1, PWRBTN >> 8); /* a byte of it */
    assert_false(sci());
    assert_int_equal(rig_in16(&r, STS), 0);
    assert_int_equal(r.poweroffs, 0);
}

/* Which bits of the enable register there are, and its bytes. */
static void test_enable(void **state) {
    rig_out16(&r, EN, 0xffff);
    assert_int_equal(rig_in16(&r, EN), TMR | GBL | PWRBTN | SLPBTN | RTC);
    rig_out(&r, EN, 0);
    assert_int_equal(rig_in16(&r, EN), PWRBTN | SLPBTN | RTC);
    rig_out(&r, EN + 1, 0);
    assert_int_equal(rig_in16(&r, EN), 0);
    rig_out32(&r, STS, TMR << 16 | 0xffff); /* both at once */
    assert_int_equal(rig_in32(&r, STS), TMR << 16);
}

/* SCI_EN is firmware's alone; SLP_EN and GBL_RLS read as 0. */
static void test_control(void **state) {
    rig_out16(&r, PM_CNT_PORT, 0x0007);
    assert_int_equal(rig_in16(&r, PM_CNT_PORT), 0x0002);
    rig_out(&r, PM_SMI_PORT, PM_ACPI_ENABLE);
    assert_int_equal(rig_in(&r, PM_SMI_PORT), PM_ACPI_ENABLE);
    assert_int_equal(rig_in16(&r, PM_CNT_PORT), 0x0003);
    rig_out16(&r, PM_CNT_PORT, 0);
    assert_int_equal(rig_in16(&r, PM_CNT_PORT), 0x0001);
    rig_out(&r, PM_SMI_PORT, 0x12);                /* nothing that firmware knows */
    rig_out(&r, PM_SMI_PORT + 1, PM_ACPI_DISABLE); /* data, no command */
    assert_int_equal(rig_in16(&r, PM_SMI_PORT), PM_ACPI_DISABLE << 8 | 0x12);
    assert_int_equal(rig_in16(&r, PM_CNT_PORT), 0x0001);
    rig_out(&r, PM_SMI_PORT, PM_ACPI_DISABLE);
    assert_int_equal(rig_in16(&r, PM_CNT_PORT), 0x0000);
}

/* Soft off is type 5 with SLP_EN, or the PIIX4's type 0, and nothing else is. */
static void test_sleep(void **state) {
    for (unsigned type = 0; type < 8; type++) {
        rig_out16(&r, PM_CNT_PORT, SLP_TYPE(type));
        assert_int_equal(r.poweroffs, 0);
        if (type != PM_S5_TYPE && type != PM_PIIX4_S5_TYPE)
            rig_out16(&r, PM_CNT_PORT, SLP_TYPE(type) | SLP_EN);
        assert_int_equal(rig_in16(&r, PM_CNT_PORT), SLP_TYPE(type));
        assert_int_equal(rig_in(&r, PM_CNT_PORT + 1), SLP_TYPE(type) >> 8);
    }
    assert_int_equal(r.poweroffs, 0);
    rig_out16(&r, PM_CNT_PORT, SLP_TYPE(PM_S5_TYPE) | SLP_EN);
    assert_int_equal(r.poweroffs, 1);
    rig_out(&r, PM_CNT_PORT + 1, (SLP_TYPE(PM_S5_TYPE) | SLP_EN) >> 8);
    assert_int_equal(r.poweroffs, 2);
    rig_out16(&r, PM_CNT_PORT, SLP_TYPE(PM_PIIX4_S5_TYPE) | SLP_EN);
    assert_int_equal(r.poweroffs, 3);
}

/* Two bytes of status that the guest cannot set, two of enable that are kept. */
static void test_gpe(void **state) {
    rig_out32(&r, PM_GPE0_PORT, 0xa55affff);
    assert_int_equal(rig_in32(&r, PM_GPE0_PORT), 0xa55a0000);
    rig_out(&r, PM_GPE0_PORT + 2, 0x11);
    assert_int_equal(rig_in16(&r, PM_GPE0_PORT + 2), 0xa511);
    rig_out(&r, PM_SMI_PORT, PM_ACPI_ENABLE);
    assert_false(sci());
}

/* An event is an SCI where it is asked for, until it is cleared by a one. */
static void test_event(void **state) {
    pm_event(pm, PM_GPE_GENERATION);
    pm_event(pm, 15);
    assert_int_equal(rig_in16(&r, PM_GPE0_PORT), 0x8020);
    rig_out(&r, PM_SMI_PORT, PM_ACPI_ENABLE);
    rig_out(&r, PM_GPE0_PORT + 2, 0x10);
    assert_false(sci());
    rig_out(&r, PM_GPE0_PORT + 2, 0x20);
    assert_true(sci());
    rig_out(&r, PM_GPE0_PORT, 0xdf);
    assert_true(sci());
    rig_out(&r, PM_GPE0_PORT, 0x20);
    assert_false(sci());
    assert_int_equal(rig_in16(&r, PM_GPE0_PORT), 0x8000);
}

static void test_reset(void **state) {
    rig_out(&r, PM_SMI_PORT, PM_ACPI_ENABLE);
    rig_out16(&r, EN, PWRBTN | TMR);
    rig_out16(&r, PM_GPE0_PORT + 2, 0x1234);
    rig_pass(&r, 700000000000ull); /* bit 31 has changed */
    pm_power_button(pm);
    pm_reset(pm);
    assert_int_equal(rig_in32(&r, PM_GPE0_PORT), 0);
    assert_false(sci());
    assert_int_equal(rig_in32(&r, STS), 0);
    assert_int_equal(rig_in16(&r, PM_CNT_PORT), 0);
    assert_int_equal(rig_in32(&r, PM_TMR_PORT), 0);
    assert_int_equal(rig_in(&r, PM_SMI_PORT), 0);
    assert_int_equal(vclock_next(r.clock), VCLOCK_NEVER);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_timer),  T(test_timer_status), T(test_power_button),
        T(test_enable), T(test_control),      T(test_sleep),
        T(test_gpe),    T(test_event),        T(test_reset),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
