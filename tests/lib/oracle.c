#include "lib/oracle.h"

#include <stdio.h>
#include <string.h>

#include "cpu/vec.h"
#include "lib/need.h"
#include "lib/rnd.h"
#include "lib/signals.h"
#include "lib/unit.h"
#include "sem/sem_int.h"

/* --- the host --- */

struct os_code host_code;
int host_trap;
uint64_t host_addr;
uint32_t host_components = 7;

/* Loads COMPONENTS of the XSAVE image and all registers but rsp, calls CODE, stores them
 * back. */
void host_run(struct host_regs *r, const void *code, void *image, uint32_t components);
__asm__(".text\n.globl host_run\nhost_run:\n"
        "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "push %rcx\npush %rdx\npush %rdi\npush %rsi\n"
        "mov %rdx,%r8\nmov %ecx,%eax\nxor %edx,%edx\nxrstor64 (%r8)\n"
        "push 128(%rdi)\npopfq\n"
        "mov %rdi,%r15\n"
        "mov 0(%r15),%rax\nmov 8(%r15),%rcx\nmov 16(%r15),%rdx\nmov 24(%r15),%rbx\n"
        "mov 40(%r15),%rbp\nmov 48(%r15),%rsi\nmov 56(%r15),%rdi\n"
        "mov 64(%r15),%r8\nmov 72(%r15),%r9\nmov 80(%r15),%r10\nmov 88(%r15),%r11\n"
        "mov 96(%r15),%r12\nmov 104(%r15),%r13\nmov 112(%r15),%r14\n"
        "mov 120(%r15),%r15\n"
        "call *(%rsp)\n"
        "pushfq\npush %r15\nmov 24(%rsp),%r15\npop 120(%r15)\npop 128(%r15)\n"
        "mov %rax,0(%r15)\nmov %rcx,8(%r15)\nmov %rdx,16(%r15)\nmov %rbx,24(%r15)\n"
        "mov %rbp,40(%r15)\nmov %rsi,48(%r15)\nmov %rdi,56(%r15)\n"
        "mov %r8,64(%r15)\nmov %r9,72(%r15)\nmov %r10,80(%r15)\nmov %r11,88(%r15)\n"
        "mov %r12,96(%r15)\nmov %r13,104(%r15)\nmov %r14,112(%r15)\n"
        "mov 16(%rsp),%r8\nmov 24(%rsp),%eax\nxor %edx,%edx\nxsave64 (%r8)\n"
        "fninit\nmovl $0x1f80,-8(%rsp)\nldmxcsr -8(%rsp)\nvzeroupper\n"
        "pop %rsi\npop %rdi\npop %rdx\npop %rcx\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n");

static bool on_host_fault(void *arg, struct os_fault *f) {
    host_trap = (int)f->trapno;
    host_addr = f->addr;
    f->regs.rip = (uint64_t)(uintptr_t)host_code.rx + 64; /* a ret */
    return true;
}

int host_execute(struct host_regs *r, const uint8_t *bytes, unsigned len, void *image) {
    uint32_t a = 0, b, c = 0, d;

    memcpy(host_code.rw, bytes, len);
    host_code.rw[len] = 0xc3;
    host_code.rw[64] = 0xc3;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
    host_trap = -1;
    host_run(r, host_code.rx, image, host_components);
    return host_trap;
}

/* --- the guest --- */

void oracle_set_pte(uint64_t at, uint64_t pte) {
    memcpy(G.ram + at, &pte, 8);
}

static void set_segment(unsigned s, uint16_t ar) {
    G.v->seg[s] =
        (struct segment){.sel = (uint16_t)(s * 8), .ar = ar, .limit = 0xffffffff};
}

void oracle_set_mode(enum cpu_mode mode) {
    uint16_t type = X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED;

    for (unsigned s = 0; s < SEG_COUNT; s++)
        set_segment(s, type | X86_AR_DB | X86_AR_G);
    set_segment(SEG_CS, type | X86_AR_CODE | X86_AR_G |
                            (mode == MODE_64   ? X86_AR_L
                             : mode == MODE_32 ? X86_AR_DB
                                               : 0));
    vcpu_update_mode(G.v);
    mmu_mode_changed(G.v);
}

void oracle_start(void) {
    static const struct guest_config cfg = {
        .ram = RAM, .policy = MMU_FLUSH, .cpuid = {.model = "host"}};

    guest_new(&G, &cfg);
    need(!os_code_map(4096, &host_code), "no page for code");
    need(!os_fault_range(host_code.rx, host_code.rx + 64, on_host_fault, NULL),
         "no handler of faults");
    signals_remember();
    oracle_set_pte(0x1000, 0x2007);
    oracle_set_pte(0x2000, 0x3007);
    oracle_set_pte(0x3000, PT | 7);
    for (unsigned k = 0; k < 512; k++)
        oracle_set_pte(PT + 8 * k, k << 12 | 7);
    G.v->cr3 = 0x1000;
    G.v->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    G.v->efer = X86_EFER_LME | X86_EFER_LMA;
    G.v->cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_NE | X86_CR0_ET | X86_CR0_MP;
    G.v->xcr0 = vec_supported();
    oracle_set_mode(MODE_64);
}

int oracle_teardown(void **state) {
    guest_free(&G);
    os_code_unmap(&host_code);
    return 0;
}

/* Random bytes, floats of moderate size, doubles, or few bits. */
void oracle_fill(uint8_t *p, unsigned len, unsigned pattern) {
    for (unsigned k = 0; k + 8 <= len; k += 8) {
        uint64_t x = rnd();
        double d = (double)(int64_t)(x >> 40) / 16 - 300000;
        float f[2] = {(float)(int)(x & 0xffff) / 8 - 3000, (float)(int)(x >> 48)};

        if (pattern == 1)
            memcpy(&x, &d, 8);
        else if (pattern == 2)
            memcpy(&x, f, 8);
        else if (pattern == 3)
            x &= rnd() & rnd() & 0x8001800180018001ull;
        memcpy(p + k, &x, 8);
    }
}

/* False when these bytes are nothing that runs natively here. */
bool oracle_bind(enum cpu_mode mode, const uint8_t *bytes, unsigned len, struct insn *i) {
    if (decode_insn(mode, bytes, len, i) != DECODE_OK || i->len > len)
        return false;
    if (i->feature && !cpuid_has(G.v->cpuid, (enum cpuid_feature)i->feature))
        return false;
    i->exec = sem_bind_native(G.v, i);
    return i->exec != NULL;
}

static void put16(uint8_t *p, unsigned x) {
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}

void oracle_random_state(unsigned pattern, bool unmasked) {
    uint32_t mxcsr = unmasked ? 0 : 0x1f80;
    uint64_t in_use = vec_supported();

    vec_reset(G.v);
    oracle_fill(G.v->vec + 160, 256, pattern);
    oracle_fill(G.v->vec + 576, 256, pattern);
    memcpy(G.v->vec + 24, &mxcsr, 4);
    memcpy(G.v->vec + 512, &in_use, 8);
    put16(G.v->vec, unmasked ? 0x340 : 0x37f);
    put16(G.v->vec + 2, (unsigned)(rnd() & 7) << 11);
    G.v->vec[4] = (uint8_t)(pattern == 0 ? rnd() : 0xff);
    for (unsigned st = 0; st < 8; st++) {
        uint64_t x = rnd();

        memcpy(G.v->vec + 32 + 16 * st, &x, 8);
        G.v->vec[32 + 16 * st + 7] |= pattern == 3 ? 0 : 0x80;
        put16(G.v->vec + 32 + 16 * st + 8, pattern == 0   ? (unsigned)rnd()
                                           : pattern == 3 ? 0
                                                          : 0x3ff0 + (rnd() & 31));
    }
    for (unsigned k = 0; k < 16; k++)
        G.v->gpr[k] = G.v->mode == MODE_64 ? rnd() : (uint32_t)rnd();
    G.v->gpr[REG_RAX] &= 31; /* lengths of pcmpestri */
    G.v->gpr[REG_RDX] &= 31;
    G.v->rflags = 2 | (rnd() & X86_FL_STATUS);
    G.v->rip = 0x12345;
}

/* --- comparison --- */

static void explain(const struct insn *i, const char *what) {
    char text[128];

    fprintf(stderr, "%s: %s: ", what, decode_format(i, 0, text, sizeof(text)));
    for (unsigned k = 0; k < i->len; k++)
        fprintf(stderr, "%02x ", i->bytes[k]);
    fprintf(stderr, "\n");
}

void oracle_expect(bool ok, const struct insn *i, const char *what) {
    if (!ok) {
        explain(i, what);
        fail();
    }
}
