/*
 * What the tests of the loaders share: the guest that is loaded, and what is found in its
 * memory afterwards.
 *
 * To be included by a test that is one file.
 */
#ifndef LIB_LOADED_H
#define LIB_LOADED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "boot/boot.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "mem/mem.h"

static struct vcpu V;
static struct mem *M;
static struct cpuid_model *model;
static char why[512];

/* 0, or not. */
static int guest_new(uint64_t ram) {
    struct cpuid_config cfg = {.paravirt = true, .tsc_hz = 2600000000u};

    vec_init();
    model = cpuid_model_new(&cfg);
    V.cpuid = model;
    return model && !mem_create(ram, &M) ? 0 : -1;
}

static void guest_free(void) {
    mem_destroy(M);
    cpuid_model_free(model);
}

static void put(uint8_t *p, unsigned off, unsigned len, uint64_t v) {
    memcpy(p + off, &v, len);
}

static uint64_t peek(struct mem *m, uint64_t at, unsigned len) {
    uint64_t v = 0;

    assert_true(mem_read(m, gpa(at), &v, len));
    return v;
}

static void assert_text(uint64_t at, const char *text) {
    char got[4096] = {0};

    assert_true(mem_read(M, gpa(at), got, strlen(text) + 1));
    assert_string_equal(got, text);
}

#endif
