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

static struct {
    enum log_level threshold;
    bool levels, origins;
    const char *module;
} form = {.threshold = LOG_WARN};

static char *kept;
static size_t kept_size;

void log_keep_error(char *text, size_t size) {
    kept = text;
    kept_size = size;
}

void log_set_level(enum log_level level) {
    form.threshold = level;
}

/* Letters are the same in either case; WORD has no others. */
static bool is_word(const char *name, const char *word) {
    while (*word && (*name | 0x20) == *word) {
        name++;
        word++;
    }
    return !*word && !*name;
}

bool log_level_of(const char *name, enum log_level *level) {
    static const struct {
        const char *name;
        enum log_level level;
    } names[] = {{"off", LOG_OFF},   {"error", LOG_ERROR}, {"warning", LOG_WARN},
                 {"info", LOG_INFO}, {"debug", LOG_DEBUG}, {"trace", LOG_DEBUG}};

    for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
        if (is_word(name, names[n].name)) {
            *level = names[n].level;
            return true;
        }
    return false;
}

void log_set_form(bool levels, bool origins, const char *module) {
    form.levels = levels;
    form.origins = origins;
    form.module = module;
}

/* FILE without what is the same of all. */
static const char *path_of(const char *file) {
    const char *src = strstr(file, "src/");

    return src ? src + 4 : file;
}

static bool is_wanted(const char *file, enum log_level level) {
    return level <= form.threshold &&
           (!form.module || !strncmp(path_of(file), form.module, strlen(form.module)));
}

/* What stands before the text: its length. */
static size_t put_head(char *buf, size_t room, const char *file, int line,
                       enum log_level level) {
    static const char *const tag[] = {"error: ", "warning: ", "", "debug: "};
    const char *own = level == LOG_INFO && form.levels ? "info: " : tag[level];
    int n = form.origins
                ? snprintf(buf, room, "bivisor: %s:%d: %s", path_of(file), line, own)
                : snprintf(buf, room, "bivisor: %s", own);

    return n < 0 ? 0 : (size_t)n < room ? (size_t)n : room - 1;
}

/* A line stays one, and a terminal what it is, whatever stands in a name that comes from
 * a file or from a guest. */
static void make_plain(char *text) {
    for (; *text; text++)
        if (((uint8_t)*text < ' ' && *text != '\t') || *text == 0x7f)
            *text = '?';
}

void log_line_at(const char *file, int line, enum log_level level, const char *fmt, ...) {
    char buf[1024];
    size_t room = sizeof(buf) - 3;
    size_t len;
    va_list ap;
    int n;

    if (level == LOG_ERROR && kept) {
        va_start(ap, fmt);
        vsnprintf(kept, kept_size, fmt, ap);
        va_end(ap);
        make_plain(kept);
    }
    if (!is_wanted(file, level))
        return;
    len = put_head(buf, room, file, line, level);
    va_start(ap, fmt);
    n = vsnprintf(buf + len, room - len, fmt, ap);
    va_end(ap);
    if (n > 0) {
        make_plain(buf + len);
        len += (size_t)n < room - len ? (size_t)n : room - len - 1;
    }
    if (os_tty_is_raw() && isatty(STDERR_FILENO))
        buf[len++] = '\r';
    buf[len++] = '\n';
    if (write(STDERR_FILENO, buf, len) < 0)
        return; /* nowhere left to complain */
}
