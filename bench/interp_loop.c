/* Guest instructions a second of the interpreter on small integer loops. */
#include <stdio.h>
#include <string.h>

#include "base/os.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "interp/interp.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "x86/cr.h"

static struct vcpu v;
static struct counters counters;

static void measure(struct interp *ip, const char *name, const char *bytes,
                    unsigned len) {
    mem_write(v.mem, gpa(0x100000), bytes, len);
    v.rip = 0x100000;
    v.gpr[REG_RSP] = 0x80000;
    v.gpr[REG_RSI] = 0x200000;
    interp_step(ip, 1000);
    uint64_t t = os_monotonic_ns(), n = 30000000;
    interp_step(ip, n);
    t = os_monotonic_ns() - t;
    printf("%-28s %6.1f M/s\n", name, (double)n * 1e3 / (double)t);
}

int main(void) {
    struct cpuid_config cfg = {.tsc_hz = 1000000000};

    vec_init();
    if (mem_create(8 << 20, &v.mem) || mmu_create(&v, MMU_FLUSH) || sem_init())
        return 1;
    v.cnt = &counters;
    v.cpuid = cpuid_model_new(&cfg);
    vcpu_reset(&v);
    struct interp *ip = interp_new(&v);
    struct mem_hooks *h = mem_hooks(v.mem);
    h->drop_write = mmu_drop_write;
    h->drop_arg = &v;
    h->on_write[__builtin_ctz(MEM_TRACE_CODE)] = interp_code_written;
    h->on_write_arg[__builtin_ctz(MEM_TRACE_CODE)] = ip;
    for (unsigned s = 0; s < SEG_COUNT; s++)
        v.seg[s] =
            (struct segment){.ar = s == SEG_CS ? 0xc09b : 0xc093, .limit = 0xffffffff};
    v.cr0 |= X86_CR0_PE;
    vcpu_update_mode(&v);
    mmu_mode_changed(&v);
    mmu_context_changed(&v);
    /* add eax,ecx; xor edx,eax; shl edx,3; inc ecx; cmp ecx,edi; jmp */
    measure(ip, "registers, 6 a block",
            "\x01\xc8\x31\xc2\xc1\xe2\x03\x41\x39\xf9\xeb\xf4", 12);
    /* mov eax,[esi]; add eax,ecx; mov [esi+4],eax; dec ecx; jnz/jmp */
    measure(ip, "load, add, store, loop", "\x8b\x06\x01\xc8\x89\x46\x04\x49\xeb\xf6", 10);
    /* push eax; pop ebx; call +0; add esp,4; jmp */
    measure(ip, "push, pop, call", "\x50\x5b\xe8\0\0\0\0\x83\xc4\x04\xeb\xf4", 12);
    interp_free(ip);
    return 0;
}
