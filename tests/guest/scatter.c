/*
 * Accesses off shared registers over the ends of pages that are no neighbours in RAM, and
 * numbers whose sums and differences wrap: user and kernel code that once made the
 * translator go beyond what it had checked. Each piece runs while it is new, and often
 * enough for a second look at it.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define AT 0x40000000ul
#define PAGES 8
#define LED 0x400000000ul  /* where a cut displacement led */
#define HIGH 0x300000000ul /* where it should */
#define ROUNDS 700

static struct space s;
static uint8_t *page[PAGES];
static bool user;

static void map_all(void) {
    space_new(&s, SPACE_LONG, RWU);
    for (unsigned p = PAGES; p-- > 0;) { /* the other way round, and apart */
        page_alloc();
        page[p] = page_alloc();
        memset(page[p], 0x41 + (int)p, 4096);
        space_map(&s, AT + p * 4096, (ulong)page[p], RWU, 1);
    }
    page_alloc();
    space_map(&s, LED, (ulong)page[0], RWU, 1);
    space_map(&s, HIGH, (ulong)page[1], RWU, 1);
    space_map(&s, 0xfffff000, (ulong)page[2], RWU, 1);
    space_map(&s, 0x100000000, (ulong)page[3], RWU, 1);
    space_load(&s);
}

static void registers(void) {
    if (user)
        regs_user();
    else
        regs_kernel();
}

/* What eight bytes at VA hold: of page P, or of two. */
static uint64_t word(ulong va) {
    uint64_t v = 0;
    for (unsigned k = 8; k-- > 0;)
        v = v << 8 | (0x41 + ((va + k - AT) >> 12));
    return v;
}

static void far_apart(void *code, ulong gap, const char *what) {
    for (unsigned round = 0; round < ROUNDS; round++) {
        ulong at = AT + (round % (PAGES - 2) + 1) * 4096 - 1 - round % 24;
        registers();
        in.bx = at;
        unsigned v = run(code);
        if (v != DONE || trap.r.ax != word(at) || trap.r.cx != word(at + gap)) {
            check(false, "%s, round %u: vector %u, ax 0x%lx cx 0x%lx", what, round, v,
                  trap.r.ax, trap.r.cx);
            return;
        }
    }
    check(true, "%s", what);
}

static void pushes(void) {
    far_apart(CODE("push qword ptr [rbx]\nmov rcx, [rbx + 0x300]\npop rax"), 0x300,
              "push, and a read 0x300 on");
    far_apart(CODE("push qword ptr [rbx]\nmov rcx, [rbx + 0x3f8]\npop rax"), 0x3f8,
              "push, and a read 0x3f8 on");
    far_apart(CODE("push qword ptr [rbx]\nmov rcx, [rbx - 0x2f0]\npop rax"),
              (ulong)-0x2f0, "push, and a read below");
    far_apart(CODE("mov rdx, rsp\nmov rcx, [rbx + 0x200]\nmov rax, [rbx]\n"
                   "push qword ptr [rbx + 0x100]\nmov rsp, rdx"),
              0x200, "reads about a push");
}

/* Runs CODE, which goes round ROUNDS times by itself if it can, and must end with VECTOR
 * at the instruction at OFFSET. */
static void ends(const char *what, void *code, unsigned vector, long offset) {
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned v = run(code);
        if (v != vector || trap.r.ip != (ulong)code + (ulong)offset) {
            check(false, "%s, round %u: vector %u at +%ld, want %u at +%ld", what, round,
                  v, trap.r.ip - (ulong)code, vector, offset);
            return;
        }
    }
    check(true, "%s", what);
}

#define MOFFS(bytes) ".byte " bytes "\n"
static void offsets(void) {
    registers();
    /* A base above the page, so that the one number is negative, the other is not. */
    wrmsr(X86_MSR_FS_BASE, AT + 0x10000);
    /* mov rax, fs:[0x7fffffffffff1040]; mov rcx, rax; mov rax, fs:[-0xf000] */
    ends("offsets 2^63 apart",
         CODE(MOFFS("0x64, 0x48, 0xa1, 0x40, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f") "mov rcx, rax\n" MOFFS(
             "0x64, 0x48, 0xa1, 0, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff")),
         X86_GP, 0);
    ends(
        "offsets 2^63 and 1 MiB apart",
        CODE(MOFFS("0x64, 0x48, 0xa1, 0, 0x10, 0x0f, 0, 0, 0, 0, 0x80") "mov rcx, "
                                                                        "rax\n" MOFFS(
                                                                            "0x64, 0x48, "
                                                                            "0xa1, 0, "
                                                                            "0x10, 0xff, "
                                                                            "0xff, 0xff, "
                                                                            "0xff, 0xff, "
                                                                            "0xff")),
        X86_GP, 0);
    /* mov rax, [AT + 0x1000]; mov rax, [AT + 0x1000 + 2^63 - 4] */
    ends("an offset 2^63 - 4 on",
         CODE(MOFFS("0x48, 0xa1, 0, 0x10, 0, 0x40, 0, 0, 0, 0")
                  MOFFS("0x48, 0xa1, 0xfc, 0x0f, 0, 0xc0, 0xff, 0xff, 0xff, 0x7f")),
         X86_GP, 10);
    /* REX.R means nothing to them. */
    void *code = CODE("mov r8d, 5\n" MOFFS("0x4c, 0xa1, 0, 0x10, 0, 0x40, 0, 0, 0, 0"));
    ends("an offset under REX.R", code, DONE, CODE_LEN(code));
    check_eq("what it reads", trap.r.ax, word(AT + 0x1000));
    check_eq("r8", trap.r.r8, 5);
    wrmsr(X86_MSR_FS_BASE, 0);
}

static void unused_place(void) {
    void *code, *at, *mark;
    CODE_PLACES(code, at, mark,
                "1: xor ecx, ecx\nmovabs rdi, 0x8000000000000000\nmov rsi, rbx\n"
                "cmp rdx, 1\ncmove rcx, r8\n776: rep movsb\n777: dec rdx\njnz 1b");
    registers();
    in.bx = AT;
    in.dx = 20000;
    in.r8 = 8;
    unsigned v = run(code);
    check(v == X86_GP && trap.r.ip == (ulong)at,
          "rep movs to 2^63: vector %u at +%ld, not at +%ld", v, trap.r.ip - (ulong)code,
          (ulong)at - (ulong)code);
    (void)mark;
    check_eq("si", trap.r.si, AT);
    check_eq("di", trap.r.di, 1ul << 63);
    check_eq("cx", trap.r.cx, 8);
}

static void displacements(void) {
    void *code = CODE("mov rax, [rbx - 0x80000000]\nsub rbx, 0x100\n"
                      "mov rcx, [rbx - 0x80000000]");
    for (unsigned round = 0; round < ROUNDS; round++) {
        registers();
        in.bx = HIGH + 0x80000000 + 0x800;
        if (run(code) != DONE || trap.r.cx != 0x4242424242424242) {
            check(false, "a displacement of -2 GiB: vector %u cx 0x%lx", trap.vector,
                  trap.r.cx);
            break;
        }
    }
    /* 32-bit addresses come round to 0x100, where the snippet may or may not have
     * memory: it is not what lies at 4 GiB. */
    code = CODE("mov rax, [edi]\nmov rcx, [edi + 0x200]");
    for (unsigned round = 0; round < ROUNDS; round++) {
        registers();
        in.di = 0xffffff00;
        if (run(code) != DONE || trap.r.ax != 0x4343434343434343 ||
            trap.r.cx == 0x4444444444444444) {
            check(false, "round at 4 GiB: vector %u ax 0x%lx cx 0x%lx", trap.vector,
                  trap.r.ax, trap.r.cx);
            break;
        }
    }
}

void guest_main(void) {
    map_all();
    for (unsigned ring = 0; ring < 2; ring++) {
        user = ring;
        pushes();
        offsets();
        unused_place();
        displacements();
    }
}
