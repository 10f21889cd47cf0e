/*
 * Coverage for libFuzzer from a build by gcc: -fsanitize-coverage=trace-pc makes a call
 * at each block of code, which the linker (--wrap) sends here. The compiler stays the one
 * that makes the product, and nothing here touches a vector register: it is called while
 * the guest's are in the CPU (cpu/vec.h).
 *
 * libFuzzer takes the counters in this section for features of an input.
 */
#include <stdint.h>

void __wrap___sanitizer_cov_trace_pc(void);

#define COUNTERS (1u << 16)

__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[COUNTERS];

void __wrap___sanitizer_cov_trace_pc(void) {
    uintptr_t pc = (uintptr_t)__builtin_return_address(0);
    uint8_t *c = &counters[(uint32_t)(pc * 0x9e3779b1u) >> 16];

    *c = (uint8_t)(*c + (*c != 255)); /* stays there: 256 times is not never */
}

/* gcc tells of comparisons of doubles and floats too, which libFuzzer has no function
 * for. Their arguments are in vector registers, and nobody's. */
void __sanitizer_cov_trace_cmpd(void);
void __sanitizer_cov_trace_cmpf(void);

void __sanitizer_cov_trace_cmpd(void) {
}

void __sanitizer_cov_trace_cmpf(void) {
}
