/* HTTP's requests and answers; see http.h. */
#include "api/http.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct head {
    struct http_request *q;
    size_t most; /* bytes of the body */
    bool old;    /* HTTP/1.0 */
    bool counted;
    const char *why;
    int status;
};

static bool bad(struct head *h, int status, const char *why) {
    if (!h->why) {
        h->why = why;
        h->status = status;
    }
    return false;
}

/* The end of the line at P, which ends with CR LF; NULL: there is none. */
static const char *line_end(const char *p, const char *end) {
    for (; p + 1 < end; p++)
        if (p[0] == '\r' && p[1] == '\n')
            return p;
    return NULL;
}

/* Copies LEN bytes that fit. */
static bool copy(char *to, size_t size, const char *from, size_t len) {
    if (!len || len >= size)
        return false;
    memcpy(to, from, len);
    to[len] = 0;
    return true;
}

static bool is_plain(const char *p, size_t len) {
    for (size_t n = 0; n < len; n++)
        if ((unsigned char)p[n] <= ' ' || (unsigned char)p[n] >= 0x7f)
            return false;
    return true;
}

/* METHOD SP TARGET SP VERSION, of which what is behind a '?' is dropped. */
static bool take_request_line(struct head *h, const char *p, size_t len) {
    const char *first = memchr(p, ' ', len), *second, *query, *end = p + len;
    size_t method, target;

    second = first ? memchr(first + 1, ' ', (size_t)(end - first - 1)) : NULL;
    if (!second || end - second != 9)
        return bad(h, 400, "the request line is no METHOD PATH HTTP/1.1");
    method = (size_t)(first - p);
    target = (size_t)(second - first - 1);
    query = memchr(first + 1, '?', target);
    if (query)
        target = (size_t)(query - first - 1);
    if (memcmp(second + 1, "HTTP/1.", 7) != 0 || (second[8] != '0' && second[8] != '1'))
        return bad(h, 505, "the version of HTTP is neither 1.0 nor 1.1");
    h->old = second[8] == '0';
    if (!is_plain(p, method) || !copy(h->q->method, sizeof(h->q->method), p, method))
        return bad(h, 400, "there is no such method");
    if (!is_plain(first + 1, target) || first[1] != '/' ||
        !copy(h->q->path, sizeof(h->q->path), first + 1, target))
        return bad(h, 400, "the path is too long, or none");
    return true;
}

static bool is_called(const char *p, size_t len, const char *name) {
    return len == strlen(name) && !strncasecmp(p, name, len);
}

static bool take_length(struct head *h, const char *p, size_t len) {
    size_t n = 0;

    if (!len || len > 9)
        return bad(h, len ? 413 : 400, "the length of the body is none");
    for (size_t k = 0; k < len; k++) {
        if (!isdigit((unsigned char)p[k]))
            return bad(h, 400, "the length of the body is none");
        n = n * 10 + (size_t)(p[k] - '0');
    }
    if (n > h->most)
        return bad(h, 413, "the body is too long");
    if (h->counted && n != h->q->body_len)
        return bad(h, 400, "the body has two lengths");
    h->counted = true;
    h->q->body_len = n;
    return true;
}

/* The line of *LEN bytes at P is NAME: VALUE, of which *LEN are in VALUE: the length of
 * the name; 0: it is not. */
static size_t split_field(const char *p, const char **value, size_t *len) {
    const char *colon = memchr(p, ':', *len), *v, *end = p + *len;

    if (!colon || !is_plain(p, (size_t)(colon - p)))
        return 0;
    for (v = colon + 1; v < end && (*v == ' ' || *v == '\t'); v++)
        ;
    while (end > v && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *value = v;
    *len = (size_t)(end - v);
    return (size_t)(colon - p);
}

/* Others than these are nobody's business. */
static bool take_field(struct head *h, const char *p, size_t len) {
    const char *value;
    size_t name = split_field(p, &value, &len);

    if (!name)
        return bad(h, 400, "a header's line is no NAME: VALUE");
    if (is_called(p, name, "content-length"))
        return take_length(h, value, len);
    if (is_called(p, name, "transfer-encoding"))
        return bad(h, 501,
                   "a body in chunks is not understood: Content-Length is wanted");
    if (is_called(p, name, "expect"))
        h->q->expects = is_called(value, len, "100-continue");
    if (is_called(p, name, "connection"))
        h->q->keep = is_called(value, len, "close")        ? false
                     : is_called(value, len, "keep-alive") ? true
                                                           : h->q->keep;
    return true;
}

static bool take_head(struct head *h, const char *p, const char *end) {
    bool first = true;

    for (const char *e; p < end; p = e + 2, first = false) {
        e = line_end(p, end);
        if (!e)
            return bad(h, 400, "a line has no end");
        for (const char *c = p; c < e; c++)
            if ((unsigned char)*c < ' ' && *c != '\t')
                return bad(h, 400, "the head has a control character in it");
        if (first ? !take_request_line(h, p, (size_t)(e - p))
                  : !take_field(h, p, (size_t)(e - p)))
            return false;
        if (first) {
            h->q->keep = !h->old;
            h->q->fields = e + 2;
            h->q->fields_len = (size_t)(end - e - 2);
        }
    }
    return true;
}

enum http_state http_parse(const char *buf, size_t len, size_t most,
                           struct http_request *q, const char **why, int *status) {
    size_t head = len < HTTP_HEAD_MAX ? len : HTTP_HEAD_MAX;
    const char *end = memmem(buf, head, "\r\n\r\n", 4);
    struct head h = {.q = q, .most = most};

    *q = (struct http_request){.size = 0};
    if (!end && len < HTTP_HEAD_MAX)
        return HTTP_MORE;
    if (!end)
        bad(&h, 431, "the head is longer than 8192 bytes");
    else
        take_head(&h, buf, end + 2);
    if (h.why) {
        *why = h.why;
        *status = h.status;
        return HTTP_BAD;
    }
    q->body = end + 4;
    q->size = (size_t)(end + 4 - buf) + q->body_len;
    return q->size <= len ? HTTP_WHOLE : HTTP_MORE;
}

static const char *reason(int status) {
    switch (status) {
    case 200:
        return "OK";
    case 204:
        return "No Content";
    case 400:
        return "Bad Request";
    case 401:
        return "Unauthorized";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 413:
        return "Content Too Large";
    case 431:
        return "Request Header Fields Too Large";
    case 501:
        return "Not Implemented";
    case 503:
        return "Service Unavailable";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Internal Server Error";
    }
}

bool http_field(const struct http_request *q, const char *name, char *value,
                size_t size) {
    const char *p = q->fields, *end = p + q->fields_len, *e, *text;

    for (; p < end; p = e + 2) {
        size_t len, called;

        e = line_end(p, end);
        len = (size_t)(e - p);
        called = split_field(p, &text, &len);
        if (!is_called(p, called, name))
            continue;
        value[0] = 0;
        return len < size && (!len || copy(value, size, text, len));
    }
    return false;
}

size_t http_head(char *out, size_t size, int status, const char *type, size_t len,
                 const char *more, bool keep) {
    int n;

    if (status == 204)
        n = snprintf(out, size, "HTTP/1.1 204 No Content\r\nServer: bivisor\r\n%s\r\n",
                     keep ? "Connection: keep-alive\r\n" : "Connection: close\r\n");
    else
        n = snprintf(out, size,
                     "HTTP/1.1 %d %s\r\nServer: bivisor\r\nConnection: %s\r\n"
                     "Content-Type: %s\r\nContent-Length: %zu\r\n%s\r\n",
                     status, reason(status), keep ? "keep-alive" : "close", type, len,
                     more);
    return n > 0 && (size_t)n < size ? (size_t)n : 0;
}
