/*
 * QEMU's command line in bivisor's words: what people, scripts and tools write for
 * qemu-system-x86_64 becomes the arguments of `bivisor run`. This room makes text of
 * text; it opens no file but to see whether a disk image without a format is qcow2, and
 * knows no machine.
 *
 * What QEMU is asked for is one of: done; of no consequence here, and dropped; different
 * here, and then said in a note; or impossible, and then refused in one sentence that
 * names the option.
 */
#ifndef QEMU_QEMU_H
#define QEMU_QEMU_H

#include "base/types.h"

struct qemu;

struct qemu_line {
    char **run; /* "run", its options, and a NULL */
    size_t run_count;
    const char *const *notes; /* a sentence each */
    size_t note_count;
    bool print;           /* --print: the line is shown, and nothing is run */
    const char *text;     /* not NULL: asked for this text, and nothing else */
    bool daemonize;       /* it goes to the background once it runs */
    bool paused;          /* the guest waits for the monitor's or QMP's `cont` */
    const char *pidfile;  /* NULL: none */
    struct qemu *storage; /* what all of it points into */
};

/* ARGV[1] up to ARGV[ARGC - 1] are QEMU's arguments. ARGV must outlive OUT. 0, -EINVAL or
 * -ENOMEM with one sentence in WHY. */
int qemu_translate(int argc, char **argv, struct qemu_line *out, char *why,
                   size_t why_size);
void qemu_line_free(struct qemu_line *line);

/* NAME, which may have directories, is QEMU's for a PC. */
bool qemu_is_name(const char *name);

#endif
