/*
 * The host's CPU: a child process that runs programs for the harness.
 *
 * The child maps the case's pages at the addresses where the guest has them, and lets
 * nothing else into the lower 4 GiB. Its system calls are limited to what its own loop
 * needs, with the very arguments that the loop uses (libseccomp); any other one ends the
 * case. Programs are entered by IRETQ, with every register theirs, and left by the signal
 * of the exception that ends them, whose frame holds the state. The handler runs on an
 * alternate stack, before anything else puts the segment registers and bases back, and
 * goes on in the loop without returning.
 *
 * Batches and outcomes are in shared memory; a byte through a pipe passes them over.
 */
/* <signal.h> of _GNU_SOURCE has its own REG_RAX and so on. */
#undef _GNU_SOURCE
#define _DEFAULT_SOURCE
#include "fidelity.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

struct host {
    struct batch *batch[2];
    unsigned *submitted; /* batches that nobody has waited for; shared */
    int to[2], from[2];
    pid_t pid;
    unsigned long cpus[128]; /* that the parent may run on */
    long cpus_size;          /* 0 or less: not known */
};

#define SLOTS 8
#define ALT_STACK (256u << 10)

/* Only the child uses these: a signal handler has no argument. Offsets are known to the
 * assembler below. */
struct frame {
    uint64_t gpr[16];      /*   0 */
    uint64_t iret[5];      /* 128: rip, cs, rflags, rsp, ss */
    uint64_t fs, gs;       /* 168, 176 */
    uint64_t ds, es;       /* 184, 192: selectors */
    uint64_t own_fs;       /* 200 */
    uint64_t own_sp;       /* 208 */
    uint64_t fs_sel;       /* 216 */
    uint64_t left_sel[4];  /* 224: ds, es, fs, gs */
    uint64_t left_base[2]; /* 256 */
    void *image;           /* 272 */
    uint64_t running;      /* 280: a case runs, and there is a way back from it */
    uint64_t components;   /* 288: of the image */
};
_Static_assert(offsetof(struct frame, components) == 288, "known to the assembler");
__attribute__((visibility("hidden"))) struct frame fid_frame;

static struct outcome *result;
static uint8_t *alias[FID_PAGES], *code_rw;
static uint64_t arg_byte; /* what the pipes carry */

void fid_enter(void);
void fid_left(void);
void fid_on_signal(int signo, siginfo_t *si, void *context);

/* clang-format off */
__asm__(".text\n.globl fid_enter\nfid_enter:\n"
        "push %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "lea fid_frame(%rip),%rbx\n"
        "rdfsbase %rax\nmov %rax,200(%rbx)\nmov %rsp,208(%rbx)\n"
        "movq $1,280(%rbx)\n"
        "mov 288(%rbx),%eax\nxor %edx,%edx\nmov 272(%rbx),%rcx\nxrstor64 (%rcx)\n"
        "mov 216(%rbx),%eax\nmov %eax,%fs\nmov %eax,%gs\n"
        "mov 168(%rbx),%rax\nwrfsbase %rax\nmov 176(%rbx),%rax\nwrgsbase %rax\n"
        "mov 184(%rbx),%eax\nmov %eax,%ds\nmov 192(%rbx),%eax\nmov %eax,%es\n"
        "push 160(%rbx)\npush 152(%rbx)\npush 144(%rbx)\npush 136(%rbx)\npush 128(%rbx)\n"
        "mov 0(%rbx),%rax\nmov 8(%rbx),%rcx\nmov 16(%rbx),%rdx\n"
        "mov 40(%rbx),%rbp\nmov 48(%rbx),%rsi\nmov 56(%rbx),%rdi\n"
        "mov 64(%rbx),%r8\nmov 72(%rbx),%r9\nmov 80(%rbx),%r10\nmov 88(%rbx),%r11\n"
        "mov 96(%rbx),%r12\nmov 104(%rbx),%r13\nmov 112(%rbx),%r14\n"
        "mov 120(%rbx),%r15\nmov 24(%rbx),%rbx\n"
        "iretq\n"
        /* The handler of every signal: rdi, rsi, rdx are its arguments. */
        ".globl fid_signal\nfid_signal:\n"
        "pushfq\nandl $~0x44100,(%rsp)\npopfq\ncld\n"
        "lea fid_frame(%rip),%rbx\n"
        "mov %ds,%eax\nmov %rax,224(%rbx)\nmov %es,%eax\nmov %rax,232(%rbx)\n"
        "mov %fs,%eax\nmov %rax,240(%rbx)\nmov %gs,%eax\nmov %rax,248(%rbx)\n"
        "rdfsbase %rax\nmov %rax,256(%rbx)\nrdgsbase %rax\nmov %rax,264(%rbx)\n"
        "jmp fid_on_signal\n"
        /* Back in fid_enter()'s caller. */
        ".globl fid_left\nfid_left:\n"
        "lea fid_frame(%rip),%rbx\n"
        "xor %eax,%eax\nmov %eax,%ds\nmov %eax,%es\nmov %eax,%fs\nmov %eax,%gs\n"
        "mov 200(%rbx),%rax\nwrfsbase %rax\n"
        "mov 208(%rbx),%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n");
/* clang-format on */
void fid_signal(void);

static void copy(void *to, const void *from, size_t len) {
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
}

static void take_state(const siginfo_t *si, const ucontext_t *uc) {
    static const uint8_t greg[16] = {13, 14, 12, 11, 15, 10, 9, 8,
                                     0,  1,  2,  3,  4,  5,  6, 7};
    const greg_t *g = uc->uc_mcontext.gregs;
    struct outcome *o = result;

    for (unsigned r = 0; r < 16; r++)
        o->gpr[r] = (uint64_t)g[greg[r]];
    o->rip = (uint64_t)g[16];
    o->rflags = (uint64_t)g[17];
    o->sel[SEG_CS] = (uint16_t)g[18];
    o->sel[SEG_SS] = (uint16_t)((uint64_t)g[18] >> 48);
    o->error = (uint64_t)g[19];
    o->vector = (uint8_t)g[20];
    o->cr2 = o->vector == X86_PF ? (uint64_t)g[22] : 0;
    o->sel[SEG_DS] = (uint16_t)fid_frame.left_sel[0];
    o->sel[SEG_ES] = (uint16_t)fid_frame.left_sel[1];
    o->sel[SEG_FS] = (uint16_t)fid_frame.left_sel[2];
    o->sel[SEG_GS] = (uint16_t)fid_frame.left_sel[3];
    o->fs_base = fid_frame.left_base[0];
    o->gs_base = fid_frame.left_base[1];
    copy(o->image, uc->uc_mcontext.fpregs, fid_image_len);
}

/* Without the C library: %fs is the case's. */
__attribute__((optimize("no-stack-protector"), used)) void
fid_on_signal(int signo, siginfo_t *si, void *context) {
    if (signo == SIGALRM) {
        if (!fid_frame.running)
            return;
        result->end = FID_ENDLESS;
    } else if (!fid_frame.running) {
        __asm__ volatile("ud2"); /* a fault of our own: SIGILL again, then the end */
    } else {
        result->end = signo == SIGSYS ? FID_SYSCALL : FID_EXCEPTION;
    }
    fid_frame.running = 0;
    take_state(si, context);
    fid_left();
}

/* DIRTY: pages that are not what MEM says. */
static void run_case(const struct program *p, const struct state *s, const uint8_t *mem,
                     unsigned *dirty, struct outcome *o) {
    _Alignas(64) static uint8_t image[FID_IMAGE];
    bool wide = p->mode == MODE_64;
    uint64_t h = 0;

    for (unsigned k = 0; k < FID_PAGES; k++)
        if (*dirty >> k & 1)
            memcpy(alias[k], mem + 4096 * k, 4096);
    memcpy(fid_frame.gpr, s->gpr, sizeof(s->gpr));
    memcpy(image, s->image, FID_IMAGE);
    fid_frame.image = image;
    fid_frame.components = fid_components;
    fid_frame.iret[0] = p->base;
    fid_frame.iret[1] = wide ? 0x33 : 0x23;
    fid_frame.iret[2] = s->rflags | X86_FL_IF;
    fid_frame.iret[3] = s->gpr[4];
    fid_frame.iret[4] = 0x2b;
    fid_frame.fs = s->fs_base;
    fid_frame.gs = s->gs_base;
    fid_frame.ds = fid_frame.es = fid_frame.fs_sel = 0x2b;
    memset(o, 0, sizeof(*o));
    result = o;
    fid_enter();
    *dirty = 0;
    for (unsigned k = 0; k < FID_PAGES; k++)
        if (fid_page_changed(k, alias[k], mem + 4096 * k, &h))
            *dirty |= 1u << k;
    o->memory = h;
}

static void run_batch(struct batch *b) {
    for (unsigned n = 0; n < b->n; n++) {
        const struct program *p = &b->program[n];
        unsigned dirty = ~0u;

        if (p->hidden)
            continue;
        memset(code_rw, 0xf4, FID_CODE_SIZE);
        memcpy(code_rw + (p->base - FID_CODE), p->code, p->len);
        for (unsigned k = 0; k < p->nstates; k++) {
            struct outcome *o = &b->outcome[n][k];
            unsigned tries = 0;

            /* What the timer has ended may only have come at the wrong moment. */
            do
                run_case(p, &p->state[k], b->initial[n], &dirty, o);
            while (o->end == FID_ENDLESS && ++tries < 3);
        }
    }
    if (b->keep_memory)
        for (unsigned k = 0; k < FID_PAGES; k++)
            memcpy(b->memory + 4096 * k, alias[k], 4096);
}

/* --- the jail --- */

static void *map_at(uint64_t at, int fd, uint64_t off, unsigned len, int prot) {
    void *want = (void *)(uintptr_t)at;
    void *p =
        mmap(want, len, prot, MAP_SHARED | MAP_POPULATE | (at ? MAP_FIXED_NOREPLACE : 0),
             fd, (off_t)off);

    if (p == MAP_FAILED || (at && p != want)) {
        perror("fidelity: mmap");
        _exit(3);
    }
    return p;
}

static void map_pages(void) {
    int fd = (int)syscall(SYS_memfd_create, "case", 0);

    if (fd < 0 || ftruncate(fd, (FID_PAGES + 2) * 4096) < 0)
        _exit(3);
    for (unsigned k = 0; k < FID_PAGES; k++) {
        map_at(fid_pages[k].at, fd, k * 4096ull, 4096,
               PROT_READ | (fid_pages[k].write ? PROT_WRITE : 0));
        alias[k] = map_at(0, fd, k * 4096ull, 4096, PROT_READ | PROT_WRITE);
    }
    map_at(FID_CODE, fd, FID_PAGES * 4096, FID_CODE_SIZE, PROT_READ | PROT_EXEC);
    code_rw = map_at(0, fd, FID_PAGES * 4096, FID_CODE_SIZE, PROT_READ | PROT_WRITE);
    close(fd);
}

static void take_signals(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL,
                                  SIGTRAP, SIGSYS, SIGALRM};
    struct sigaction act = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    stack_t ss = {.ss_size = ALT_STACK};
    struct itimerval it = {{0, 1000}, {0, 1000}}; /* no case takes as long */

    ss.ss_sp =
        mmap(NULL, ALT_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    act.sa_sigaction = (void (*)(int, siginfo_t *, void *))(uintptr_t)fid_signal;
    sigaltstack(&ss, NULL);
    for (size_t k = 0; k < ARRAY_SIZE(signals); k++)
        sigaction(signals[k], &act, NULL);
    setitimer(ITIMER_REAL, &it, NULL);
}

static void jail(int in, int out) {
    scmp_filter_ctx c = seccomp_init(SCMP_ACT_TRAP);
    uint64_t buf = (uint64_t)(uintptr_t)&arg_byte;
    int rc = c ? 0 : -1;

    rc |= seccomp_attr_set(c, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_TRAP);
    rc |= seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(rt_sigreturn), 0);
    rc |= seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(read), 3,
                           SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)in),
                           SCMP_A1(SCMP_CMP_EQ, buf), SCMP_A2(SCMP_CMP_EQ, 1));
    rc |= seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(write), 3,
                           SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)out),
                           SCMP_A1(SCMP_CMP_EQ, buf), SCMP_A2(SCMP_CMP_EQ, 1));
    rc |= seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(exit_group), 1,
                           SCMP_A0(SCMP_CMP_EQ, 77));
    rc |= seccomp_load(c);
    if (rc) {
        fprintf(stderr, "fidelity: seccomp is not available\n");
        _exit(3);
    }
    seccomp_release(c);
}

/* What the child needs: its absence is said, and ends in status 77. */
static bool host_can(void) {
    uint32_t ar = 0, a = 7, b, c = 0, d;
    uint8_t user32;

    __asm__("lar %2,%0\nsetz %1" : "+r"(ar), "=q"(user32) : "r"(0x23) : "cc");
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (!__builtin_cpu_supports("avx")) /* with the kernel's consent */
        fprintf(stderr, "fidelity: the host has no AVX\n");
    else if (!(b & 1) || !(getauxval(AT_HWCAP2) & 2))
        fprintf(stderr, "fidelity: the host's kernel does not offer FSGSBASE\n");
    else if (!user32)
        fprintf(stderr, "fidelity: the host's kernel runs no 32-bit code\n");
    else
        return true;
    return false;
}

static void child(struct host *h) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_IGN); /* the parent has them */
    signal(SIGTERM, SIG_IGN);
    close(h->to[1]);
    close(h->from[0]);
    map_pages();
    take_signals();
    jail(h->to[0], h->from[1]);
    while (write(h->from[1], &arg_byte, 1) < 0)
        ;
    for (;;) {
        ssize_t n = read(h->to[0], &arg_byte, 1);

        if (n < 0)
            continue; /* the timer */
        if (n == 0)
            break;
        run_batch(h->batch[arg_byte & 1]);
        while (write(h->from[1], &arg_byte, 1) < 0)
            ;
    }
    syscall(SYS_exit_group, 77);
}

/* Linux keeps the CPU's number in the limit of a descriptor, which LSL shows: the child
 * stays where it is, and so does the parent until it has made its own tables of them. */
static void pin(struct host *h) {
    unsigned long one[ARRAY_SIZE(h->cpus)] = {0};
    unsigned cpu = 0;

    h->cpus_size = syscall(SYS_sched_getaffinity, 0, sizeof(h->cpus), h->cpus);
    if (h->cpus_size <= 0 || syscall(SYS_getcpu, &cpu, NULL, NULL) < 0 ||
        cpu >= 8 * sizeof(one))
        return;
    one[cpu / 64] = 1ul << cpu % 64;
    syscall(SYS_sched_setaffinity, 0, sizeof(one), one);
}

void fid_host_unpin(struct host *h) {
    if (h->cpus_size > 0)
        syscall(SYS_sched_setaffinity, 0, (size_t)h->cpus_size, h->cpus);
}

int fid_host_start(struct host **out) {
    struct host *h;

    if (!host_can())
        return -ENOTSUP;
    h = calloc(1, sizeof(*h));
    if (!h)
        return -ENOMEM;
    for (unsigned k = 0; k < 2; k++) {
        h->batch[k] = mmap(NULL, sizeof(struct batch), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (h->batch[k] == MAP_FAILED)
            return -ENOMEM;
    }
    h->submitted =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (h->submitted == MAP_FAILED)
        return -ENOMEM;
    *h->submitted = 1; /* that it is up */
    if (pipe(h->to) < 0 || pipe(h->from) < 0)
        return -errno;
    fflush(NULL);
    pin(h);
    h->pid = fork();
    if (h->pid < 0)
        return -errno;
    if (h->pid == 0)
        child(h);
    close(h->to[0]);
    close(h->from[1]);
    *out = h;
    /* The child has said why, when it does not come up. */
    return fid_host_wait(h, 0) ? -ENOTSUP : 0;
}

void fid_host_stop(struct host *h) {
    close(h->to[1]);
    waitpid(h->pid, NULL, 0);
    close(h->from[0]);
    for (unsigned k = 0; k < 2; k++)
        munmap(h->batch[k], sizeof(struct batch));
    free(h);
}

bool fid_strayed(const struct host *h, const struct outcome *got) {
    unsigned long at = got->cr2, from, to;
    char path[32], line[512];
    bool hit = false;

    if (got->end != FID_EXCEPTION || got->vector != X86_PF ||
        at - FID_CODE < FID_CODE_SIZE)
        return false;
    for (unsigned k = 0; k < FID_PAGES; k++)
        if (at >> 12 == fid_pages[k].at >> 12)
            return false;
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)h->pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return false;
    while (!hit && fgets(line, sizeof(line), f))
        hit = sscanf(line, "%lx-%lx", &from, &to) == 2 && at >= from && at < to;
    fclose(f);
    return hit;
}

struct batch *fid_host_batch(struct host *h, unsigned k) {
    return h->batch[k];
}

void fid_host_submit(struct host *h, unsigned k) {
    struct batch *batch = h->batch[k];
    uint8_t b = (uint8_t)k;

    for (unsigned n = 0; n < batch->n; n++)
        fid_fill_memory(batch->program[n].memory, batch->initial[n]);
    ++*h->submitted;
    if (write(h->to[1], &b, 1) != 1)
        perror("fidelity: host");
}

int fid_host_wait(struct host *h, unsigned k) {
    uint8_t b;
    ssize_t n;

    while ((n = read(h->from[0], &b, 1)) < 0 && errno == EINTR)
        ;
    --*h->submitted;
    return n == 1 ? 0 : -EIO;
}

int fid_host_drain(struct host *h) {
    int rc = 0;

    while (*h->submitted && !rc)
        rc = fid_host_wait(h, 0);
    return rc;
}
