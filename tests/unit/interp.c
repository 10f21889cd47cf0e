/*
 * The interpreter: blocks, self-modifying code, page crossings, single step, events,
 * counting. Guests are a few bytes of 32-bit code in flat protected mode.
 */
#include "lib/exec.h"
#include "lib/unit.h"
#include "sem/sem.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/exception.h"

enum {
    CODE = FLAT_CODE,
    IDT = FLAT_IDT,
    GDT = FLAT_GDT,
    HANDLER = FLAT_HANDLERS,
    STACK = FLAT_STACK,
    DATA = 0x20000,
};

static struct vcpu V;
static struct guest G;

static uint8_t *ram(uint64_t a) {
    return mem_host(V.mem, gpa(a), 1);
}

static void code(uint64_t at, const char *bytes, unsigned len) {
    assert_true(mem_write(V.mem, gpa(at), bytes, len));
}

#define CODE_AT(at, s) code(at, s, sizeof(s) - 1)

/* Every vector goes to HANDLER. */
static void setup(void) {
    interp_flush(G.ip);
    exec_start_flat(&G, 0);
    memset(&G.cnt, 0, sizeof(G.cnt));
}

static int group_setup(void **state) {
    const struct guest_config cfg = {.ram = 8 << 20, .vcpu = &V, .interp = true};

    guest_new(&G, &cfg);
    return 0;
}

static int group_teardown(void **state) {
    guest_free(&G);
    return 0;
}

static void test_count(void **state) {
    setup();
    code(CODE, "\xb9\xe8\x03\x00\x00\x40\x49\x75\xfc\xeb\xfe", 11);
    assert_int_equal(interp_step(G.ip, 3001), EXIT_kick);
    assert_int_equal(G.cnt.insns_retired, 3001);
    assert_int_equal(V.gpr[REG_RAX], 1000);
    assert_int_equal(V.rip, CODE + 9);
    /* A repeated string instruction counts once. */
    setup();
    code(CODE, "\xb9\x00\x20\x00\x00\xbf\x00\x00\x20\x00\xf3\xaa\xeb\xfe", 14);
    interp_step(G.ip, 3);
    assert_int_equal(G.cnt.insns_retired, 3);
    assert_int_equal(V.gpr[REG_RDI], 0x202000);
    assert_int_equal(V.rip, CODE + 12);
}

/* mov byte [next], 0x43 (inc ebx) over inc eax: the new one runs, at once. */
static void test_self_modifying(void **state) {
    setup();
    code(CODE, "\xc6\x05\x07\x00\x10\x00\x43\x40\xeb\xf6", 10);
    interp_step(G.ip, 2);
    assert_int_equal(V.gpr[REG_RAX], 0);
    assert_int_equal(V.gpr[REG_RBX], 1);
    /* Twice through, then changed from outside the block. */
    interp_step(G.ip, 40);
    code(CODE + 7, "\x41", 1);
    code(CODE, "\x90\x90\x90\x90\x90\x90\x90", 7);
    V.rip = CODE;
    V.gpr[REG_RCX] = 0;
    interp_step(G.ip, 8);
    assert_int_equal(V.gpr[REG_RCX], 1);
    assert_true(G.cnt.blocks_invalidated > 0);
}

/* Data beside code does not drop it; the trace goes with the last block. */
static void test_data_on_code_page(void **state) {
    setup();
    code(CODE, "\xc7\x05\x00\x08\x10\x00\x78\x56\x34\x12\xeb\xf4", 12);
    interp_step(G.ip, 2);
    uint64_t dropped = G.cnt.blocks_invalidated, made = G.cnt.blocks_decoded;
    interp_step(G.ip, 100);
    assert_int_equal(G.cnt.blocks_invalidated, dropped);
    assert_int_equal(G.cnt.blocks_decoded, made);
    assert_int_equal(*ram(CODE + 0x800), 0x78);
    assert_true(mem_trace_of(V.mem, ram(CODE)) & MEM_TRACE_CODE);
    /* Both blocks: that of the jump, too. */
    code(CODE, "\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90\x90", 12);
    assert_false(mem_trace_of(V.mem, ram(CODE)) & MEM_TRACE_CODE);
}

/* Variables between code, and then code where they were: inc eax, inc ebx, inc ecx, each
 * with a jump back to itself. */
static void test_code_between_code(void **state) {
    static const struct {
        uint64_t at;
        const char *bytes;
    } loops[] = {{0, "\x40\xeb\xfd"}, {0x20, "\x43\xeb\xfd"}, {0x10, "\x41\xeb\xfd"}};

    setup();
    for (unsigned n = 0; n < 3; n++) {
        code(CODE + loops[n].at, loops[n].bytes, 3);
        V.rip = CODE + loops[n].at;
        interp_step(G.ip, 10);
        code(CODE + 0x18, "\1\2\3\4", 4);
    }
    assert_int_equal(G.cnt.blocks_invalidated, 0);
    code(CODE + 0x10, "\x48", 1); /* dec eax */
    V.rip = CODE + 0x10;
    V.gpr[REG_RAX] = 100;
    V.gpr[REG_RCX] = 0;
    interp_step(G.ip, 10);
    assert_int_equal(V.gpr[REG_RCX], 0);
    assert_int_equal(V.gpr[REG_RAX], 95);
}

static void test_page_crossing(void **state) {
    setup();
    code(CODE + 4094, "\xb8\x44\x33\x22\x11\xeb\xf9", 7); /* mov eax, imm; jmp back */
    V.rip = CODE + 4094;
    interp_step(G.ip, 20);
    assert_int_equal(V.gpr[REG_RAX], 0x11223344);
    code(CODE + 4096, "\x99", 1); /* its second page changes */
    interp_step(G.ip, 2);
    assert_int_equal(V.gpr[REG_RAX], 0x11229944);
    /* More than 15 bytes: #GP. */
    setup();
    memset(ram(CODE), 0x66, 16);
    assert_int_equal(interp_run(G.ip), EXIT_halt);
    assert_int_equal(V.rip, HANDLER + 1);
    assert_int_equal(V.fault.vector, X86_GP);
    /* So does the limit of CS, only for bytes that are needed. */
    setup();
    V.seg[SEG_CS].ar &= (uint16_t)~X86_AR_G;
    V.seg[SEG_CS].limit = CODE + 2;
    vcpu_update_mode(&V);
    code(CODE, "\x40\x40\xb8\x01\x02\x03\x04", 7);
    interp_step(G.ip, 2);
    assert_int_equal(V.gpr[REG_RAX], 2);
    interp_step(G.ip, 1);
    assert_int_equal(V.fault.vector, X86_GP);
}

static void test_single_step(void **state) {
    setup();
    code(HANDLER, "\x45\xcf", 2); /* inc ebp; iret */
    code(CODE, "\x40\x40\x40\xeb\xfb", 5);
    V.rflags |= X86_FL_TF;
    interp_step(G.ip, 3 * 3);
    assert_int_equal(V.gpr[REG_RBP], 3);
    assert_int_equal(V.gpr[REG_RAX], 3);
    assert_true(V.dr[6] & X86_DR6_BS);
    /* An execution breakpoint is a fault; RF lets the instruction pass afterwards. */
    setup();
    code(CODE, "\x40\x43\x41\xeb\xfe", 5);
    V.dr[0] = CODE + 1;
    V.dr[7] |= 2;
    mmu_breakpoints_changed(&V);
    interp_step(G.ip, 1);
    assert_int_equal(V.rip, CODE + 1);
    assert_int_equal(interp_run(G.ip), EXIT_halt);
    assert_true(V.dr[6] & 1);
    assert_int_equal(V.gpr[REG_RBX], 0);
    setup();
    V.dr[0] = CODE + 1;
    V.dr[7] |= 2;
    V.rflags |= X86_FL_RF;
    V.rip = CODE + 1;
    interp_step(G.ip, 1);
    assert_int_equal(V.gpr[REG_RBX], 1);
    assert_false(V.rflags & X86_FL_RF);
}

static void test_events(void **state) {
    setup();
    code(CODE, "\xeb\xfe", 2);
    vcpu_raise(&V, VCPU_EVENT_KICK);
    assert_int_equal(interp_run(G.ip), EXIT_kick);
    assert_int_equal(G.cnt.insns_retired, 0);
    vcpu_clear(&V, VCPU_EVENT_KICK);
    vcpu_raise(&V, VCPU_EVENT_NMI);
    assert_int_equal(interp_run(G.ip), EXIT_halt);
    assert_int_equal(V.rip, HANDLER + 1);
    /* No IDT: a fault becomes a triple one. */
    setup();
    V.idtr.limit = 0;
    code(CODE, "\x0f\x0b", 2);
    assert_int_equal(interp_run(G.ip), EXIT_shutdown);
}

/* An instruction across two pages is decoded once, whatever else runs. */
static void test_crossing_cached(void **state) {
    setup();
    CODE_AT(CODE + 4094, "\xb8\x44\x33\x22\x11\xeb\xf9"); /* mov eax, imm; jmp back */
    V.rip = CODE + 4094;
    interp_step(G.ip, 4);
    uint64_t odd = G.cnt.blocks_decoded;
    interp_step(G.ip, 1000);
    assert_true(odd > 0);
    assert_int_equal(G.cnt.blocks_decoded, odd);
    /* Its first page, then its second, changes. */
    CODE_AT(CODE + 4095, "\x45");
    interp_step(G.ip, 2);
    assert_int_equal(V.gpr[REG_RAX], 0x11223345);
    CODE_AT(CODE + 4096, "\x34");
    interp_step(G.ip, 2);
    assert_int_equal(V.gpr[REG_RAX], 0x11223445);
    CODE_AT(CODE + 4094, "\x66\xb8\x01\x02\xeb\xfa"); /* shorter, still across */
    V.rip = CODE + 4094;
    interp_step(G.ip, 2);
    assert_int_equal(V.gpr[REG_RAX], 0x11220201);
}

/* More blocks than the arena holds. */
static void test_arena_full(void **state) {
    setup();
    memset(mem_host(V.mem, gpa(CODE), 1), 0x40, 4 << 20); /* inc eax */
    CODE_AT(CODE + (4 << 20), "\xf4");
    assert_int_equal(interp_run(G.ip), EXIT_halt);
    assert_int_equal(V.gpr[REG_RAX], 4 << 20);
    assert_int_equal(G.cnt.insns_retired, (4 << 20) + 1);
    assert_true(G.cnt.block_cache_flushes > 0);
}

/* A string that runs over the code behind it. */
static void test_rep_over_code(void **state) {
    setup();
    CODE_AT(CODE, "\x41\xf3\xaa\x40\x40\x40\x40\xf4"); /* inc ecx; rep stosb; inc eax */
    V.gpr[REG_RCX] = 2;
    V.gpr[REG_RAX] = 0x45; /* inc ebp */
    V.gpr[REG_RDI] = CODE + 4;
    interp_step(G.ip, 100);
    assert_int_equal(V.rip, CODE + 8);
    assert_int_equal(V.gpr[REG_RAX], 0x46);
    assert_int_equal(V.gpr[REG_RBP], 3);
    assert_int_equal(G.cnt.insns_retired, 7);
    /* Onto itself: the iterations that are left are another instruction's. */
    setup();
    V.gpr[REG_RCX] = 4;
    V.gpr[REG_RAX] = 0x90;
    V.gpr[REG_RDI] = CODE;
    CODE_AT(CODE, "\xf3\xaa\x45\x45\xf4");
    interp_step(G.ip, 100);
    assert_int_equal(V.gpr[REG_RDI], CODE + 2);
    assert_int_equal(V.rip, CODE + 5);
    /* From one traced page to another, by pieces of a page. */
    setup();
    memset(mem_host(V.mem, gpa(CODE + 0x1000), 1), 0xf4, 0x3000);
    for (unsigned k = 1; k < 4; k++) {
        V.rip = CODE + k * 0x1000;
        V.halted = false;
        interp_step(G.ip, 1);
    }
    CODE_AT(CODE, "\xf3\xa5\x40\xf4"); /* rep movsd; inc eax; hlt */
    memset(mem_host(V.mem, gpa(DATA), 1), 0x41, 0x3000);
    V.rip = CODE;
    V.halted = false;
    V.gpr[REG_RAX] = 0;
    V.gpr[REG_RSI] = DATA;
    V.gpr[REG_RDI] = CODE + 0x1000;
    V.gpr[REG_RCX] = 0xc00;
    interp_step(G.ip, 100);
    assert_int_equal(V.rip, CODE + 4);
    V.rip = CODE + 0x3ff0;
    V.halted = false;
    interp_step(G.ip, 4);
    assert_int_equal(V.gpr[REG_RCX], 4); /* the new code: inc ecx */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_count),
        cmocka_unit_test(test_self_modifying),
        cmocka_unit_test(test_data_on_code_page),
        cmocka_unit_test(test_code_between_code),
        cmocka_unit_test(test_page_crossing),
        cmocka_unit_test(test_single_step),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_crossing_cached),
        cmocka_unit_test(test_arena_full),
        cmocka_unit_test(test_rep_over_code),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
