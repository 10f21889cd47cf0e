/* Parsers, automata, compression: bytes in, decisions all the way. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loops.h"

/* --- JSON into a tree --- */

struct json {
    struct json *next, *child;
    double number;
    const char *text;
    uint32_t len;
    char type;
};

struct parser {
    const char *at;
    struct json *pool;
    unsigned used;
};

static void blank(struct parser *p) {
    while (*p->at == ' ' || *p->at == '\n')
        p->at++;
}

static struct json *value(struct parser *p);

static struct json *string(struct parser *p) {
    struct json *j = &p->pool[p->used++];

    *j = (struct json){.type = 's', .text = ++p->at};
    while (*p->at != '"')
        p->at += *p->at == '\\' ? 2 : 1;
    j->len = (uint32_t)(p->at++ - j->text);
    return j;
}

static struct json *number(struct parser *p) {
    struct json *j = &p->pool[p->used++];
    double v = 0, scale = 1;
    int minus = *p->at == '-';

    for (p->at += minus; *p->at >= '0' && *p->at <= '9'; p->at++)
        v = v * 10 + (*p->at - '0');
    if (*p->at == '.')
        for (p->at++; *p->at >= '0' && *p->at <= '9'; p->at++)
            v += (*p->at - '0') * (scale /= 10);
    *j = (struct json){.type = 'n', .number = minus ? -v : v};
    return j;
}

static struct json *group(struct parser *p, char type, char end) {
    struct json *j = &p->pool[p->used++], **last = &j->child;

    *j = (struct json){.type = type};
    p->at++;
    for (blank(p); *p->at != end; blank(p)) {
        struct json *c;

        if (type == '{') {
            c = string(p);
            blank(p);
            p->at++; /* : */
            blank(p);
            c->child = value(p);
        } else {
            c = value(p);
        }
        *last = c;
        last = &c->next;
        blank(p);
        if (*p->at == ',')
            p->at++;
    }
    p->at++;
    return j;
}

static struct json *value(struct parser *p) {
    switch (*p->at) {
    case '{':
        return group(p, '{', '}');
    case '[':
        return group(p, '[', ']');
    case '"':
        return string(p);
    case 't':
    case 'n':
        p->at += 4;
        return &p->pool[p->used++];
    case 'f':
        p->at += 5;
        return &p->pool[p->used++];
    default:
        return number(p);
    }
}

static uint64_t count(const struct json *j) {
    uint64_t n = 0;

    for (; j; j = j->next)
        n += 1 + j->len + (uint64_t)(j->number > 0 ? j->number : 0) + count(j->child);
    return n;
}

static uint64_t parse_json(void) {
    static char text[64 << 10];
    static struct json pool[16 << 10];
    struct parser p = {.at = text, .pool = pool};
    char *to = text;

    if (!*text) {
        to += sprintf(to, "[");
        for (int i = 0; i < 400; i++)
            to += sprintf(to,
                          "%s {\"id\": %d, \"name\": \"n\\\"%d\", \"tags\": [1.25, -%d, "
                          "true, null],\n \"at\": {\"x\": %d.5, \"y\": false}}",
                          i ? "," : "", i, i * 7, i, i * 3);
        sprintf(to, "]");
    }
    return count(value(&p));
}

/* --- an expression grammar with variables, by recursive descent --- */

static int64_t sum_of(const char **s);

static int64_t factor(const char **s) {
    int64_t v = 0;

    if (**s == '(') {
        ++*s;
        v = sum_of(s);
        ++*s;
        return v;
    }
    if (**s == '-') {
        ++*s;
        return -factor(s);
    }
    while (**s >= '0' && **s <= '9')
        v = v * 10 + *(*s)++ - '0';
    return v;
}

static int64_t product(const char **s) {
    int64_t v = factor(s);

    while (**s == '*' || **s == '%') {
        char op = *(*s)++;
        int64_t f = factor(s);

        v = op == '*' ? (v * f) & 0xffffff : v % (f ? f : 1);
    }
    return v;
}

static int64_t sum_of(const char **s) {
    int64_t v = product(s);

    while (**s == '+' || **s == '-')
        v = *(*s)++ == '+' ? v + product(s) : v - product(s);
    return v;
}

static uint64_t expressions(void) {
    static const char text[] = "(12+3*(45-6%4)*-7)%1001+88*(9+(10-3)*2)-((((5))))*2";
    uint64_t sum = 0;

    for (int i = 0; i < 500; i++) {
        const char *s = text;

        sum += (uint64_t)sum_of(&s) + (uint64_t)i;
    }
    return sum;
}

/* --- a pattern matcher that backtracks: . * ? + classes --- */

static int here(const char *re, const char *s);

static int one(const char *re, char c) {
    return c && (*re == '.' || (*re == '#' && c >= '0' && c <= '9') || *re == c);
}

static int here(const char *re, const char *s) {
    if (!*re)
        return 1;
    if (re[1] == '*' || re[1] == '+') {
        const char *t = s;

        while (one(re, *t))
            t++;
        for (const char *least = s + (re[1] == '+'); t >= least; t--)
            if (here(re + 2, t))
                return 1;
        return 0;
    }
    if (re[1] == '?')
        return (one(re, *s) && here(re + 2, s + 1)) || here(re + 2, s);
    return one(re, *s) && here(re + 1, s + 1);
}

static uint64_t patterns(void) {
    static const char *const re[] = {"a.*b#+c", "x?y*z+", "#+-#+-#+", "lo.*ip.*am"};
    static const char text[] =
        "lorem ipsum 12-34-56 dolor aab77c sit amet yyzz 1-2-3 ab12d";
    uint64_t hits = 0;

    for (int i = 0; i < 40; i++)
        for (int k = 0; k < 4; k++)
            for (const char *s = text; *s; s++)
                hits += (uint64_t)here(re[k], s) * (uint64_t)(i + k);
    return hits;
}

/* --- a scanner by a table: character classes and states --- */

static uint64_t scanner(void) {
    static uint8_t class[256], next[8][8];
    static char text[20000];
    uint64_t tokens[8] = {0}, sum = 0;
    uint32_t r = 29;
    uint8_t state = 0;

    if (!*text) {
        static const char letters[] = "abcxyz0123 +-*/()\"\n=_ZZ9";

        for (size_t i = 0; i < sizeof(text) - 1; i++)
            text[i] = letters[loop_random(&r) % (sizeof(letters) - 1)];
        for (int c = 0; c < 256; c++)
            class[c] = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ? 1
                       : c >= '0' && c <= '9'                                       ? 2
                       : c == '"'                                                   ? 3
                       : c == '\n'                                                  ? 4
                       : c == ' '                                                   ? 5
                       : c == '(' || c == ')'                                       ? 6
                                                                                    : 7;
        for (int s = 0; s < 8; s++)
            for (int c = 0; c < 8; c++)
                next[s][c] = (uint8_t)(s == 3 && c != 3 && c != 4 ? 3
                                       : s == 1 && c == 2         ? 1
                                       : s == 3 && c == 3         ? 0
                                                                  : c);
    }
    for (const char *p = text; *p; p++) {
        uint8_t to = next[state][class[(uint8_t)*p]];

        if (to != state)
            tokens[state]++;
        state = to;
    }
    for (int i = 0; i < 8; i++)
        sum = sum * 131 + tokens[i];
    return sum;
}

/* --- a big switch: a protocol's messages, each with fields of its own --- */

/* clang-format off */
#define FIELD1(n) case n: v = p[1] * ((n) + 1u); p += 2; break;
#define FIELD2(n) case n: v = (p[1] | (unsigned)p[2] << 8) ^ (n); p += 3; break;
#define FIELD3(n) case n: v = (unsigned)(p[1] + p[2] * 3 + (n)); a += v & 3; p += 3; break;
#define FIELD4(n) case n: v = a > (n) ? p[1] : b; b ^= v; p += 2; break;
#define FOUR(n) FIELD1(n) FIELD2((n) + 1) FIELD3((n) + 2) FIELD4((n) + 3)
#define SIXTEEN(n) FOUR(n) FOUR((n) + 4) FOUR((n) + 8) FOUR((n) + 12)
/* clang-format on */

static uint64_t messages(void) {
    static uint8_t bytes[32768];
    const uint8_t *p = bytes;
    unsigned a = 0, b = 1, v;
    uint32_t r = 31;

    if (!bytes[5])
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)(loop_random(&r) >> 7);
    while (p < bytes + sizeof(bytes) - 4) {
        switch (*p & 127) {
            /* clang-format off */
            SIXTEEN(0) SIXTEEN(16) SIXTEEN(32) SIXTEEN(48)
            SIXTEEN(64) SIXTEEN(80) SIXTEEN(96)
                /* clang-format on */
                default : v = 1;
            p++;
        }
        a = a * 5 + v;
    }
    return a + ((uint64_t)b << 32);
}

/* --- UTF-8, checked --- */

static uint64_t utf8(void) {
    static uint8_t text[30000];
    uint64_t sum = 0;
    size_t n = sizeof(text) - 4;

    if (!*text)
        for (size_t i = 0; i < n;) {
            uint32_t c = (uint32_t)(i * 2654435761u) >> (i % 5 ? 25 : 12);

            c &= 0xffff;
            if (c < 0x80) {
                text[i++] = (uint8_t)(c | 1);
            } else if (c < 0x800) {
                text[i++] = (uint8_t)(0xc0 | c >> 6);
                text[i++] = (uint8_t)(0x80 | (c & 63));
            } else {
                text[i++] = (uint8_t)(0xe0 | c >> 12);
                text[i++] = (uint8_t)(0x80 | (c >> 6 & 63));
                text[i++] = (uint8_t)(0x80 | (c & 63));
            }
        }
    for (size_t i = 0; i < n;) {
        uint8_t c = text[i++];
        uint32_t v = c;
        int more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;

        if (more)
            v &= 63u >> more;
        while (more--) {
            if ((text[i] & 0xc0) != 0x80)
                return 0;
            v = v << 6 | (text[i++] & 63);
        }
        sum = sum * 33 + v;
    }
    return sum;
}

/* --- compression with references back, both ways --- */

static size_t pack(const uint8_t *in, size_t n, uint8_t *out) {
    static uint32_t last[4096];
    uint8_t *to = out;

    memset(last, 0, sizeof(last));
    for (size_t i = 0; i + 4 < n;) {
        unsigned h = (in[i] | (unsigned)in[i + 1] << 8 | (unsigned)in[i + 2] << 16) *
                         2654435761u >>
                     20;
        size_t at = last[h], len = 0;

        last[h] = (uint32_t)i + 1;
        if (at && i - (at - 1) < 4096)
            while (len < 18 && i + len < n && in[at - 1 + len] == in[i + len])
                len++;
        if (len < 3) {
            *to++ = 0;
            *to++ = in[i++];
            continue;
        }
        *to++ = (uint8_t)(len - 2);
        *to++ = (uint8_t)(i - at + 1);
        *to++ = (uint8_t)((i - at + 1) >> 8);
        i += len;
    }
    return (size_t)(to - out);
}

static size_t unpack(const uint8_t *in, size_t n, uint8_t *out) {
    uint8_t *to = out;

    for (const uint8_t *p = in; p < in + n;) {
        unsigned len = *p++, back;

        if (!len) {
            *to++ = *p++;
            continue;
        }
        back = p[0] | (unsigned)p[1] << 8;
        p += 2;
        for (len += 2; len--; to++)
            *to = to[-(ptrdiff_t)back];
    }
    return (size_t)(to - out);
}

static uint64_t compression(void) {
    static uint8_t in[40000], packed[80000], out[40020];
    uint32_t r = 37;
    uint64_t sum = 0;
    size_t n;

    if (!in[1])
        for (size_t i = 0; i < sizeof(in); i++)
            in[i] = i > 300 && loop_random(&r) % 8 ? in[i - 1 - loop_random(&r) % 3 * 97]
                                                   : (uint8_t)(loop_random(&r) % 50 + 40);
    n = pack(in, sizeof(in), packed);
    sum = n * 1000003u + unpack(packed, n, out);
    for (size_t i = 0; i < 39990; i += 37)
        sum = sum * 31 + out[i];
    return sum;
}

/* --- numbers to text and back, by the C library --- */

static uint64_t formatting(void) {
    char text[64];
    uint64_t sum = 0;

    for (int i = 1; i < 400; i++) {
        snprintf(text, sizeof(text), "%d:%08x:%s:%.3f", i * 97, i * 7919u, "word",
                 i / 7.0);
        sum +=
            strlen(text) + strtoul(text, NULL, 10) + (uint64_t)(strchr(text, 'w') - text);
        sum += (uint64_t)strtod(strrchr(text, ':') + 1, NULL);
    }
    return sum;
}

const struct loop loops_text[] = {
    {"json", parse_json}, {"exprs", expressions}, {"regex", patterns},
    {"scanner", scanner}, {"switch", messages},   {"utf8", utf8},
    {"lz", compression},  {"printf", formatting}, {NULL, NULL}};
