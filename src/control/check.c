/*
 * A look at a line before it is parsed: everything that the parser would take, or take
 * otherwise than the client may have meant. It recurses as deeply as its input is nested,
 * stops at a zero byte, and copies what is no UTF-8.
 */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "control/control_int.h"

#define DEPTH_MAX 16

static const char *check_characters(const uint8_t *p, size_t len) {
    size_t n;

    for (size_t at = 0; at < len; at += n) {
        n = text_character(p + at, len - at);
        if (!n)
            return "the line is not UTF-8";
        if (p[at] < ' ' && p[at] != '\t' && p[at] != '\r')
            return "the line has a control character in it";
    }
    return NULL;
}

/* The text that begins behind P's quote ends at the byte that *AT is moved to. */
static const char *check_text(const char *p, size_t len, size_t *at) {
    size_t n = *at + 1;

    for (; n < len && p[n] != '"'; n++) {
        if (p[n] != '\\')
            continue;
        n++;
        if (len - n >= 5 && !memcmp(p + n, "u0000", 5))
            return "a text has a zero byte in it";
    }
    *at = n;
    return NULL;
}

const char *control_check(const char *line, size_t len) {
    const char *why = check_characters((const uint8_t *)line, len);
    unsigned depth = 0;

    for (size_t at = 0; at < len && !why; at++) {
        if (line[at] == '"')
            why = check_text(line, len, &at);
        else if (line[at] == '{' || line[at] == '[')
            why = ++depth > DEPTH_MAX ? "the line is nested too deeply" : NULL;
        else if ((line[at] == '}' || line[at] == ']') && depth)
            depth--;
    }
    return why;
}

char *check_make_text(const char *bytes, size_t len) {
    static const char none[3] = "\xef\xbf\xbd";
    char *text = malloc(sizeof(none) * len + 1), *to = text;
    size_t n;

    for (size_t at = 0; text && at < len; at += n ? n : 1) {
        n = bytes[at] ? text_character((const uint8_t *)bytes + at, len - at) : 0;
        memcpy(to, n ? bytes + at : none, n ? n : sizeof(none));
        to += n ? n : sizeof(none);
    }
    if (text)
        *to = 0;
    return text;
}
