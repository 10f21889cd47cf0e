#include "lib/qemuimg.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>

#include "lib/scratch.h"
#include "lib/unit.h"

int qemu_img(const char **said, const char *fmt, ...) {
    static char text[8192];
    char command[4096] = "qemu-img ";
    size_t len = strlen(command), got;
    int status;
    va_list ap;
    FILE *f;

    va_start(ap, fmt);
    vsnprintf(command + len, sizeof(command) - len - 16, fmt, ap);
    va_end(ap);
    strcat(command, " 2>&1");
    f = popen(command, "r");
    assert_non_null(f);
    got = fread(text, 1, sizeof(text) - 1, f);
    text[got] = 0;
    status = pclose(f);
    if (said)
        *said = text;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

int qemu_img_enter(void **state) {
    if (qemu_img(NULL, "--version"))
        fail_msg("qemu-img is missing: install qemu-utils (tools/deps check does)");
    return scratch_enter(state);
}
