/*
 * Log lines. A line is formatted on the stack and written with one write(2), so that
 * lines of two threads do not mix.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/os.h"

static enum log_level threshold = LOG_WARN;

static char *kept;
static size_t kept_size;

void log_keep_error(char *text, size_t size) {
    kept = text;
    kept_size = size;
}

void log_set_level(enum log_level level) {
    threshold = level;
}

void log_line(enum log_level level, const char *fmt, ...) {
    static const char *const tag[] = {"error: ", "warning: ", "", "debug: "};
    char buf[1024];
    size_t room = sizeof(buf) - 3;
    size_t len;
    va_list ap;
    int n;

    if (level == LOG_ERROR && kept) {
        va_start(ap, fmt);
        vsnprintf(kept, kept_size, fmt, ap);
        va_end(ap);
    }
    if (level > threshold)
        return;
    n = snprintf(buf, room, "bivisor: %s", tag[level]);
    len = n < 0 ? 0 : (size_t)n;
    va_start(ap, fmt);
    n = vsnprintf(buf + len, room - len, fmt, ap);
    va_end(ap);
    if (n > 0)
        len += (size_t)n < room - len ? (size_t)n : room - len - 1;
    if (os_tty_is_raw() && isatty(STDERR_FILENO))
        buf[len++] = '\r';
    buf[len++] = '\n';
    if (write(STDERR_FILENO, buf, len) < 0)
        return; /* nowhere left to complain */
}
