/*
 * `bivisor qemu`, and bivisor under QEMU's name: QEMU's command line becomes that of
 * `bivisor run` (qemu/), which is run with QEMU's exit statuses: 1 for whatever goes
 * wrong, isa-debug-exit's, and else 0.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/ctl.h"
#include "qemu/qemu.h"

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

static bool on_ready(void *arg) {
    const struct qemu_line *line = arg;

    return !line->pidfile || write_pid(line->pidfile);
}

static int run(struct qemu_line *line) {
    const struct ctl_front how = {.qemu = true,
                                  .ready = on_ready,
                                  .arg = line,
                                  .daemonize = line->daemonize,
                                  .paused = line->paused};

    return ctl_run((int)line->run_count, line->run, &how);
}

int ctl_cmd_qemu(int argc, char **argv) {
    struct qemu_line line;
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
        status = run(&line);
    qemu_line_free(&line);
    return status;
}
