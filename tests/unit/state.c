/*
 * The list of the architectural state (cpu/state.def): whether it is complete, what hangs
 * on it, and what a dump shows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/state.h"
#include "cpu/vec.h"
#include "x86/cr.h"
#include "x86/msr.h"

#define FIRST offsetof(struct vcpu, cpl) /* byte of the architectural state */
#define END offsetof(struct vcpu, state_end)
#define IMAGE offsetof(struct vcpu, vec)

static struct vcpu A, B;
static struct cpuid_model *model;

static int setup(void **state) {
    const struct cpuid_config cfg = {.paravirt = true, .tsc_hz = 2000000000};

    vec_init();
    model = cpuid_model_new(&cfg);
    memset(&A, 0, sizeof(A));
    A.cpuid = model;
    vcpu_reset(&A);
    B = A;
    return model ? 0 : -1;
}

static int teardown(void **state) {
    cpuid_model_free(model);
    return 0;
}

/* What the list says that a byte of struct vcpu is. */
enum kind { NOT_LISTED, SAME, OPEN, REST_OF_IT };
static uint8_t kinds[sizeof(struct vcpu)];

static void mark(size_t at, size_t size, enum kind kind) {
    for (size_t k = at; k < at + size; k++) {
        if (kinds[k])
            fail_msg("byte %zu of struct vcpu is listed twice", k);
        kinds[k] = (uint8_t)kind;
    }
}

/* What is between the members of a structure of the list. */
static void mark_table(size_t at) {
    mark(at + 10, sizeof(struct desc_table) - 10, REST_OF_IT);
}

static void read_list(void) {
    memset(kinds, NOT_LISTED, sizeof(kinds));
    for (size_t n = 0; n < vcpu_part_count; n++) {
        const struct vcpu_part *p = &vcpu_parts[n];

        for (unsigned reg = 0; reg < p->count; reg++)
            if (vcpu_part_offset(p, reg))
                mark(vcpu_part_offset(p, reg), p->size,
                     p->how == VCPU_OPEN ? OPEN : SAME);
    }
#define TABLE(name, field) mark_table(offsetof(struct vcpu, field));
#define REST(at, size) mark(at, size, REST_OF_IT);
#include "cpu/state.def"
    /* An x87 register has 10 bytes of 16, and a component that the host does not have, or
     * that we do not know, is not the guest's either. */
    for (size_t k = IMAGE; k < sizeof(struct vcpu); k++)
        if (!kinds[k] && (k - IMAGE >= 576 || (k - IMAGE >= 32 && k - IMAGE < 160)))
            kinds[k] = REST_OF_IT;
}

/* Each byte of the state is in the list, and only what is in the list makes a difference.
 * This fails for who adds a field to struct vcpu and forgets the list. */
static void test_each_byte(void **state) {
    uint64_t was = vcpu_digest(0, &A);
    unsigned seen[4] = {0};

    read_list();
    assert_true(IMAGE - END < 64);
    for (size_t k = FIRST; k < sizeof(struct vcpu); k++) {
        uint8_t *byte = (uint8_t *)&B + k;
        bool same;

        if (k >= END && k < IMAGE)
            continue; /* alignment */
        if (kinds[k] == NOT_LISTED)
            fail_msg("byte %zu of struct vcpu, %zu of the state, is not in cpu/state.def",
                     k, k - FIRST);
        seen[kinds[k]]++;
        *byte ^= 0x80;
        same = vcpu_same(&A, &B, 0);
        if (same != (kinds[k] != SAME))
            fail_msg("byte %zu of struct vcpu: %s", k,
                     same ? "not compared" : "compared");
        if ((vcpu_digest(0, &B) == was) != (kinds[k] != SAME))
            fail_msg("byte %zu of struct vcpu: %s", k,
                     same ? "not digested" : "digested");
        *byte ^= 0x80;
    }
    assert_int_equal(seen[OPEN], 8 + 2 + 2); /* fdp, fcs, fds */
    assert_true(seen[SAME] > 900 && seen[REST_OF_IT] > 190);
}

/* Before the state lies what is not compared, but for these. */
static void test_engines_part(void **state) {
    read_list();
    for (size_t k = 0; k < FIRST; k++) {
        bool random = k - offsetof(struct vcpu, random) < sizeof(A.random);
        bool events = k - offsetof(struct vcpu, events) < sizeof(A.events);

        assert_int_equal(kinds[k], random || events ? SAME : NOT_LISTED);
    }
    /* That the VMM wants something is no state of the guest's; that an interrupt waits
     * is. */
    B.events = VCPU_EVENT_KICK | VCPU_EVENT_STOP;
    assert_true(vcpu_same(&A, &B, 0));
    B.events = VCPU_EVENT_IRQ;
    assert_false(vcpu_same(&A, &B, 0));
    B.events = VCPU_EVENT_NMI;
    assert_false(vcpu_same(&A, &B, 0));
}

static void test_loose(void **state) {
    B.rflags ^= X86_FL_ZF | X86_FL_OF;
    assert_false(vcpu_same(&A, &B, 0));
    assert_true(vcpu_same(&A, &B, VCPU_LOOSE));
    B.rflags ^= X86_FL_IF;
    assert_false(vcpu_same(&A, &B, VCPU_LOOSE));
}

/* Two registers that have each other's values are a difference. */
static void test_order(void **state) {
    A.vec[160] = B.vec[176] = 1;
    assert_int_not_equal(vcpu_digest(0, &A), vcpu_digest(0, &B));
    A.vec[160] = B.vec[176] = 0;
    A.gpr[REG_RAX] = B.gpr[REG_RCX] = 1;
    assert_int_not_equal(vcpu_digest(0, &A), vcpu_digest(0, &B));
}

/* The list's numbers of MSRs are those under which the guest reads them. */
static void test_msrs(void **state) {
    static const struct {
        uint32_t number;
        uint16_t off;
        const char *name;
    } msrs[] = {
#define MSR(group, name, field, number) {number, offsetof(struct vcpu, field), name},
#include "cpu/state.def"
    };
    unsigned found = 0;

    for (size_t n = 0; n < ARRAY_SIZE(msrs); n++) {
        uint64_t *field = (uint64_t *)(void *)((char *)&A + msrs[n].off), x;

        *field = 0x1234567 + n;
        if (msr_read(&A, msrs[n].number, &x) != MSR_OK)
            continue; /* the other vendor's */
        found++;
        if (x != *field)
            fail_msg("MSR %x is not %s", msrs[n].number, msrs[n].name);
    }
    assert_true(found >= ARRAY_SIZE(msrs) - 4);
}

/* Whatever is not 0 is seen in a dump. */
static void test_dump(void **state) {
    char text[8192];

    for (size_t n = 0; n < vcpu_part_count; n++) {
        const struct vcpu_part *p = &vcpu_parts[n];
        char value[32];

        if (p->group == VCPU_GROUP_VECTOR || p->group == VCPU_GROUP_SEGMENTS ||
            p->off == offsetof(struct vcpu, events))
            continue;
        B = A;
        memset((char *)&B + p->off, p->size == 1 ? 1 : 0x3c, p->size);
        vcpu_dump(&B, text, sizeof(text));
        snprintf(value, sizeof(value), "%-*s %s", p->group == VCPU_GROUP_GENERAL ? 3 : 0,
                 p->name,
                 p->size > 1                      ? "3c3c3c3c3c3c3c3c" + 16 - 2 * p->size
                 : p->group == VCPU_GROUP_GENERAL ? "01"
                                                  : "1");
        if (!strstr(text, value))
            fail_msg("no '%s' in:\n%s", value, text);
    }
    vcpu_dump(&A, text, sizeof(text));
    assert_non_null(strstr(text, "16-bit code, real mode"));
    assert_non_null(strstr(text, "cs   f000 base 00000000ffff0000"));
    assert_non_null(strstr(text, "gdtr base 0000000000000000 limit ffff"));
    assert_null(strstr(text, "nmi_blocked"));
    for (const char *line = text, *next; (next = strchr(line, '\n')); line = next + 1)
        assert_true(next - line <= 90);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_byte, setup, teardown),
        cmocka_unit_test_setup_teardown(test_engines_part, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loose, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_msrs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dump, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
