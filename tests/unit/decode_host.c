/*
 * decode_host() against the host CPU: an instruction that emitted code may contain
 * accesses the bytes that decode_host() says, or fewer of them, and no others, and writes
 * only what it is said to write.
 *
 * Every encoding with the operand [r14 + disp8] that decode_host() allows (legacy, VEX,
 * EVEX) is executed with its operand at the very start and the very end of a page between
 * pages that cannot be accessed, where a page fault is a failure, and then on such a
 * page, where the fault must be for a byte of the operand. The page is read-only for
 * instructions that do not write. All other registers point to memory that cannot be
 * accessed. What the CPU does not have, or refuses for another reason (alignment), is
 * left out.
 */
#include <stdio.h>
#include <sys/mman.h>

#include "base/os.h"
#include "decode/host.h"
#include "lib/signals.h"
#include "lib/unit.h"
#include "x86/exception.h"

/* Calls CODE with OPERAND in r14 and OTHER in all other registers; the code goes to
 * decode_host_back. */
void decode_host_call(const void *code, uint64_t operand, uint64_t other);
extern const char decode_host_back[];
__asm__(".text\n.globl decode_host_call\ndecode_host_call:\n"
        "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,decode_host_sp(%rip)\nmov %rdi,decode_host_code(%rip)\n"
        "mov %rsi,%r14\n"
        "mov %rdx,%rax\nmov %rdx,%rbx\nmov %rdx,%rcx\nmov %rdx,%rsi\nmov %rdx,%rdi\n"
        "mov %rdx,%rbp\nmov %rdx,%rsp\nmov %rdx,%r8\nmov %rdx,%r9\nmov %rdx,%r10\n"
        "mov %rdx,%r11\nmov %rdx,%r12\nmov %rdx,%r13\nmov %rdx,%r15\n"
        "jmp *decode_host_code(%rip)\n"
        ".globl decode_host_back\ndecode_host_back:\n"
        "mov decode_host_sp(%rip),%rsp\n"
        "fninit\nmovl $0x1f80,-8(%rsp)\nldmxcsr -8(%rsp)\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n"
        ".bss\n.balign 8\ndecode_host_sp: .skip 8\ndecode_host_code: .skip 8\n.text\n");

#define DISP8 0x02

static struct os_code code;
static int trap; /* vector of the host's fault, or -1 */
static uint64_t trap_addr;
/* Pages between pages that cannot be accessed: to be written, to be read. */
static uint8_t *writable, *readable;

static bool on_fault(void *arg, struct os_fault *f) {
    trap = (int)f->trapno;
    trap_addr = f->addr;
    f->regs.rip = (uint64_t)(uintptr_t)decode_host_back;
    return true;
}

static uint8_t *guarded_page(int prot) {
    uint8_t *p = mmap(NULL, 3 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(mprotect(p + 4096, 4096, prot), 0);
    return p + 4096;
}

static int setup(void **state) {
    assert_int_equal(os_signal_stack(), 0);
    assert_int_equal(os_code_map(4096, &code), 0);
    assert_int_equal(os_fault_range(code.rx, code.rx + 64, on_fault, NULL), 0);
    signals_remember();
    writable = guarded_page(PROT_READ | PROT_WRITE);
    readable = guarded_page(PROT_READ);
    return 0;
}

/* Executes BYTES with the operand at AT. True: it went through, or was refused for a
 * reason that is not of paging. */
static bool run(const uint8_t *bytes, const struct host_insn *i, const uint8_t *at) {
    static const uint8_t jump[6] = {0xff, 0x25}; /* jmp [rip + 0] */
    const char *back = decode_host_back;
    uint32_t a = 0, b, c = 0, d;

    memcpy(code.rw, bytes, i->len);
    memcpy(code.rw + i->len, jump, sizeof(jump));
    memcpy(code.rw + i->len + sizeof(jump), &back, 8);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
    trap = -1;
    decode_host_call(code.rx, (uint64_t)(uintptr_t)at - (uint64_t)i->mem.disp,
                     (uint64_t)(uintptr_t)writable - 2048);
    return trap != X86_PF;
}

static unsigned long tried, accessed, bad;

static void expect(bool ok, const uint8_t *bytes, const struct host_insn *i,
                   const char *what) {
    if (ok || bad++ > 40)
        return;
    fprintf(stderr, "%s: %u bytes at disp %lld, fault at %lld:", what, i->mem.size,
            (long long)i->mem.disp, (long long)(trap_addr - (uintptr_t)writable));
    for (unsigned k = 0; k < i->len; k++)
        fprintf(stderr, " %02x", bytes[k]);
    fprintf(stderr, "\n");
}

/* Is allowed, and has one operand off r14. */
static bool concerns(const uint8_t *bytes, unsigned len, struct host_insn *i) {
    return decode_host(bytes, len, i) && i->op != HOST_FORBIDDEN && i->op != HOST_JMP &&
           i->mem.access && i->mem.base == 14 && i->mem.index == HOST_NONE && !i->mem.seg;
}

static void try(const uint8_t *bytes, unsigned len) {
    uint8_t *page;
    struct host_insn i;

    if (!concerns(bytes, len, &i))
        return;
    page = i.mem.access & HOST_WRITE ? writable : readable;
    if (i.mem.access & HOST_WRITE)
        memset(page, 0, 4096);
    expect(run(bytes, &i, page + 4096 - i.mem.size), bytes, &i, "beyond its end");
    if (trap == X86_UD) /* the CPU does not have it */
        return;
    tried++;
    expect(run(bytes, &i, page), bytes, &i, "before its start");
    /* Instructions that need not access anything do not fault. */
    if (!run(bytes, &i, page + 4096)) {
        accessed++;
        expect(trap_addr - (uintptr_t)(page + 4096) < i.mem.size, bytes, &i, "elsewhere");
    }
}

/* Opcode, ModRM with each REG, displacement, immediate behind the first N bytes of B. */
static void try_opcodes(uint8_t *b, unsigned n) {
    for (unsigned op = 0; op < 256; op++) {
        for (unsigned reg = 0; reg < 8; reg++) {
            b[n] = (uint8_t)op;
            b[n + 1] = (uint8_t)(0x46 | reg << 3);
            b[n + 2] = DISP8;
            memset(b + n + 3, 1, 8);
            try(b, n + 11);
        }
    }
}

static void test_legacy(void **state) {
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};
    static const uint8_t maps[][2] = {{0, 0}, {0x0f, 0}, {0x0f, 0x38}, {0x0f, 0x3a}};
    uint8_t b[24];

    signals_back();
    for (unsigned k = 0; k < 32; k++) {
        const uint8_t *map = maps[k & 3];
        unsigned n = 0;

        if (prefixes[k >> 2 & 3])
            b[n++] = prefixes[k >> 2 & 3];
        b[n++] = k & 16 ? 0x49 : 0x41;
        for (unsigned m = 0; m < 2 && map[m]; m++)
            b[n++] = map[m];
        try_opcodes(b, n);
    }
}

static void test_vex(void **state) {
    uint8_t b[24] = {0xc4};

    signals_back();
    for (unsigned map = 1; map <= 3; map++) {
        for (unsigned k = 0; k < 32; k++) { /* pp, L, W; no vvvv, or register 3 */
            b[1] = (uint8_t)(0xc0 | map);
            b[2] = (uint8_t)((k & 7) | (k & 8 ? 0x80 : 0) | (k & 16 ? 0x78 : 0x60));
            try_opcodes(b, 3);
        }
    }
}

static void test_evex(void **state) {
    static const uint8_t maps[] = {1, 2, 3, 5, 6};
    uint8_t b[24] = {0x62};

    signals_back();
    for (unsigned m = 0; m < ARRAY_SIZE(maps); m++) {
        for (unsigned k = 0; k < 128; k++) { /* pp, W, L'L, b; vvvv as above */
            b[1] = (uint8_t)(0xd0 | maps[m]);
            b[2] = (uint8_t)((k & 3) | 4 | (k & 4 ? 0x80 : 0) | (k & 64 ? 0x78 : 0x60));
            b[3] = (uint8_t)((k >> 3 & 3) << 5 | (k & 32 ? 0x10 : 0) | 8);
            try_opcodes(b, 4);
        }
    }
}

static void test_found(void **state) {
    print_message("%lu instructions, %lu accessed their operand\n", tried, accessed);
    assert_int_equal(bad, 0);
    assert_true(tried > 2000 && accessed > tried / 2);
}

/* Host code: what an instruction accesses, and whether emitted code may have it. */
static void test_classes(void **state) {
    static const struct {
        const char *bytes;
        uint8_t op, base, access;
        uint16_t size;
        int32_t disp;
    } cases[] = {
        {"\x49\x89\x46\x10", HOST_MOV, 14, HOST_WRITE, 8, 16},
        {"\x41\x01\x46\x10", HOST_ADD, 14, HOST_READ | HOST_WRITE, 4, 16},
        {"\x41\x0f\xb6\x06", HOST_MOVZX, 14, HOST_READ, 1, 0},
        {"\x49\x8d\x46\x10", HOST_LEA, 14, 0, 0, 16},
        {"\x49\x0f\xc7\x0e", HOST_PLAIN, 14, HOST_READ | HOST_WRITE, 16, 0},
        {"\x49\x0f\xba\x2e\x07", HOST_PLAIN, 14, HOST_READ | HOST_WRITE, 8, 0},
        {"\x49\x0f\xab\x06", HOST_FORBIDDEN, 14, HOST_READ | HOST_WRITE, 8, 0},
        {"\xc4\xc1\x7c\x11\x06", HOST_VECTOR, 14, HOST_WRITE, 32, 0},
        {"\x41\xdb\x2e", HOST_VECTOR, 14, HOST_READ, 10, 0},
        {"\x41\xd9\x36", HOST_FORBIDDEN, 14, HOST_WRITE, 28, 0},
        {"\x41\xff\x36", HOST_FORBIDDEN, 4, HOST_WRITE, 8, 0}, /* push: the stack, too */
        {"\xf3\x48\xab", HOST_STOS, 7, HOST_WRITE, 8, 0},
        {"\x66\x0f\xf7\xc1", HOST_FORBIDDEN, 7, HOST_WRITE, 16, 0}, /* maskmovdqu */
        {"\xfd", HOST_FORBIDDEN, HOST_NONE, 0, 0, 0},
        {"\xdb\xf1", HOST_VECTOR, HOST_NONE, 0, 0, 0}, /* fcomi */
        /* EVEX: vmovups, with displacements of 2 * 64, 2 and -16; by 2 registers above 15
         */
        {"\x62\xd1\x7c\x48\x10\x06", HOST_VECTOR, 14, HOST_READ, 64, 0},
        {"\x62\xd1\x7c\x48\x11\x46\x02", HOST_VECTOR, 14, HOST_WRITE, 64, 128},
        {"\x62\xd1\x7c\x28\x11\x46\x02", HOST_VECTOR, 14, HOST_WRITE, 32, 64},
        {"\x62\xd1\x7c\x08\x10\x46\xff", HOST_VECTOR, 14, HOST_READ, 16, -16},
        {"\x62\xa1\x6c\x40\x58\xc7", HOST_VECTOR, HOST_NONE, 0, 0, 0},
        /* vaddps, vaddpd: a broadcast; scalars; with a rounding; under a mask */
        {"\x62\xd1\x7c\x58\x58\x46\x02", HOST_VECTOR, 14, HOST_READ, 4, 8},
        {"\x62\xd1\xfd\x58\x58\x46\x02", HOST_VECTOR, 14, HOST_READ, 8, 16},
        {"\x62\xd1\x7e\x08\x58\x46\x02", HOST_VECTOR, 14, HOST_READ, 4, 8},
        {"\x62\xf1\x7c\x78\x58\xc2", HOST_VECTOR, HOST_NONE, 0, 0, 0},
        {"\x62\xf1\x7c\x4b\x58\xc2", HOST_VECTOR, HOST_NONE, 0, 0, 0},
        {"\x62\xd1\x7c\x4b\x58\x06", HOST_FORBIDDEN, 14, HOST_READ, 64, 0},
        {"\x62\xd1\x7c\x4b\x11\x06", HOST_FORBIDDEN, 14, HOST_WRITE, 64, 0},
        /* vpmovzxbd, vcvtpd2ps, vpmovdb, vpcompressd: N is not the register's length */
        {"\x62\xd2\x7d\x48\x31\x46\x02", HOST_VECTOR, 14, HOST_READ, 16, 32},
        {"\x62\xd1\xfd\x58\x5a\x46\x02", HOST_VECTOR, 14, HOST_READ, 8, 16},
        {"\x62\xd2\x7e\x48\x31\x46\x02", HOST_VECTOR, 14, HOST_WRITE, 16, 32},
        {"\x62\xd2\x7d\x48\x8b\x46\x02", HOST_VECTOR, 14, HOST_WRITE, 64, 8},
        /* vpgatherdd, vpscatterdd; kmovq; vpbroadcastd of a general register */
        {"\x62\xd2\x7d\x4b\x90\x0c\xc6", HOST_FORBIDDEN, 14, HOST_READ, 4, 0},
        {"\x62\xd2\x7d\x4b\xa0\x0c\xc6", HOST_FORBIDDEN, 14, HOST_WRITE, 4, 0},
        {"\xc4\xc1\xf8\x91\x4e\x08", HOST_VECTOR, 14, HOST_WRITE, 8, 8},
        {"\x62\xf2\x7d\x48\x7c\xc0", HOST_VECTOR, HOST_NONE, 0, 0, 0},
    };

    for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
        uint8_t bytes[15] = {0};
        struct host_insn i;

        memcpy(bytes, cases[n].bytes, strlen(cases[n].bytes));
        assert_true(decode_host(bytes, sizeof(bytes), &i));
        assert_int_equal(i.op, cases[n].op);
        assert_int_equal(i.mem.base, cases[n].base);
        assert_int_equal(i.mem.access, cases[n].access);
        assert_int_equal(i.mem.size, cases[n].size);
        assert_int_equal(i.mem.disp, cases[n].disp);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes), cmocka_unit_test(test_legacy),
        cmocka_unit_test(test_vex),     cmocka_unit_test(test_evex),
        cmocka_unit_test(test_found),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
