/*
 * The CPU on the translator. Its code runs on the host by itself, where no sanitizer
 * looks; so an escape has to show in other ways:
 *
 *   - RAM lies between pages that cannot be touched (os_memfd_map()), and the guest is
 *     made to use its last bytes;
 *   - a fault at a place where translated code may not fault ends the process;
 *   - the shadow is looked through afterwards for an entry that leads elsewhere
 * (guest_check);
 *   - a guest that comes to an end on the interpreter comes to the same end here, with
 * the same registers and the same memory.
 *
 * A guest that does not come to an end is stopped by a kick after some milliseconds.
 */
/* <signal.h> of _GNU_SOURCE has its own REG_RAX and so on. */
#undef _GNU_SOURCE
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <time.h>

#include "base/os.h"
#include "cpu/state.h"
#include "decode/decode.h"
#include "fuzz/cpu.h"
#include "lib/bt.h"

enum {
    STEPS = 1500,
    KICK_NS = 400000,
    FLAVOURS = 4,
    ONSTACK = 0x08000000 /* SA_ONSTACK, which is not in POSIX.1-2008 without XSI */
};

static struct guest ref, vms[FLAVOURS];
static struct guest *volatile running;
static timer_t timer;

/* In the handler the stack pointer was the guest's a moment ago. */
static void on_timer(int signo) {
    struct guest *vm = running;

    if (!vm)
        return;
    vcpu_raise(vm->v, VCPU_EVENT_KICK);
    bt_kick(vm->bt);
}

/* libFuzzer's own handlers, its clock's above all, do not ask for the signal stack. */
static void onto_signal_stack(void) {
    for (int signo = 1; signo < 32; signo++) {
        struct sigaction act;

        if (signo == SIGKILL || signo == SIGSTOP || sigaction(signo, NULL, &act) ||
            act.sa_handler == SIG_DFL || act.sa_handler == SIG_IGN)
            continue;
        act.sa_flags |= ONSTACK;
        HOLDS(!sigaction(signo, &act, NULL));
    }
}

static void set_up(void) {
    static const char *const options[FLAVOURS] = {
        "cache=1", "no-liveness,no-groups,cache=1", "no-chain,tu=2,cache=1",
        "tu=64,count,no-liveness,cache=1"};
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
    struct sigaction act = {.sa_handler = on_timer, .sa_flags = SA_RESTART | ONSTACK};

    if (ref.v)
        return;
    HOLDS(!os_signal_stack());
    onto_signal_stack();
    HOLDS(!sigaction(SIGUSR2, &act, NULL));
    HOLDS(!timer_create(CLOCK_MONOTONIC, &ev, &timer));
    cpu_guest_new(&ref, MMU_FLUSH, NULL);
    for (unsigned k = 0; k < FLAVOURS; k++) {
        struct bt_options opt = bt_defaults();
        char why[128];

        HOLDS(!bt_options_parse(&opt, options[k], why, sizeof(why)));
        cpu_guest_new(&vms[k], k & 1 ? MMU_TRACE : MMU_PCID, &opt);
    }
}

static void set_timer(long ns) {
    struct itimerspec t = {.it_value = {.tv_nsec = ns}, .it_interval = {.tv_nsec = ns}};

    HOLDS(!timer_settime(timer, 0, &t, NULL));
}

static enum exit_reason run_bt(struct guest *vm) {
    enum exit_reason why;

    running = vm;
    set_timer(KICK_NS);
    why = guest_run(vm);
    set_timer(0);
    running = NULL;
    return why;
}

/* Kicked or not, both get the same number of chances to end. */
static bool run_to_end(struct guest *vm, enum exit_reason *why) {
    for (unsigned k = 0; k < 20000; k++) {
        *why = run_bt(vm);
        if (*why != EXIT_kick)
            return true;
        vcpu_clear(vm->v, VCPU_EVENT_KICK);
    }
    return false;
}

static void run_free(struct guest *vm, const struct cpu_how *how) {
    enum exit_reason why = EXIT_kick;

    for (unsigned k = 0; k < 2 && why == EXIT_kick; k++) {
        if (how->events)
            vcpu_raise(vm->v, k ? VCPU_EVENT_NMI : VCPU_EVENT_IRQ);
        why = run_bt(vm);
        HOLDS(why == EXIT_kick || why == EXIT_halt || why == EXIT_shutdown);
        vcpu_clear(vm->v, VCPU_EVENT_KICK);
        guest_check(vm);
    }
}

static void differ(const char *what, uint64_t a, uint64_t b) {
    fprintf(stderr, "translator and interpreter differ in %s: %llx, interpreter %llx\n",
            what, (unsigned long long)a, (unsigned long long)b);
    abort();
}

static void differ_at(unsigned at, uint64_t a, uint64_t b) {
    char what[32];

    snprintf(what, sizeof(what), "memory at %x", at);
    differ(what, a, b);
}

/* Eight bytes, but for A and D in page tables: the translator may set D for an
 * instruction that faults for another reason then. */
static bool same(const struct guest *vm, unsigned at) {
    bool table = at >= CPU_TABLES && at < CPU_TABLES + CPU_TABLES_SIZE;
    uint64_t a, b;

    memcpy(&a, vm->ram + at, 8);
    memcpy(&b, ref.ram + at, 8);
    return !((a ^ b) & ~(table ? 0x0000006000000060ull : 0));
}

/* Of the state, all but what step_reference() cannot excuse one by one: status flags, and
 * vector registers. comparable() has seen to x87's pointers. */
static void compare(const struct guest *vm) {
    const struct vcpu *a = vm->v, *b = ref.v;

    for (size_t n = 0; n < vcpu_part_count; n++) {
        const struct vcpu_part *p = &vcpu_parts[n];

        if (p->group != VCPU_GROUP_VECTOR && vcpu_part_differs(a, b, p, 0, VCPU_LOOSE))
            differ(p->name, vcpu_part_number(a, p), vcpu_part_number(b, p));
    }
    if (a->mode != b->mode)
        differ("mode", a->mode, b->mode);
    for (unsigned k = 0; k < CPU_RAM; k += 8)
        if (!same(vm, k))
            differ_at(k, *(const uint64_t *)(const void *)(vm->ram + k),
                      *(const uint64_t *)(const void *)(ref.ram + k));
}

/* --- FUZZ_TRACE=1: what each of them does, on stderr --- */

static void on_entry(void *arg, const struct ccf *c) {
    struct vcpu *v = arg;

    fprintf(stderr, "translator: %llx sp %llx\n", (unsigned long long)c->code.va,
            (unsigned long long)v->gpr[4]);
}

static enum exit_reason trace(struct guest *vm) {
    enum exit_reason why = EXIT_kick;

    vm->bt->watch = on_entry;
    vm->bt->watch_arg = vm->v;
    for (unsigned k = 0; k < STEPS && why == EXIT_kick; k++) {
        fprintf(stderr, "interpreter: %llx sp %llx flags %llx\n",
                (unsigned long long)ref.v->rip, (unsigned long long)ref.v->gpr[4],
                (unsigned long long)ref.v->rflags);
        why = interp_step(ref.ip, 1);
    }
    return why;
}

/* What the reference did that the engines need not agree on. */
struct seen {
    bool pointers;      /* x87 had an address at some time */
    bool flags;         /* status flags that the manual leaves undefined were read */
    unsigned undefined; /* such flags, now */
};

static bool next_insn(struct vcpu *v, struct insn *i) {
    uint64_t at = v->rip + (v->mode == MODE_64 ? 0 : v->seg[SEG_CS].base);
    uint8_t b[16] = {0};
    unsigned len;

    for (unsigned k = 0; k < 15; k += len) {
        uint64_t piece = v->mode == MODE_64 ? at + k : (uint32_t)(at + k);
        struct gpa from;
        bool writable;

        len = 4096 - (unsigned)(piece & 4095);
        if (len > 15 - k)
            len = 15 - k;
        if (!mmu_peek(v, gva(piece), &from, &writable) ||
            !mem_read(v->mem, from, b + k, len))
            break;
    }
    return decode_insn(v->mode, b, 15, i) == DECODE_OK;
}

/* One instruction of the reference. An exception's frame holds the flags. */
static enum exit_reason step_reference(struct seen *seen) {
    uint64_t exceptions = ref.cnt.exceptions_delivered;
    unsigned reads, undefined = 0;
    enum exit_reason why;
    struct insn i;

    if (next_insn(ref.v, &i)) {
        reads = i.op == OP_pushf || i.op == OP_lahf || i.op == OP_int ? X86_FL_STATUS
                                                                      : i.fl_read;
        seen->flags |= (seen->undefined & reads) != 0;
        undefined = (seen->undefined & ~(unsigned)i.fl_written) | i.fl_undefined;
    }
    why = interp_step(ref.ip, 1);
    if (ref.cnt.exceptions_delivered != exceptions)
        seen->flags |= seen->undefined != 0;
    else
        seen->undefined = undefined & X86_FL_STATUS;
    seen->pointers |= ref.v->fip || ref.v->fdp || ref.v->fop;
    return why;
}

/* The reference, to its end. */
static enum exit_reason run_reference(struct seen *seen) {
    enum exit_reason why = EXIT_kick;

    for (unsigned k = 0; k < STEPS && why == EXIT_kick; k++)
        why = step_reference(seen);
    return why;
}

/* A guest that writes its page tables and does not say so, or takes others, sees what is
 * in the shadow, and each engine has its own. Not all of the x87's pointers are
 * followed by the translator, and with liveness flags that are undefined are any
 * (docs/bt.md).
 */
static bool comparable(const struct guest *before, const struct seen *seen) {
    if (before->v->cr3 != ref.v->cr3 || seen->pointers ||
        (seen->flags && before->bt->sh->opt.tr.liveness))
        return false;
    for (unsigned k = CPU_TABLES; k < CPU_TABLES + CPU_TABLES_SIZE; k += 8)
        if (!same(before, k))
            return false;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum exit_reason why, end;
    struct cpu_how how;
    struct seen seen = {0};
    struct guest *vm;

    if (size < 9)
        return 0;
    set_up();
    guest_reset(&ref);
    cpu_guest(&ref, data, size, &how);
    vm = &vms[how.options % FLAVOURS];
    guest_reset(vm);
    cpu_guest(vm, data, size, &how);
    if (getenv("FUZZ_TRACE"))
        why = trace(vm);
    else
        why = how.events ? EXIT_kick : run_reference(&seen);
    if (why == EXIT_kick || !comparable(vm, &seen)) {
        run_free(vm, &how);
        return 0;
    }
    HOLDS(run_to_end(vm, &end));
    HOLDS(end == why);
    guest_check(vm);
    compare(vm);
    return 0;
}
