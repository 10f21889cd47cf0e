#include "lib/loaded.h"

#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "lib/unit.h"

struct vcpu V;
struct mem *M;
char why[512];
static struct cpuid_model *model;

int loaded_new(uint64_t ram) {
    struct cpuid_config cfg = {.paravirt = true, .tsc_hz = 2600000000u};

    vec_init();
    model = cpuid_model_new(&cfg);
    V.cpuid = model;
    return model && !mem_create(ram, &M) ? 0 : -1;
}

void loaded_free(void) {
    mem_destroy(M);
    cpuid_model_free(model);
}

void put(uint8_t *p, unsigned off, unsigned len, uint64_t v) {
    memcpy(p + off, &v, len);
}

uint64_t peek(struct mem *m, uint64_t at, unsigned len) {
    uint64_t v = 0;

    assert_true(mem_read(m, gpa(at), &v, len));
    return v;
}

void assert_text(uint64_t at, const char *text) {
    char got[4096] = {0};

    assert_true(mem_read(M, gpa(at), got, strlen(text) + 1));
    assert_string_equal(got, text);
}
