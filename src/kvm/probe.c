/*
 * Is KVM there, and is it worth taking? A small guest in 64-bit mode answers: a loop, as
 * on the host; exits; first touches of its memory. A few milliseconds, also where guest
 * code is emulated: the loop is made longer only while it is short.
 *
 * A timer ends a guest that does not come back.
 */
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/os.h"
#include "kvm/kvm_int.h"
#include "x86/cr.h"
#include "x86/pte.h"

/* --- /dev/kvm and what it must have --- */

static const struct {
    int cap;
    const char *what;
} needed[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR"},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER"},
};

static enum kvm_verdict open_verdict(int error) {
    switch (error) {
    case ENOENT:
        return KVM_MISSING;
    case EACCES:
    case EPERM:
        return KVM_FORBIDDEN;
    default: /* ENODEV, ENXIO: a node without a driver */
        return KVM_NO_HARDWARE;
    }
}

static bool cpu_can(void) {
    uint32_t a, b, c, d;

    if (__get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 5)))
        return true;                                                   /* VMX */
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & (1u << 2)); /* SVM */
}

int kvm_open(struct kvm_probe *p) {
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    *p = (struct kvm_probe){.cpu_can = cpu_can()};
    if (fd < 0) {
        p->error = errno;
        p->verdict = open_verdict(errno);
        return -1;
    }
    if (ioctl(fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
        p->verdict = KVM_OTHER_API;
        close(fd);
        return -1;
    }
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        if (ioctl(fd, KVM_CHECK_EXTENSION, needed[i].cap) <= 0) {
            p->verdict = KVM_TOO_OLD;
            p->missing = needed[i].what;
            close(fd);
            return -1;
        }
    return fd;
}

/* --- what is measured --- */

/* More than this is not hardware, or is no better than translation. */
#define SLOW_RATIO 3.0
#define SLOW_EXIT_NS 100e3
#define SLOW_TOUCH_NS 100e3

enum {
    RAM = 2 << 20,
    CODE_LOOP = 0x1000,  /* dec ecx; jnz; out 0x80; jmp to the out */
    CODE_TOUCH = 0x1100, /* inc byte [rdi]; add rdi, 4096; dec ecx; jnz; out 0x80 */
    CODE_CALL = 0x1200,  /* vmcall or vmmcall; out 0x80 */
    PML4 = 0x2000,
    PDPT = 0x3000,
    PD = 0x4000,
    TOUCHED = 0x100000,
    PAGES = 32,
    EXITS = 32,
    FIRST_LOOP = 1000,
    LAST_LOOP = 1000000,
    REPEATS = 3,
};
#define LONG_ENOUGH_NS 2e6
#define KVM_ENOSYS 1000 /* Linux, Documentation/virt/kvm/x86/hypercalls.rst */
#define TIMEOUT_NS 2000000000u
#define CALL_TIMEOUT_NS 200000000u

static const uint8_t code_loop[] = {0xff, 0xc9, 0x75, 0xfc, 0xe6, 0x80, 0xeb, 0xfc};
static const uint8_t code_touch[] = {0xfe, 0x07, 0x48, 0x81, 0xc7, 0x00, 0x10, 0x00,
                                     0x00, 0xff, 0xc9, 0x75, 0xf3, 0xe6, 0x80};

static const uint8_t code_call[2][5] = {{0x0f, 0x01, 0xc1, 0xe6, 0x80},
                                        {0x0f, 0x01, 0xd9, 0xe6, 0x80}};

struct guest {
    int vm, fd;
    uint8_t *ram;
    struct kvm_run *run;
    size_t run_size;
    const char *failed; /* what did not work */
    int error;
};

static bool fail(struct guest *g, const char *what) {
    g->failed = what;
    g->error = errno;
    return false;
}

/* --- the guest --- */

static void lay_out(struct guest *g) {
    uint64_t entry = X86_PTE_P | X86_PTE_W;

    memcpy(g->ram + CODE_LOOP, code_loop, sizeof(code_loop));
    memcpy(g->ram + CODE_TOUCH, code_touch, sizeof(code_touch));
    *(uint64_t *)(void *)(g->ram + PML4) = PDPT | entry;
    *(uint64_t *)(void *)(g->ram + PDPT) = PD | entry;
    *(uint64_t *)(void *)(g->ram + PD) = entry | X86_PTE_PS;
}

static bool set_modes(struct guest *g) {
    struct kvm_segment data = {.limit = 0xffffffff,
                               .selector = 16,
                               .type = 3,
                               .s = 1,
                               .present = 1,
                               .db = 1,
                               .g = 1};
    struct kvm_segment text = {.limit = 0xffffffff,
                               .selector = 8,
                               .type = 11,
                               .s = 1,
                               .present = 1,
                               .l = 1,
                               .g = 1};
    struct kvm_sregs s;

    if (ioctl(g->fd, KVM_GET_SREGS, &s))
        return fail(g, "read registers");
    s.cs = text;
    s.ds = s.es = s.ss = s.fs = s.gs = data;
    s.cr3 = PML4;
    s.cr4 = X86_CR4_PAE;
    s.efer = X86_EFER_LME | X86_EFER_LMA;
    s.cr0 = X86_CR0_PE | X86_CR0_PG | X86_CR0_ET | X86_CR0_NE;
    return ioctl(g->fd, KVM_SET_SREGS, &s) ? fail(g, "set registers") : true;
}

/* In this order: a KVM that has no hardware says so at the first. */
static bool open_guest(struct guest *g, int dev) {
    struct kvm_userspace_memory_region slot = {.memory_size = RAM};
    struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entry[256];
    } cpuid = {.head.nent = 256};
    int size = ioctl(dev, KVM_GET_VCPU_MMAP_SIZE, 0);

    g->vm = ioctl(dev, KVM_CREATE_VM, 0);
    if (g->vm < 0)
        return fail(g, "create a virtual machine");
    g->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g->ram == MAP_FAILED)
        return fail(g, "get memory");
    lay_out(g);
    slot.userspace_addr = (uintptr_t)g->ram;
    if (ioctl(g->vm, KVM_SET_TSS_ADDR, 0xfeffd000ul) ||
        ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &slot))
        return fail(g, "give it memory");
    g->fd = ioctl(g->vm, KVM_CREATE_VCPU, 0);
    if (g->fd < 0 || size < (int)sizeof(struct kvm_run))
        return fail(g, "create a CPU");
    g->run_size = (size_t)size;
    g->run = mmap(NULL, g->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, g->fd, 0);
    if (g->run == MAP_FAILED)
        return fail(g, "map the CPU's state");
    if (ioctl(dev, KVM_GET_SUPPORTED_CPUID, &cpuid) ||
        ioctl(g->fd, KVM_SET_CPUID2, &cpuid))
        return fail(g, "tell what CPU the guest has");
    return set_modes(g);
}

static void close_guest(struct guest *g) {
    if (g->run != MAP_FAILED)
        munmap(g->run, g->run_size);
    if (g->fd >= 0)
        close(g->fd);
    if (g->vm >= 0)
        close(g->vm);
    if (g->ram != MAP_FAILED)
        munmap(g->ram, RAM);
}

/* --- phases --- */

static bool set_regs(struct guest *g, uint64_t rip, uint64_t count) {
    struct kvm_regs r = {.rip = rip, .rflags = X86_FL_ONE, .rcx = count, .rdi = TOUCHED};

    return ioctl(g->fd, KVM_SET_REGS, &r) ? fail(g, "set registers") : true;
}

static bool run_to_out(struct guest *g) {
    if (ioctl(g->fd, KVM_RUN, 0))
        return fail(g, errno == EINTR ? "get a small guest back" : "enter a guest");
    if (g->run->exit_reason != KVM_EXIT_IO) {
        errno = 0;
        return fail(g, "run a small guest");
    }
    return true;
}

/* Nanoseconds from the entry at RIP to the next OUT, or a negative number. */
static double timed(struct guest *g, uint64_t rip, uint64_t count) {
    uint64_t start;

    if (!set_regs(g, rip, count))
        return -1;
    start = os_monotonic_ns();
    return run_to_out(g) ? (double)(os_monotonic_ns() - start) : -1;
}

static bool measure_exits(struct guest *g, struct kvm_probe *p) {
    uint64_t start, best = UINT64_MAX;

    if (timed(g, CODE_LOOP, 1) < 0)
        return false;
    for (unsigned i = 0; i < EXITS; i++) {
        start = os_monotonic_ns();
        if (!run_to_out(g))
            return false;
        start = os_monotonic_ns() - start;
        best = start < best ? start : best;
    }
    p->exit_ns = (double)best;
    return true;
}

static double native_loop(uint32_t count) {
    uint64_t start = os_monotonic_ns();

    __asm__ volatile("1: dec %0\n\tjnz 1b" : "+r"(count) : : "cc");
    return (double)(os_monotonic_ns() - start);
}

static bool measure_loop(struct guest *g, struct kvm_probe *p) {
    uint32_t count = FIRST_LOOP;
    double guest = timed(g, CODE_LOOP, count), native = 0;

    while (guest >= 0 && guest < LONG_ENOUGH_NS && count < LAST_LOOP) {
        count *= 10;
        guest = timed(g, CODE_LOOP, count);
    }
    for (unsigned i = 0; i < REPEATS && guest >= 0; i++) {
        double n = native_loop(count), again = guest;

        if (guest < LONG_ENOUGH_NS)
            again = timed(g, CODE_LOOP, count);
        guest = again < guest ? again : guest;
        native = i == 0 || n < native ? n : native;
    }
    if (guest < 0)
        return false;
    guest = guest > p->exit_ns ? guest - p->exit_ns : 0;
    p->loop_ns = guest / count;
    p->native_loop_ns = native / count;
    return true;
}

static bool measure_touches(struct guest *g, struct kvm_probe *p) {
    double ns = timed(g, CODE_TOUCH, PAGES);

    p->touch_ns = ns / PAGES;
    return ns >= 0;
}

enum kvm_verdict kvm_probe_judge(const struct kvm_probe *p) {
    if (p->loop_ns > SLOW_RATIO * p->native_loop_ns || p->exit_ns > SLOW_EXIT_NS ||
        p->touch_ns > SLOW_TOUCH_NS)
        return KVM_SLOW;
    return KVM_FAST;
}

static enum kvm_verdict verdict_of_failure(const struct guest *g) {
    /* kvm.ko without a vendor's module, or one that found nothing. */
    if (g->vm < 0 && (g->error == ENODEV || g->error == EOPNOTSUPP || g->error == EIO ||
                      g->error == ENOTTY))
        return KVM_NO_HARDWARE;
    return KVM_BROKEN;
}

void kvm_probe(struct kvm_probe *p) {
    struct guest g = {.vm = -1, .fd = -1, .ram = MAP_FAILED, .run = MAP_FAILED};
    int dev = kvm_open(p);
    void *timer;

    if (dev < 0)
        return;
    if (!os_kick_init() && !os_kick_timer(TIMEOUT_NS, &timer)) {
        if (open_guest(&g, dev) && measure_exits(&g, p) && measure_loop(&g, p))
            measure_touches(&g, p);
        os_kick_timer_stop(timer);
    } else {
        fail(&g, "set a timer");
    }
    p->verdict = g.failed ? verdict_of_failure(&g) : kvm_probe_judge(p);
    p->missing = g.failed;
    p->error = g.error;
    close_guest(&g);
    close(dev);
}

bool kvm_answers_calls(int dev, bool amd) {
    struct guest g = {.vm = -1, .fd = -1, .ram = MAP_FAILED, .run = MAP_FAILED};
    struct kvm_regs r;
    bool answered = false;
    void *timer;

    if (os_kick_init() || os_kick_timer(CALL_TIMEOUT_NS, &timer))
        return false;
    if (open_guest(&g, dev) && set_regs(&g, CODE_CALL, 0)) {
        memcpy(g.ram + CODE_CALL, code_call[amd], sizeof(code_call[amd]));
        answered = run_to_out(&g) && !ioctl(g.fd, KVM_GET_REGS, &r) &&
                   (int64_t)r.rax == -KVM_ENOSYS;
    }
    os_kick_timer_stop(timer);
    close_guest(&g);
    return answered;
}

/* --- words --- */

static const char *no_hardware(const struct kvm_probe *p) {
    return p->cpu_can
               ? "this CPU has hardware virtualization, but the module kvm_intel or "
                 "kvm_amd is not loaded or found it switched off"
               : "this CPU shows no hardware virtualization";
}

static void slow_text(const struct kvm_probe *p, char *buf, size_t size) {
    if (p->loop_ns > SLOW_RATIO * p->native_loop_ns)
        snprintf(buf, size,
                 "usable but slow, the hardware is emulated underneath: %.1f million "
                 "instructions a second, %.2g %% of the host's",
                 2e3 / p->loop_ns, 100 * p->native_loop_ns / p->loop_ns);
    else
        snprintf(
            buf, size,
            "usable but slow, the hardware is emulated underneath: an exit takes %.0f "
            "microseconds, the first touch of a page %.0f",
            p->exit_ns / 1e3, p->touch_ns / 1e3);
}

void kvm_probe_text(const struct kvm_probe *p, char *buf, size_t size) {
    switch (p->verdict) {
    case KVM_FAST:
        snprintf(buf, size,
                 "usable: guest code runs at %.0f %% of the host's speed, an exit takes "
                 "%.1f microseconds",
                 100 * p->native_loop_ns / p->loop_ns, p->exit_ns / 1e3);
        return;
    case KVM_SLOW:
        slow_text(p, buf, size);
        return;
    case KVM_MISSING:
        snprintf(buf, size, "/dev/kvm is missing: %s; `--engine bt` does without",
                 no_hardware(p));
        return;
    case KVM_FORBIDDEN:
        snprintf(buf, size,
                 "this user may not open /dev/kvm (its group may); `--engine bt` does "
                 "without");
        return;
    case KVM_NO_HARDWARE:
        snprintf(buf, size,
                 "/dev/kvm is there, but no hardware behind it: %s; "
                 "`--engine bt` does without",
                 no_hardware(p));
        return;
    case KVM_OTHER_API:
        snprintf(buf, size,
                 "/dev/kvm speaks another interface than KVM's version %d; "
                 "`--engine bt` does without",
                 KVM_API_VERSION);
        return;
    case KVM_TOO_OLD:
        snprintf(buf, size,
                 "the kernel's KVM lacks %s (Linux 5.10 has it); `--engine bt` does "
                 "without",
                 p->missing);
        return;
    default:
        snprintf(buf, size,
                 "/dev/kvm opens, but cannot %s%s%s; `--engine bt` does without",
                 p->missing ? p->missing : "run a guest", p->error ? ": " : "",
                 p->error ? strerror(p->error) : "");
    }
}
