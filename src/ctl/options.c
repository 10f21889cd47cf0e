/* Option values; see options.h. */
#include "ctl/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/rate.h"
#include "base/text.h"

static int suffix_shift(const char *s) {
    static const char letters[] = "KMGT";
    const char *at;

    if (!*s)
        return 0;
    at = strchr(letters, toupper((unsigned char)*s));
    if (!at)
        return -1;
    s++;
    if (*s == 'i' && toupper((unsigned char)s[1]) == 'B')
        s += 2;
    else if (toupper((unsigned char)*s) == 'B')
        s++;
    return *s ? -1 : (int)(at - letters + 1) * 10;
}

bool options_size(const char *option, const char *text, uint64_t *out) {
    char *end;
    unsigned long long n;
    int shift;

    errno = 0;
    n = strtoull(text, &end, 10);
    shift = suffix_shift(end);
    if (!isdigit((unsigned char)text[0]) || shift < 0) {
        log_error("%s wants a size such as 512M or 2G, not '%s'", option, text);
        return false;
    }
    if (errno || n > (UINT64_MAX >> shift)) {
        log_error("%s %s is more than can be addressed", option, text);
        return false;
    }
    *out = (uint64_t)n << shift;
    return true;
}

/* A part of a rate; from 1 to 2^53, which JSON has room for. */
static bool take_amount(const char *option, const char *text, bool bytes, uint64_t *out) {
    unsigned n = 0;

    if (bytes ? !options_size(option, text, out)
              : !options_number(option, text, 1, UINT32_MAX, &n))
        return false;
    *out = bytes ? *out : n;
    if (*out && *out <= 1ull << 53)
        return true;
    log_error("%s wants more than nothing, and at most 8192T, not '%s'", option, text);
    return false;
}

bool options_rate(const char *option, const char *text, bool bytes,
                  struct rate_limit *out) {
    const char *colon = strchr(text, ':');
    char first[32];
    uint64_t burst;

    snprintf(first, sizeof(first), "%.*s", colon ? (int)(colon - text) : 31, text);
    *out = (struct rate_limit){.per_ns = 1000000000u, .fill_ns = 100000000u};
    if (!take_amount(option, first, bytes, &out->amount))
        return false;
    if (!colon)
        return true;
    if (!take_amount(option, colon + 1, bytes, &burst))
        return false;
    out->fill_ns = rate_fill_ns(out, burst);
    return true;
}

bool options_number(const char *option, const char *text, unsigned least, unsigned most,
                    unsigned *out) {
    char *end;
    unsigned long n;

    errno = 0;
    n = strtoul(text, &end, 10);
    *out = (unsigned)n;
    if (!errno && isdigit((unsigned char)*text) && !*end && n >= least && n <= most)
        return true;
    log_error("%s wants a number from %u to %u, not '%s'", option, least, most, text);
    return false;
}

bool options_choice(const char *option, const char *text, const char *const *names,
                    size_t count, size_t *out) {
    char list[256] = "";
    size_t len = 0;

    for (size_t i = 0; i < count; i++) {
        if (!strcmp(text, names[i])) {
            *out = i;
            return true;
        }
        len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", i ? ", " : "",
                                names[i]);
        if (len >= sizeof(list))
            len = sizeof(list) - 1;
    }
    log_error("%s wants one of %s, not '%s'", option, list, text);
    return false;
}

char *options_cut(char *text) {
    return text_cut(text);
}

bool options_percent(const char *option, const char *text, unsigned most, unsigned *out) {
    char *rest;
    unsigned long n = strtoul(text, &rest, 10);

    *out = (unsigned)n;
    if (isdigit((unsigned char)*text) && (!*rest || !strcmp(rest, "%")) && n >= 1 &&
        n <= most)
        return true;
    log_error("%s wants a number of percent from 1 to %u, not '%s'", option, most, text);
    return false;
}

bool options_log_level(const char *text) {
    enum log_level level;

    if (!log_level_of(text, &level)) {
        log_error("--log-level wants off, error, warning, info or debug, not '%s'", text);
        return false;
    }
    log_set_level(level);
    return true;
}
