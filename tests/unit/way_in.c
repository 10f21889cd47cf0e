/*
 * The way into a machine that runs: calls at an instruction boundary, pauses, single
 * steps, and the ends of both; on every engine that this host has. Whole machines, with
 * guests of a few bytes. What happens in a run is done by a script, a task of the
 * machine's loop.
 */
/* glibc's <signal.h> under _GNU_SOURCE has names such as REG_RAX, of its own. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include <linux/memfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

int memfd_create(const char *name, unsigned flags); /* for lib/tiny.h */

#include "base/os.h"
#include "lib/tiny.h"
#include "machine/machine_int.h"

static struct machine *m;
static struct boot_image *image;
static struct machine_console console;
static void (*script)(void);
static char path[32], why[512];
static int kernel = -1;

/* The library's handlers of host faults, which cmocka replaces before each test. */
static struct sigaction fault_action;

static void restore_handlers(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

    for (size_t n = 0; n < ARRAY_SIZE(signals); n++)
        sigaction(signals[n], &fault_action, NULL);
}

/* False: this host does not have the engine. */
static bool create(const char *engine, const char *code, size_t len, bool counted) {
    struct machine_config cfg = {
        .engine = engine, .memory = 16 << 20, .counted = counted, .console = console};

    machine_options_default(&cfg.options);
    restore_handlers();
    kernel = tiny_kernel(code, len, path);
    assert_true(kernel >= 0);
    assert_int_equal(boot_image_open(path, NULL, &image, why, sizeof(why)), 0);
    cfg.image = image;
    if (!machine_create(&cfg, &m, why, sizeof(why))) {
        if (machine_boot(m, why, sizeof(why)))
            fail_msg("%s", why);
        return true;
    }
    assert_string_equal(engine, "kvm");
    boot_image_close(image);
    close(kernel);
    return false;
}

static void destroy(void) {
    machine_free(m);
    boot_image_close(image);
    close(kernel);
}

static void run_script(void *arg) {
    script();
    machine_quit(m);
}

static enum machine_end run(void (*fn)(void)) {
    static struct os_task task;

    script = fn;
    task = (struct os_task){.fn = run_script};
    os_task_post(&task, machine_loop(m));
    return machine_run(m);
}

/* CODE on each engine, FN beside it, to the END. */
static void on_engines(const char *code, size_t len, void (*fn)(void),
                       enum machine_end end) {
    static const char *const engines[] = {"interp", "bt", "kvm"};

    for (size_t n = 0; n < ARRAY_SIZE(engines); n++) {
        if (!create(engines[n], code, len, false))
            continue;
        assert_int_equal(run(fn), end);
        destroy();
    }
}

#define ON_ENGINES(code, fn, end) on_engines(code, sizeof(code) - 1, fn, end)

static const struct vcpu *cpu(void) {
    return machine_vcpu(m, 0);
}

/* --- guests; they begin at TINY_ENTRY, in 32-bit mode, flat, interrupts off --- */

/* xor eax, eax; mov ebx, eax; 1: inc eax; inc ebx; jmp 1b */
#define COUNT "\x31\xc0\x89\xc3\x40\x43\xeb\xfc"
#define COUNT_LOOP (TINY_ENTRY + 4)
/* the same with a port access in it, which leaves: 1: inc eax; out 0x80, al; inc ebx;
 * jmp 1b */
#define PORTS "\x31\xc0\x89\xc3\x40\xe6\x80\x43\xeb\xfa"
/* the same with vector state: CR4.OSFXSR is set; XMM0 is 0, XMM1 all ones; 1: inc eax;
 * psubd xmm0, xmm1; inc ebx; jmp 1b */
#define VECTOR                                                                           \
    "\x0f\x20\xe0\x80\xcc\x02\x0f\x22\xe0\x31\xc0\x89\xc3\x66\x0f\xef\xc0\x66\x0f\x76"   \
    "\xc9\x40\x66\x0f\xfa\xc1\x43\xeb\xf8"
#define VECTOR_LOOP (TINY_ENTRY + 21)
#define HALT "\xfa\xf4\xeb\xfc" /* 1: cli; hlt; jmp 1b */
#define SPIN "\xfa\xeb\xfe"     /* cli; jmp to itself */

/* --- calls --- */

static unsigned calls;
static pthread_t main_thread;

/* What a call finds; it may not complain on the thread that it is made on. */
static struct {
    uint64_t rip, a, b;
    uint32_t xmm[4]; /* XMM0 */
    bool vec_live, elsewhere;
} seen;

static void look(void *arg) {
    const struct vcpu *v = cpu();

    calls++;
    seen.rip = v->rip;
    seen.a = v->gpr[REG_RAX];
    seen.b = v->gpr[REG_RBX];
    memcpy(seen.xmm, v->vec + 160, sizeof(seen.xmm));
    seen.vec_live = v->vec_live;
    seen.elsewhere = !pthread_equal(pthread_self(), main_thread);
}

static void call_and_look(void) {
    machine_call(m, look, NULL);
    assert_true(seen.elsewhere);
    assert_false(seen.vec_live);
}

/* Until the guest is in its loop, whose two counters are the same before it. */
static void wait_for_loop(uint64_t from) {
    do
        call_and_look();
    while (seen.rip < from);
}

/* EAX is one ahead of EBX from the first INC to the second, and never otherwise. */
static void call_often(void) {
    wait_for_loop(COUNT_LOOP);
    calls = 0;
    for (unsigned n = 0; n < 300; n++) {
        call_and_look();
        assert_in_range(seen.rip, COUNT_LOOP, COUNT_LOOP + 2);
        assert_int_equal((uint32_t)(seen.a - seen.b), seen.rip == COUNT_LOOP + 1);
    }
    assert_int_equal(calls, 300);
}

static void test_call(void **state) {
    ON_ENGINES(COUNT, call_often, MACHINE_QUIT);
}

/* An access that left is finished before the call is made. */
static void call_amid_ports(void) {
    wait_for_loop(COUNT_LOOP);
    for (unsigned n = 0; n < 300; n++) {
        call_and_look();
        assert_in_range(seen.rip, COUNT_LOOP, COUNT_LOOP + 4);
        assert_int_equal((uint32_t)(seen.a - seen.b),
                         seen.rip == COUNT_LOOP + 1 || seen.rip == COUNT_LOOP + 3);
    }
}

static void test_call_amid_exits(void **state) {
    ON_ENGINES(PORTS, call_amid_ports, MACHINE_QUIT);
}

/* XMM0 counts with EAX, and follows it by one instruction. */
static void check_vectors(void) {
    for (unsigned n = 0; n < 4; n++)
        assert_int_equal(seen.xmm[n], (uint32_t)seen.a - (seen.rip == VECTOR_LOOP + 1));
    assert_int_equal((uint32_t)(seen.a - seen.b),
                     seen.rip == VECTOR_LOOP + 1 || seen.rip == VECTOR_LOOP + 5);
}

static void call_amid_vectors(void) {
    struct machine_steps done;

    wait_for_loop(VECTOR_LOOP);
    for (unsigned n = 0; n < 600; n++) {
        call_and_look();
        check_vectors();
        if (n % 3 == 0)
            machine_step(m, 1 + n % 7, &done);
        else if (n % 3 == 1)
            machine_resume(m);
    }
}

static void test_call_vectors(void **state) {
    ON_ENGINES(VECTOR, call_amid_vectors, MACHINE_QUIT);
}

/* What a call changes is what the guest goes on with: here the counters' distance. */
static void change_count(void *arg) {
    struct vcpu *v = (struct vcpu *)(uintptr_t)cpu();

    v->gpr[REG_RBX] = v->gpr[REG_RAX] + 1000;
}

static void change_and_look(void) {
    wait_for_loop(COUNT_LOOP);
    for (unsigned n = 0; n < 20; n++) {
        machine_call(m, change_count, NULL);
        call_and_look();
        assert_in_range((uint32_t)(seen.b - seen.a), 999, 1001);
    }
}

static void test_call_changes(void **state) {
    ON_ENGINES(COUNT, change_and_look, MACHINE_QUIT);
}

static void count_it(void *arg) {
    calls++;
}

/* Before the first life, between two and after the last there is somebody to make it. */
static void test_call_at_rest(void **state) {
    assert_true(create("bt", COUNT, sizeof(COUNT) - 1, false));
    calls = 0;
    machine_call(m, count_it, NULL);
    assert_int_equal(calls, 1);
    assert_int_equal(run(call_often), MACHINE_QUIT);
    machine_call(m, count_it, NULL);
    assert_int_equal(calls, 301);
    destroy();
}

static void call_sleeper(void) {
    calls = 0;
    for (unsigned n = 0; n < 100; n++)
        machine_call(m, count_it, NULL);
    assert_int_equal(calls, 100);
    machine_call(m, count_it, NULL);
}

static void test_call_sleeper(void **state) {
    ON_ENGINES(HALT, call_sleeper, MACHINE_QUIT);
}

/* --- pauses --- */

static uint64_t seen_ns, seen_tsc;

static void read_clocks(void *arg) {
    seen_ns = vclock_now(m->clock);
    seen_tsc = vclock_tsc(m->clock);
}

static void pause_and_look(void) {
    uint64_t rip, a, ns, tsc, start;

    machine_pause(m);
    assert_true(machine_paused(m));
    machine_call(m, read_clocks, NULL);
    rip = cpu()->rip;
    a = cpu()->gpr[REG_RAX];
    ns = seen_ns;
    tsc = seen_tsc;
    start = os_monotonic_ns();
    machine_pause(m); /* it does not nest */
    poll(NULL, 0, 20);
    machine_call(m, read_clocks, NULL);
    assert_true(os_monotonic_ns() > start);
    assert_int_equal(rip, cpu()->rip);
    assert_int_equal(a, cpu()->gpr[REG_RAX]);
    assert_int_equal(ns, seen_ns);
    assert_int_equal(tsc, seen_tsc);
}

/* It goes on from where it was: nobody has seen time pass. */
static void pause_and_resume(void) {
    uint64_t base = cpu()->tsc_base, a, before,
             after; /* the base moves at a resume only */

    pause_and_look();
    a = cpu()->gpr[REG_RAX];
    before = os_tsc();
    poll(NULL, 0, 20);
    after = os_tsc();
    machine_resume(m);
    machine_resume(m);
    assert_false(machine_paused(m));
    assert_true(base - cpu()->tsc_base >= after - before);
    do
        call_and_look();
    while (seen.a == a);
}

static void test_pause(void **state) {
    ON_ENGINES(COUNT, pause_and_resume, MACHINE_QUIT);
    ON_ENGINES(PORTS, pause_and_resume, MACHINE_QUIT);
    ON_ENGINES(HALT, pause_and_look, MACHINE_QUIT);
    ON_ENGINES(SPIN, pause_and_look, MACHINE_QUIT); /* and quit while it is paused */
}

static void pause_only(void) {
    machine_pause(m);
}

/* A pause stays through a reset; one before the first life is one too. */
static void test_pause_stays(void **state) {
    assert_true(create("interp", COUNT, sizeof(COUNT) - 1, false));
    machine_pause(m);
    assert_int_equal(run(pause_only), MACHINE_QUIT);
    assert_int_equal(machine_insns(m), 0);
    m->quit = false;
    assert_int_equal(machine_boot(m, why, sizeof(why)), 0);
    assert_int_equal(run(pause_and_resume), MACHINE_QUIT);
    assert_true(machine_insns(m) > 0);
    destroy();
}

static unsigned fired;

static void count_fire(void *arg) {
    fired++;
}

static struct vtimer timer = {.fire = count_fire};

static void arm_timer(void *arg) {
    vtimer_arm(m->clock, &timer, vclock_now(m->clock) + 5000000);
}

static void cancel_timer(void *arg) {
    vtimer_cancel(m->clock, &timer);
}

/* A timer of the guest's does not come due while it is paused, and does afterwards. */
static void pause_before_timer(void) {
    fired = 0;
    machine_pause(m);
    machine_call(m, arm_timer, NULL);
    poll(NULL, 0, 20);
    machine_call(m, count_it, NULL);
    assert_int_equal(fired, 0);
    machine_resume(m);
    while (!fired)
        machine_call(m, count_it, NULL);
    machine_call(m, cancel_timer, NULL);
}

static void test_pause_timer(void **state) {
    ON_ENGINES(HALT, pause_before_timer, MACHINE_QUIT);
    ON_ENGINES(COUNT, pause_before_timer, MACHINE_QUIT);
}

/* --- steps --- */

static struct machine_steps done;

static void step(uint64_t count) {
    machine_step(m, count, &done);
    assert_true(machine_paused(m));
    assert_int_equal(done.rip, cpu()->rip);
}

/* To the loop's beginning, then round it three instructions at a time. */
static void step_count(void) {
    uint64_t a, insns;

    step(1);
    while (cpu()->rip != COUNT_LOOP)
        step(1);
    a = cpu()->gpr[REG_RAX];
    assert_int_equal(cpu()->gpr[REG_RBX], a);
    insns = machine_insns(m);
    for (unsigned n = 1; n <= 10; n++) {
        step(1);
        assert_int_equal(done.rip, COUNT_LOOP + 1);
        step(1);
        assert_int_equal(done.rip, COUNT_LOOP + 2);
        step(1);
        assert_int_equal(done.rip, COUNT_LOOP);
        assert_int_equal(cpu()->gpr[REG_RAX], a + n);
        assert_int_equal(cpu()->gpr[REG_RBX], a + n);
    }
    step(300);
    assert_int_equal(done.steps, 300);
    assert_int_equal(done.insns, 300);
    assert_int_equal(cpu()->gpr[REG_RBX], a + 110);
    assert_int_equal(machine_insns(m), insns + 330);
    machine_resume(m);
    do
        call_and_look();
    while (seen.a == a + 110);
}

static void test_step(void **state) {
    ON_ENGINES(COUNT, step_count, MACHINE_QUIT);
}

static void step_sleeper(void) {
    uint64_t start = os_monotonic_ns();

    do /* until it sleeps */
        step(1);
    while (!done.halted && os_monotonic_ns() - start < 100000000000u);
    step(5);
    assert_true(done.halted);
    assert_int_equal(done.steps, 0);
    assert_int_equal(done.insns, 0);
    assert_int_equal(done.rip, TINY_ENTRY + 2);
}

static void test_step_halted(void **state) {
    ON_ENGINES(HALT, step_sleeper, MACHINE_QUIT);
}

/* A fault is delivered, and nothing is retired; here it is the first of three. It ends
 * the life, which a triple fault does wherever it happens. */
#define NO_IDT                                                                           \
    "\x0f\x01\x1d\x40\x00\x10\x00\x90\x0f\x0b" /* lidt [0x100040]; nop; ud2              \
                                                */

static void step_to_shutdown(void) {
    for (unsigned n = 0; n < 10; n++)
        step(1);
    assert_true(done.ended);
}

static void test_step_ends(void **state) {
    assert_true(create("interp", NO_IDT, sizeof(NO_IDT) - 1, false));
    machine_pause(m);
    assert_int_equal(run(step_to_shutdown), MACHINE_SHUTDOWN);
    destroy();
    assert_true(create("bt", NO_IDT, sizeof(NO_IDT) - 1, false));
    machine_pause(m);
    assert_int_equal(run(step_to_shutdown), MACHINE_SHUTDOWN);
    destroy();
}

/* mov edi, 0x200000; mov ecx, 600; cld; 5: rep stosb; 7: inc eax; jmp 7b */
#define STRING "\xbf\x00\x00\x20\x00\xb9\x58\x02\x00\x00\xfc\xf3\xaa\x40\xeb\xfd"

/* A repeated instruction goes on in pieces that retire nothing but the last. */
static void step_string(void) {
    uint64_t left;

    step(3);
    assert_int_equal(done.rip, TINY_ENTRY + 11);
    do {
        left = cpu()->gpr[REG_RCX];
        step(1);
        assert_int_equal(done.steps, 1);
        assert_true(cpu()->gpr[REG_RCX] < left);
        assert_int_equal(done.insns, cpu()->gpr[REG_RCX] == 0);
    } while (cpu()->gpr[REG_RCX]);
    assert_int_equal(done.rip, TINY_ENTRY + 13);
}

static void on_engines_from_pause(const char *code, size_t len, void (*fn)(void)) {
    static const char *const engines[] = {"interp", "bt", "kvm"};

    for (size_t n = 0; n < ARRAY_SIZE(engines); n++) {
        if (!create(engines[n], code, len, false))
            continue;
        machine_pause(m);
        assert_int_equal(run(fn), MACHINE_QUIT);
        destroy();
    }
}

static void test_step_string(void **state) {
    on_engines_from_pause(STRING, sizeof(STRING) - 1, step_string);
}

/* In a counted run a step is an instruction of its time. */
static void step_counted(void) {
    uint64_t before;

    step(4);
    before = machine_now_ns(m);
    step(300);
    assert_int_equal(done.insns, 300);
    assert_int_equal(machine_now_ns(m), before + 300);
}

static void test_step_counted(void **state) {
    static const char *const engines[] = {"interp", "bt"};

    for (size_t n = 0; n < ARRAY_SIZE(engines); n++) {
        assert_true(create(engines[n], COUNT, sizeof(COUNT) - 1, true));
        assert_int_equal(run(step_counted), MACHINE_QUIT);
        destroy();
    }
}

/* --- a console whose reader does not read --- */

static int stalled[2] = {-1, -1};
static unsigned kept;

static size_t keep(void *arg, const uint8_t *bytes, size_t len) {
    __atomic_add_fetch(&kept, 1, __ATOMIC_SEQ_CST);
    return len;
}

static int never(void *arg) {
    return stalled[1];
}

/* mov edx, 0x3f8; 1: out dx, al; jmp 1b */
#define TALK "\xba\xf8\x03\x00\x00\xee\xeb\xfd"

static void pause_talker(void) {
    while (!__atomic_load_n(&kept, __ATOMIC_SEQ_CST))
        poll(NULL, 0, 1);
    pause_and_look();
    step(10);
    assert_true(done.waits); /* its output, not the guest */
    assert_int_equal(done.steps, 10);
    machine_resume(m);
    machine_call(m, count_it, NULL);
    /* It reads no more: the run ends all the same when the console gives up. */
    close(stalled[0]);
    stalled[1] = -1;
}

static void test_stalled_reader(void **state) {
    static const char fill[4096];

    assert_int_equal(pipe(stalled), 0);
    while (poll(&(struct pollfd){.fd = stalled[1], .events = POLLOUT}, 1, 0) == 1)
        assert_int_equal(write(stalled[1], fill, sizeof(fill)), sizeof(fill));
    console = (struct machine_console){.tx = keep, .flush = never};
    kept = 0;
    assert_true(create("bt", TALK, sizeof(TALK) - 1, false));
    assert_int_equal(run(pause_talker), MACHINE_QUIT);
    destroy();
    console = (struct machine_console){0};
}

/* mov al, 5; out 0xf4, al; mov al, 7; out 0xf4, al; 1: jmp 1b */
#define EXIT_TWICE "\xb0\x05\xe6\xf4\xb0\x07\xe6\xf4\xeb\xfe"

/* What ends the life first is what is told, whatever the CPU does until it stops. */
static void test_first_exit(void **state) {
    static const char *const engines[] = {"interp", "bt", "kvm"};

    for (size_t n = 0; n < ARRAY_SIZE(engines); n++) {
        if (!create(engines[n], EXIT_TWICE, sizeof(EXIT_TWICE) - 1, false))
            continue;
        assert_int_equal(machine_run(m), MACHINE_DEBUG_EXIT);
        assert_int_equal(machine_exit_code(m), 5 << 1 | 1);
        destroy();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call),           cmocka_unit_test(test_call_amid_exits),
        cmocka_unit_test(test_call_vectors),   cmocka_unit_test(test_call_changes),
        cmocka_unit_test(test_call_at_rest),   cmocka_unit_test(test_call_sleeper),
        cmocka_unit_test(test_pause),          cmocka_unit_test(test_pause_stays),
        cmocka_unit_test(test_pause_timer),    cmocka_unit_test(test_step),
        cmocka_unit_test(test_step_halted),    cmocka_unit_test(test_step_ends),
        cmocka_unit_test(test_step_string),    cmocka_unit_test(test_step_counted),
        cmocka_unit_test(test_stalled_reader), cmocka_unit_test(test_first_exit),
    };

    main_thread = pthread_self();
    create("bt", SPIN, sizeof(SPIN) - 1, false);
    sigaction(SIGSEGV, NULL, &fault_action);
    destroy();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
