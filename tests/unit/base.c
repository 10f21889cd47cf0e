/* The seam to the host: clocks, memory, faults, log lines; and option values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "ctl/options.h"

#define MS 1000000ull
/* What should come comes within this, on a machine that has much else to do. */
#define PATIENCE (120000 * MS)

/* --- clocks --- */

static void test_monotonic(void **state) {
    uint64_t last = os_monotonic_ns();

    for (int i = 0; i < 10000; i++) {
        uint64_t now = os_monotonic_ns();

        assert_true(now >= last);
        last = now;
    }
    poll(NULL, 0, 20);
    assert_in_range(os_monotonic_ns() - last, 20 * MS, PATIENCE);
}

static void test_realtime(void **state) {
    assert_in_range(os_realtime_ns() / 1000000000u, 1700000000u, 9000000000u);
}

/* Both clocks, read without anything in between. */
static void both_clocks(uint64_t *ns, uint64_t *tsc) {
    do {
        *ns = os_monotonic_ns();
        *tsc = os_tsc();
    } while (os_monotonic_ns() - *ns > 10000);
}

/* The frequency against both clocks over 100 ms, within one part in a thousand. */
static void test_tsc(void **state) {
    uint64_t hz = os_tsc_hz(), n0, t0, n1, t1;
    double measured;

    assert_int_equal(hz, os_tsc_hz());
    both_clocks(&n0, &t0);
    poll(NULL, 0, 100);
    both_clocks(&n1, &t1);
    measured = (double)(t1 - t0) * 1e9 / (double)(n1 - n0);
    assert_true(measured > (double)hz * 0.999 && measured < (double)hz * 1.001);
}

/* --- memory and code --- */

/* The flags of the mapping that begins at P, as proc(5) has them; a space before each. */
static void flags_of(const void *p, char *out, size_t size) {
    FILE *f = fopen("/proc/self/smaps", "re");
    char line[512], start[32];
    bool here = false;

    snprintf(start, sizeof(start), "%lx-", (unsigned long)(uintptr_t)p);
    *out = 0;
    while (f && fgets(line, sizeof(line), f)) {
        if (strchr(line, '-') && strchr(line, '-') < line + 20 && line[0] != 'V')
            here = !strncmp(line, start, strlen(start));
        if (here && !strncmp(line, "VmFlags:", 8))
            snprintf(out, size, "%s", line + 8);
    }
    if (f)
        fclose(f);
}

/* Guest memory is in no core dump. */
static void test_no_dump(void **state) {
    char flags[512];
    void *map;
    int fd;

    assert_int_equal(os_memfd_map("test", 1 << 20, &fd, &map), 0);
    flags_of(map, flags, sizeof(flags));
    assert_non_null(strstr(flags, " wr "));
    assert_non_null(strstr(flags, " dd "));
    os_memfd_unmap(fd, map, 1 << 20);
}

static void test_memfd(void **state) {
    const uint64_t size = 1 << 20;
    uint8_t *p;
    void *map;
    int fd, ends[2];

    assert_int_equal(os_memfd_map("test", size, &fd, &map), 0);
    p = map;
    assert_int_equal(p[0] | p[size - 1], 0);
    memset(p, 0xa5, size);
    assert_int_equal(os_memfd_zero(fd, map, size), 0);
    for (uint64_t i = 0; i < size; i += 511)
        assert_int_equal(p[i], 0);
    /* What lies around it is not ours to touch. */
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], p + size - 1, 1), 1);
    assert_int_equal(write(ends[1], p - 1, 1), -1);
    assert_int_equal(errno, EFAULT);
    assert_int_equal(write(ends[1], p + size, 1), -1);
    assert_int_equal(errno, EFAULT);
    close(ends[0]);
    close(ends[1]);
    os_memfd_unmap(fd, map, size);
    assert_true(os_memfd_map("test", UINT64_MAX / 2, &fd, &map) < 0);
}

/* A limit for files is none for guest memory. */
static void test_memfd_limit(void **state) {
    const uint64_t size = 1 << 20;
    struct rlimit was, small;
    uint8_t *p;
    void *map;
    int fd, rc;

    assert_int_equal(os_ignore_file_limit(), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = (struct rlimit){.rlim_cur = 4096, .rlim_max = was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    rc = os_memfd_map("test", size, &fd, &map);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(rc, 0);
    assert_int_equal(fd, -1);
    p = map;
    memset(p, 0xa5, size);
    assert_int_equal(os_memfd_zero(fd, map, size), 0);
    for (uint64_t i = 0; i < size; i += 511)
        assert_int_equal(p[i], 0);
    os_memfd_unmap(fd, map, size);
}

/* What was there stays, whether the host has large pages or not. */
static void test_large_page(void **state) {
    const uint64_t size = 3 * OS_LARGE_PAGE;
    uint8_t *p;
    void *map;
    int fd, rc;

    assert_int_equal(os_memfd_map("test", size, &fd, &map), 0);
    p = map;
    assert_int_equal((uintptr_t)p % OS_LARGE_PAGE, 0);
    memset(p + OS_LARGE_PAGE + 8192, 0xa5, 4096);
    rc = os_large_page(p + OS_LARGE_PAGE);
    assert_true(rc <= 0);
    for (uint64_t i = 0; i < size; i++)
        assert_int_equal(p[i], i - OS_LARGE_PAGE - 8192 < 4096 ? 0xa5 : 0);
    /* One that is all hole is no exception. */
    assert_int_equal(os_large_page(p + 2 * OS_LARGE_PAGE) == 0, rc == 0);
    assert_int_equal(os_memfd_zero(fd, map, size), 0);
    assert_int_equal(p[OS_LARGE_PAGE + 8192], 0);
    os_memfd_unmap(fd, map, size);
}

/* None of it is there before it is touched. */
static void test_sparse(void **state) {
    const uint64_t size = 1ull << 32;
    uint8_t *p;
    void *map;

    assert_int_equal(os_sparse_alloc(size, &map), 0);
    p = map;
    for (uint64_t at = 0; at < size; at += size / 16) {
        assert_int_equal(p[at], 0);
        p[at] = 1;
    }
    os_sparse_free(map, size);
    os_sparse_free(NULL, size);
    assert_true(os_sparse_alloc(UINT64_MAX / 2, &map) < 0);
}

static void check_filled(void) {
    const size_t size = 16 * 4096, words = size / sizeof(uint64_t);
    const uint64_t word = 0x123456789abcdef0;
    void *piece[3];

    assert_int_equal(os_filled_alloc(word, size, 3, piece), 0);
    for (unsigned n = 0; n < 3; n++) {
        uint64_t *p = piece[n];

        for (size_t k = 0; k < words; k++) {
            assert_int_equal(p[k], word);
            p[k] = n;
        }
    }
    for (unsigned n = 0; n < 3; n++) {
        assert_int_equal(((uint64_t *)piece[n])[words - 1], n);
        os_filled_free(piece[n], size);
    }
    os_filled_free(NULL, size);
}

/* Each piece is its own, also where the host has no files of that size. */
static void test_filled(void **state) {
    struct rlimit was, small;

    check_filled();
    assert_int_equal(os_ignore_file_limit(), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = (struct rlimit){4096, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    check_filled();
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
}

static void test_large_code(void **state) {
    static const uint8_t return_42[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov eax, 42; ret */
    const size_t at = OS_LARGE_PAGE + 64;
    struct os_code code;
    int (*fn)(void);

    assert_int_equal(os_code_map(2 * OS_LARGE_PAGE, &code), 0);
    memcpy(code.rw + at, return_42, sizeof(return_42));
    os_code_large_page(&code, OS_LARGE_PAGE);
    fn = (int (*)(void))(uintptr_t)(code.rx + at);
    assert_int_equal(fn(), 42);
    code.rw[at + 1] = 43;
    assert_int_equal(fn(), 43);
    os_code_unmap(&code);
}

static void test_code(void **state) {
    static const uint8_t return_42[] = {0xb8, 42, 0, 0, 0, 0xc3}; /* mov eax, 42; ret */
    struct os_code code;
    int (*fn)(void);
    char maps[4096] = "";
    FILE *f;

    assert_int_equal(os_code_map(1 << 16, &code), 0);
    assert_true(code.rw != code.rx);
    memcpy(code.rw + 64, return_42, sizeof(return_42));
    fn = (int (*)(void))(uintptr_t)(code.rx + 64);
    assert_int_equal(fn(), 42);
    f = fopen("/proc/self/maps", "r");
    assert_non_null(f);
    while (fgets(maps, sizeof(maps), f)) /* W^X, everywhere */
        assert_null(strstr(maps, " rwx"));
    fclose(f);
    os_code_unmap(&code);
}

static bool skip_fault(void *arg, struct os_fault *f) {
    struct os_fault *out = arg;

    *out = *f;
    f->regs.gpr[0] = 77; /* rax */
    f->regs.rip += 2;    /* mov eax, [rdi] has two bytes */
    return true;
}

static void test_fault(void **state) {
    static const uint8_t load[] = {0x8b, 0x07, 0xc3}; /* mov eax, [rdi]; ret */
    struct os_fault seen = {0};
    struct os_code code;
    int (*fn)(const void *);
    void *hole = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const int value = 5;

    assert_int_equal(os_code_map(4096, &code), 0);
    memcpy(code.rw, load, sizeof(load));
    assert_int_equal(os_fault_range(code.rx, code.rx + 3, skip_fault, &seen), 0);
    fn = (int (*)(const void *))(uintptr_t)code.rx;
    assert_int_equal(fn(&value), 5);
    assert_int_equal(seen.signo, 0);
    assert_int_equal(fn((char *)hole + 8), 77);
    assert_int_equal(seen.signo, SIGSEGV);
    assert_int_equal(seen.trapno, 14);
    assert_int_equal(seen.error & 7, 4); /* a user-mode read of what is not present */
    assert_true(seen.addr == (uintptr_t)hole + 8);
    assert_true(seen.regs.rip == (uintptr_t)code.rx);
    munmap(hole, 4096);
    /* The code stays: its range cannot be taken back. */
}

/* --- log --- */

/* What FN writes to stderr. */
static size_t capture(void (*fn)(void), char *out, size_t size) {
    int fds[2], saved = dup(STDERR_FILENO);
    ssize_t n;

    assert_int_equal(pipe(fds), 0);
    dup2(fds[1], STDERR_FILENO);
    fn();
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(fds[1]);
    n = read(fds[0], out, size - 1);
    close(fds[0]);
    out[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static void say_all(void) {
    log_error("%s is %d", "one", 1);
    log_warn("two");
    log_info("three");
    log_debug("four");
}

static void say_long(void) {
    char text[4000];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    log_error("%s", text);
}

static void say_hostile(void) {
    log_error("cannot read '%s'", "a\nb\r\033[2J\177\t.\303\244");
}

static void test_log(void **state) {
    char out[8192], kept[64];
    size_t n;

    log_keep_error(kept, sizeof(kept));
    capture(say_hostile, out, sizeof(out));
    log_keep_error(NULL, 0);
    assert_string_equal(out, "bivisor: error: cannot read 'a?b??[2J?\t.\303\244'\n");
    assert_string_equal(kept, "cannot read 'a?b??[2J?\t.\303\244'");

    capture(say_all, out, sizeof(out));
    assert_string_equal(out, "bivisor: error: one is 1\nbivisor: warning: two\n");
    log_set_level(LOG_DEBUG);
    capture(say_all, out, sizeof(out));
    assert_string_equal(out, "bivisor: error: one is 1\nbivisor: warning: two\n"
                             "bivisor: three\nbivisor: debug: four\n");
    log_set_form(true, true, "");
    capture(say_all, out, sizeof(out));
    assert_non_null(strstr(out, "/base.c:"));
    assert_non_null(strstr(out, ": info: three\n"));
    log_set_form(false, false, "net/");
    assert_int_equal(capture(say_all, out, sizeof(out)), 0);
    log_set_form(false, false, NULL);
    log_set_level(LOG_OFF);
    assert_int_equal(capture(say_all, out, sizeof(out)), 0);
    log_set_level(LOG_WARN);
    n = capture(say_long, out, sizeof(out));
    assert_in_range(n, 900, 1024);
    assert_int_equal(out[n - 1], '\n');
    assert_ptr_equal(strchr(out, '\n'), out + n - 1);
}

static void test_log_levels(void **state) {
    static const struct {
        const char *name;
        enum log_level level;
    } good[] = {{"Off", LOG_OFF},
                {"ERROR", LOG_ERROR},
                {"Warning", LOG_WARN},
                {"info", LOG_INFO},
                {"Trace", LOG_DEBUG}};
    static const char *const bad[] = {"", "inf", "infos", "i", "all"};
    enum log_level level;

    for (size_t n = 0; n < ARRAY_SIZE(good); n++) {
        assert_true(log_level_of(good[n].name, &level));
        assert_int_equal(level, good[n].level);
    }
    for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
        assert_false(log_level_of(bad[n], &level));
}

/* --- stop signals --- */

static volatile int stopped_by;

static void note_stop(int signo) {
    stopped_by = signo;
}

/* In a child, since dispositions stay. */
static void test_stop_signals(void **state) {
    pid_t pid = fork();
    int status;

    if (!pid) {
        signal(SIGHUP, SIG_IGN);
        if (os_on_stop_signals(note_stop))
            _exit(1);
        raise(SIGHUP);
        if (stopped_by)
            _exit(2);
        raise(SIGTERM);
        if (stopped_by != SIGTERM)
            _exit(3);
        raise(SIGPIPE);
        poll(NULL, 0, 1100);
        raise(SIGINT); /* in vain for a second: now for good */
        _exit(4);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGINT);
}

static bool no_fault_of_ours(void *arg, struct os_fault *f) {
    return false;
}

static void report_nothing(int signo) {
}

/* Any handler may come amid translated code, whose stack pointer is the guest's. The
 * first signal that has one and does not leave that stack, or 0; -1: they cannot be
 * installed. */
static int handler_on_guest_stack(void) {
    int tty = posix_openpt(O_RDWR | O_NOCTTY), slave;
    struct sigaction act;
    bool is_tty;

    for (int signo = 1; signo <= 64; signo++)
        signal(signo, SIG_DFL); /* cmocka has some */
    if (tty < 0 || grantpt(tty) || unlockpt(tty))
        return -1;
    slave = open(ptsname(tty), O_RDWR | O_NOCTTY);
    if (os_tty_raw(slave, &is_tty) || !is_tty || os_on_stop_signals(note_stop) ||
        os_on_report_signal(report_nothing) || os_kick_init() ||
        os_fault_range(report_nothing, note_stop, no_fault_of_ours, NULL))
        return -1;
    os_tty_restore();
    for (int signo = 1; signo <= 64; signo++)
        if (!sigaction(signo, NULL, &act) && act.sa_handler != SIG_DFL &&
            act.sa_handler != SIG_IGN && !(act.sa_flags & SA_ONSTACK))
            return signo;
    return 0;
}

static void test_handlers(void **state) {
    pid_t pid = fork();
    int status;

    if (!pid)
        _exit(handler_on_guest_stack() & 0xff);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* In a process of its own, without cmocka's handlers. */
static int fault(void) {
    if (!os_fault_range(report_nothing, note_stop, no_fault_of_ours, NULL))
        __asm__ volatile("movb $1, 4080" : : : "memory");
    return 1;
}

/* A fault that is nobody's: a sentence, and the signal. */
static void test_own_fault(void **state) {
    char said[200] = "";
    int out[2], status;
    pid_t pid;

    assert_int_equal(pipe(out), 0);
    pid = fork();
    if (!pid) {
        dup2(out[1], STDERR_FILENO);
        execl("/proc/self/exe", "base", "fault", NULL);
        _exit(1);
    }
    close(out[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(read(out[0], said, sizeof(said) - 1) > 0);
    close(out[0]);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    assert_non_null(strstr(said, "bivisor: bug: signal 11 at 0x"));
    assert_non_null(strstr(said, "trap 14, address 0xff0\n"));
}

/* --- option values --- */

static void quiet(bool on) {
    static int saved = -1;
    int null;

    if (on) {
        saved = dup(STDERR_FILENO);
        null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        close(null);
    } else {
        dup2(saved, STDERR_FILENO);
        close(saved);
    }
}

static void test_sizes(void **state) {
    static const struct {
        const char *text;
        uint64_t size;
    } good[] = {{"0", 0},
                {"4096", 4096},
                {"64k", 64 << 10},
                {"512M", 512ull << 20},
                {"512MiB", 512ull << 20},
                {"512mb", 512ull << 20},
                {"2G", 2ull << 30},
                {"1T", 1ull << 40},
                {"16777215T", 16777215ull << 40},
                {"18446744073709551615", UINT64_MAX}};
    static const char *const bad[] = {"",
                                      "M",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1.5G",
                                      "0x10",
                                      "12Q",
                                      "1MM",
                                      "1iB",
                                      "1Mi",
                                      "1GiBs",
                                      "one",
                                      "16777216T",
                                      "18446744073709551616",
                                      "99999999999999999999G"};

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        uint64_t size = 1;

        assert_true(options_size("--memory", good[i].text, &size));
        assert_true(size == good[i].size);
    }
    quiet(true);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t size = 1;
        bool taken = options_size("--memory", bad[i], &size);

        if (taken || size != 1) {
            quiet(false);
            fail_msg("'%s' was taken", bad[i]);
        }
    }
    quiet(false);
}

static const char *const names[] = {"flush", "pcid", "trace"};
static bool choice_taken;

static void choose_badly(void) {
    size_t choice = 9;

    choice_taken = options_choice("--retention", "pci", names, 3, &choice) || choice != 9;
}

static void test_choice(void **state) {
    char out[512];
    size_t choice;

    assert_true(options_choice("--retention", "trace", names, 3, &choice));
    assert_int_equal(choice, 2);
    capture(choose_badly, out, sizeof(out));
    assert_false(choice_taken);
    assert_string_equal(
        out, "bivisor: error: --retention wants one of flush, pcid, trace, not 'pci'\n");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_monotonic),    cmocka_unit_test(test_realtime),
        cmocka_unit_test(test_tsc),          cmocka_unit_test(test_memfd),
        cmocka_unit_test(test_large_page),   cmocka_unit_test(test_code),
        cmocka_unit_test(test_large_code),   cmocka_unit_test(test_sparse),
        cmocka_unit_test(test_filled),       cmocka_unit_test(test_fault),
        cmocka_unit_test(test_log),          cmocka_unit_test(test_log_levels),
        cmocka_unit_test(test_stop_signals), cmocka_unit_test(test_handlers),
        cmocka_unit_test(test_own_fault),    cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_choice),       cmocka_unit_test(test_memfd_limit),
        cmocka_unit_test(test_no_dump),
    };

    if (argc > 1)
        return fault();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
