/*
 * Requests and answers of HTTP/1.1 (RFC 9112, "HTTP/1.1") as an API's clients on this
 * host need them: a head of bounded length, a body whose length is told, answers with a
 * length. No chunks, no pipelining of more than the buffer holds, no ranges, no
 * encodings.
 *
 * What comes is hostile: a request is looked at from a buffer, as often as more of it has
 * come, and nothing is believed that was not counted.
 */
#ifndef API_HTTP_H
#define API_HTTP_H

#include "base/types.h"

#define HTTP_HEAD_MAX 8192u
#define HTTP_BODY_MAX 51200u /* where nothing else is said */
#define HTTP_PATH_MAX 256u

struct http_request {
    char method[8], path[HTTP_PATH_MAX];
    const char *fields; /* lines of the head, in the buffer */
    size_t fields_len;
    const char *body; /* in the buffer */
    size_t body_len;
    size_t size;  /* of all of it */
    bool keep;    /* the client stays */
    bool expects; /* it waits for a word before it sends the body */
};

enum http_state {
    HTTP_MORE, /* is to come; `expects` and `size` are known when SIZE is not 0 */
    HTTP_WHOLE,
    HTTP_BAD, /* and nothing that follows can be read */
};

/* Looks at the LEN bytes that have come, of a request whose body has MOST at most. BAD:
 * *WHY is one sentence, *STATUS what is to be answered. */
enum http_state http_parse(const char *buf, size_t len, size_t most,
                           struct http_request *q, const char **why, int *status);
/* The value of the field NAME of a whole request, which is a text in VALUE then. False:
 * there is none, or it is longer. */
bool http_field(const struct http_request *q, const char *name, char *value, size_t size);
/* The head of an answer with LEN bytes of TYPE behind it, in OUT: its length. MORE are
 * fields, lines with their ends. */
size_t http_head(char *out, size_t size, int status, const char *type, size_t len,
                 const char *more, bool keep);

#endif
