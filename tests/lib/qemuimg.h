/* qemu-img, the other opinion about images. */
#ifndef LIB_QEMUIMG_H
#define LIB_QEMUIMG_H

#include <stdbool.h>

/* A group's set-up: a directory of its own (lib/scratch.h), and qemu-img is there. Else
 * the test says that it needs qemu-utils and fails. */
int qemu_img_enter(void **state);
/* `qemu-img FORMAT...`: its exit status; what it says goes to *SAID (static), if that is
 * wanted. */
int qemu_img(const char **said, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Asserts that it ends with 0. */
#define qemu_img_good(...)                                                               \
    do {                                                                                 \
        const char *said_;                                                               \
        if (qemu_img(&said_, __VA_ARGS__))                                               \
            fail_msg("qemu-img: %s", said_);                                             \
    } while (0)

#endif
