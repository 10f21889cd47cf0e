/*
 * Log lines on stderr. The level is the project's only mutable global.
 * Lines end with "\r\n" on a terminal that is raw; callers write no newline.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stddef.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* What is at or below LEVEL is printed. The default is LOG_WARN. */
/* The last error's sentence goes to TEXT, too; NULL: no more. For who passes on what went
 * wrong. */
void log_keep_error(char *text, size_t size);
void log_set_level(enum log_level level);

/* printf-like; one line. */
void log_line(enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

#endif
