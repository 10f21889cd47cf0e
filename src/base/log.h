/*
 * Log lines on stderr. What is printed, and how, is the project's only mutable global.
 * Lines end with "\r\n" on a terminal that is raw; callers write no newline.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum log_level { LOG_OFF = -1, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* What is at or below LEVEL is printed. The default is LOG_WARN. */
void log_set_level(enum log_level level);
/* error, warning, info, debug (or trace) and off, in any case, are a level. False: NAME
 * is none. */
bool log_level_of(const char *name, enum log_level *level);
/* LEVELS: each line tells its level, those of LOG_INFO too. ORIGINS: and the place in the
 * source that it comes from. MODULE: only lines of source files whose path begins so,
 * such as "net" or "api/mmds" (what ends with NULL or "" are all of them); the caller's,
 * it must stay. */
void log_set_form(bool levels, bool origins, const char *module);
/* The last error's sentence goes to TEXT, too; NULL: no more. For who passes on what went
 * wrong. */
void log_keep_error(char *text, size_t size);

/* printf-like; one line. */
void log_line_at(const char *file, int line, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

#define log_line(level, ...) log_line_at(__FILE__, __LINE__, level, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
