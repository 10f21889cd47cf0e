/*
 * vsnprintf() and snprintf(), as far as the rooms above use them: d i u x X c s p and %,
 * with the flags - 0 + #, width and precision (also *), and the lengths hh h l ll z j t.
 * No floating point. And write(2) to standard error, which is the serial port.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bare/bare_int.h"
#include "base/os.h"

struct out {
    char *to;
    size_t size, len; /* LEN goes on where SIZE has ended */
};

struct spec {
    bool left, zero, plus, alternate;
    int width, precision; /* -1: none */
    unsigned length;      /* bytes of the argument */
    char kind;
};

static void put(struct out *o, char c) {
    if (o->len + 1 < o->size)
        o->to[o->len] = c;
    o->len++;
}

static void pad(struct out *o, char c, int n) {
    while (n-- > 0)
        put(o, c);
}

/* SIGN and TEXT of N characters, which zeros may come before. */
static void put_field(struct out *o, const struct spec *s, const char *sign,
                      const char *text, int n, int zeros) {
    int sign_len = (int)strlen(sign), room = s->width - n - zeros - sign_len;

    if (!s->left && !(s->zero && s->precision < 0 && s->kind != 's' && s->kind != 'c'))
        pad(o, ' ', room);
    for (; *sign; sign++)
        put(o, *sign);
    if (!s->left && s->zero && s->precision < 0 && s->kind != 's' && s->kind != 'c')
        pad(o, '0', room);
    pad(o, '0', zeros);
    for (int i = 0; i < n; i++)
        put(o, text[i]);
    if (s->left)
        pad(o, ' ', room);
}

static void put_number(struct out *o, const struct spec *s, uint64_t value,
                       bool negative) {
    const char *digits = s->kind == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    unsigned base = s->kind == 'd' || s->kind == 'i' || s->kind == 'u' ? 10 : 16;
    const char *sign = negative                                                  ? "-"
                       : s->plus                                                 ? "+"
                       : s->kind == 'p' || (s->alternate && base == 16 && value) ? "0x"
                                                                                 : "";
    char text[24], *p = text + sizeof(text);
    int n;

    for (; value; value /= base)
        *--p = digits[value % base];
    n = (int)(text + sizeof(text) - p);
    put_field(o, s, sign, p, n,
              s->precision > n          ? s->precision - n
              : !n && s->precision != 0 ? 1
                                        : 0);
}

static const char *parse_length(const char *p, struct spec *s) {
    s->length = 4;
    for (;; p++) {
        if (*p == 'l' || *p == 'z' || *p == 'j' || *p == 't')
            s->length = 8;
        else if (*p == 'h')
            s->length = s->length == 2 ? 1 : 2;
        else
            return p;
    }
}

static const char *parse_count(const char *p, int *out, va_list *ap) {
    if (*p == '*') {
        *out = va_arg(*ap, int);
        return p + 1;
    }
    for (*out = 0; *p >= '0' && *p <= '9'; p++)
        *out = *out * 10 + *p - '0';
    return p;
}

static const char *parse(const char *p, struct spec *s, va_list *ap) {
    *s = (struct spec){.precision = -1};
    for (;; p++) {
        if (*p == '-')
            s->left = true;
        else if (*p == '0')
            s->zero = true;
        else if (*p == '+')
            s->plus = true;
        else if (*p == '#')
            s->alternate = true;
        else
            break;
    }
    p = parse_count(p, &s->width, ap);
    if (s->width < 0) {
        s->left = true;
        s->width = -s->width;
    }
    if (*p == '.')
        p = parse_count(p + 1, &s->precision, ap);
    p = parse_length(p, s);
    s->kind = *p;
    return *p ? p + 1 : p;
}

static uint64_t argument(const struct spec *s, va_list *ap) {
    uint64_t value =
        s->length == 8 || s->kind == 'p' ? va_arg(*ap, uint64_t) : va_arg(*ap, unsigned);
    unsigned drop = s->kind == 'p' ? 0 : 64 - 8 * s->length;

    if (s->kind == 'd' || s->kind == 'i')
        return (uint64_t)((int64_t)(value << drop) >> drop);
    return value << drop >> drop;
}

static void convert(struct out *o, const struct spec *s, va_list *ap) {
    const char *text;
    uint64_t value;
    int n = 0;
    char c;

    switch (s->kind) {
    case 's':
        text = va_arg(*ap, const char *);
        if (!text)
            text = "(null)";
        while ((s->precision < 0 || n < s->precision) && text[n])
            n++;
        put_field(o, s, "", text, n, 0);
        break;
    case 'c':
        c = (char)va_arg(*ap, int);
        put_field(o, s, "", &c, 1, 0);
        break;
    case '%':
        put(o, '%');
        break;
    case 'd':
    case 'i':
        value = argument(s, ap);
        put_number(o, s, (int64_t)value < 0 ? -value : value, (int64_t)value < 0);
        break;
    default:
        put_number(o, s, argument(s, ap), false);
    }
}

int vsnprintf(char *restrict to, size_t size, const char *restrict format, va_list args) {
    struct out o = {to, size, 0};
    va_list ap;

    va_copy(ap, args);
    while (*format) {
        struct spec s;

        if (*format != '%') {
            put(&o, *format++);
            continue;
        }
        format = parse(format + 1, &s, &ap);
        convert(&o, &s, &ap);
    }
    va_end(ap);
    if (size)
        to[o.len < size ? o.len : size - 1] = 0;
    return (int)o.len;
}

int snprintf(char *restrict to, size_t size, const char *restrict format, ...) {
    va_list ap;
    int n;

    va_start(ap, format);
    n = vsnprintf(to, size, format, ap);
    va_end(ap);
    return n;
}

char *strerror(int number) {
    return number == ENOMEM ? "out of memory" : number == EINVAL ? "invalid" : "an error";
}

/* --- standard error --- */

/* A line ends as terminals want it. */
ssize_t write(int fd, const void *bytes, size_t n) {
    const uint8_t *b = bytes;

    for (size_t i = 0; i < n; i++) {
        if (b[i] == '\n')
            bare_serial_write((const uint8_t *)"\r", 1);
        bare_serial_write(&b[i], 1);
    }
    return (ssize_t)n;
}

int isatty(int fd) {
    return 0;
}

bool os_tty_is_raw(void) {
    return false;
}

void os_tty_restore(void) {
}
