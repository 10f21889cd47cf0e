/*
 * `bivisor qemu`, and bivisor under QEMU's name: QEMU's command line becomes that of
 * `bivisor run` (qemu/), which is run with QEMU's exit statuses: 1 for whatever goes
 * wrong, isa-debug-exit's, and else 0.
 *
 * -daemonize: the process that was started waits until the one that it makes tells that
 * all is open and the guest is about to run, or ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/ctl.h"
#include "qemu/qemu.h"

struct front {
    const struct qemu_line *line;
    int ready_fd; /* -1: nobody waits */
};

/* A shell would take it as it is. */
static bool is_plain(const char *word) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789-_=+:,./@%";

    return *word && strspn(word, plain) == strlen(word);
}

static void print_word(const char *word) {
    if (is_plain(word)) {
        printf("%s", word);
        return;
    }
    putchar('\'');
    for (; *word; word++)
        if (*word == '\'')
            printf("'\\''");
        else
            putchar(*word);
    putchar('\'');
}

static void print_line(const struct qemu_line *line) {
    printf("bivisor");
    for (size_t n = 0; n < line->run_count; n++) {
        putchar(' ');
        print_word(line->run[n]);
    }
    putchar('\n');
}

/* --- when all is open --- */

static bool write_pid(const char *path) {
    FILE *f = fopen(path, "we");
    bool good = f && fprintf(f, "%ld\n", (long)getpid()) > 0;

    if (f && fclose(f))
        good = false;
    if (!good)
        log_error("-pidfile: cannot write '%s': %s", path, strerror(errno));
    return good;
}

/* The terminal is somebody else's from now on. */
static void leave_terminal(void) {
    int fd = open("/dev/null", O_RDWR);

    for (int to = STDIN_FILENO; fd >= 0 && to <= STDERR_FILENO; to++)
        dup2(fd, to);
    if (fd > STDERR_FILENO)
        close(fd);
}

static bool on_ready(void *arg) {
    struct front *f = arg;

    if (f->line->pidfile && !write_pid(f->line->pidfile))
        return false;
    if (f->ready_fd < 0)
        return true;
    if (write(f->ready_fd, "", 1) != 1)
        return false; /* nobody waits any more */
    close(f->ready_fd);
    f->ready_fd = -1;
    leave_terminal();
    return true;
}

/* --- running --- */

static int run(struct front *f) {
    const struct ctl_qemu how = {.ready = on_ready, .arg = f};

    return ctl_run((int)f->line->run_count, f->line->run, &how);
}

/* The child's status, if it ends before it is ready. */
static int wait_ready(pid_t child, int fd) {
    char byte;
    ssize_t n;
    int status;

    do
        n = read(fd, &byte, 1);
    while (n < 0 && errno == EINTR);
    if (n == 1)
        return CTL_OK;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) ? WEXITSTATUS(status)
                                                    : CTL_HOST_FAILURE;
}

static int run_behind(struct front *f) {
    int fds[2], status;
    pid_t child;

    if (pipe2(fds, O_CLOEXEC) || (child = fork()) < 0) {
        log_error("-daemonize: %s", strerror(errno));
        return CTL_HOST_FAILURE;
    }
    if (child) {
        close(fds[1]);
        return wait_ready(child, fds[0]);
    }
    close(fds[0]);
    setsid();
    f->ready_fd = fds[1];
    status = run(f);
    if (f->ready_fd >= 0)
        close(f->ready_fd);
    return status;
}

int ctl_cmd_qemu(int argc, char **argv) {
    struct qemu_line line;
    struct front f = {.line = &line, .ready_fd = -1};
    char why[512];
    int status = CTL_OK;

    if (qemu_translate(argc, argv, &line, why, sizeof(why))) {
        log_error("qemu: %s", why);
        qemu_line_free(&line);
        return CTL_HOST_FAILURE;
    }
    for (size_t n = 0; n < line.note_count; n++)
        fprintf(stderr, "bivisor: qemu: %s\n", line.notes[n]);
    if (line.text)
        printf("%s", line.text);
    else if (line.print)
        print_line(&line);
    else
        status = line.daemonize ? run_behind(&f) : run(&f);
    qemu_line_free(&line);
    return status;
}
