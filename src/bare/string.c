/*
 * <string.h> and what of <stdlib.h> converts text: as far as the rooms above use them.
 * General registers only.
 */
#include <stdlib.h>
#include <string.h>

#include "mem/mem.h"

/* By words, of which emulators, too, make one step each. */
void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    void *at = to;
    size_t words = n / 8;

    n %= 8;
    __asm__ volatile("rep movsq" : "+D"(at), "+S"(from), "+c"(words) : : "memory");
    mem_copy(at, from, n);
    return to;
}

void *memmove(void *to, const void *from, size_t n) {
    const uint8_t *f = from;
    uint8_t *t = to;

    if ((uintptr_t)t - (uintptr_t)f >= n)
        return memcpy(to, from, n);
    while (n--)
        t[n] = f[n];
    return to;
}

void *memset(void *to, int byte, size_t n) {
    void *at = to;
    size_t words = n / 8;

    __asm__ volatile("rep stosq"
                     : "+D"(at), "+c"(words)
                     : "a"((uint8_t)byte * 0x0101010101010101ull)
                     : "memory");
    mem_fill(at, (uint8_t)byte, n % 8);
    return to;
}

int memcmp(const void *a, const void *b, size_t n) {
    const uint8_t *x = a, *y = b;

    for (; n; n--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

void *memchr(const void *s, int c, size_t n) {
    const uint8_t *p = s;

    for (; n; n--, p++)
        if (*p == (uint8_t)c)
            return (void *)(uintptr_t)p;
    return NULL;
}

size_t strlen(const char *s) {
    size_t n = 0;

    while (s[n])
        n++;
    return n;
}

int strcmp(const char *a, const char *b) {
    while (*a && *a == *b)
        a++, b++;
    return (uint8_t)*a - (uint8_t)*b;
}

int strncmp(const char *a, const char *b, size_t n) {
    for (; n && *a && *a == *b; n--)
        a++, b++;
    return n ? (uint8_t)*a - (uint8_t)*b : 0;
}

char *strcpy(char *restrict to, const char *restrict from) {
    mem_copy(to, from, strlen(from) + 1);
    return to;
}

char *strchr(const char *s, int c) {
    for (;; s++) {
        if (*s == (char)c)
            return (char *)(uintptr_t)s;
        if (!*s)
            return NULL;
    }
}

char *strrchr(const char *s, int c) {
    const char *last = NULL;

    for (;; s++) {
        if (*s == (char)c)
            last = s;
        if (!*s)
            return (char *)(uintptr_t)last;
    }
}

size_t strcspn(const char *s, const char *stop) {
    size_t n = 0;

    while (s[n] && !strchr(stop, s[n]))
        n++;
    return n;
}

char *strstr(const char *s, const char *what) {
    size_t n = strlen(what);

    for (; *s; s++)
        if (!strncmp(s, what, n))
            return (char *)(uintptr_t)s;
    return n ? NULL : (char *)(uintptr_t)s;
}

static unsigned digit(char c) {
    if (c >= '0' && c <= '9')
        return (unsigned)(c - '0');
    c |= 0x20;
    return c >= 'a' && c <= 'z' ? (unsigned)(c - 'a' + 10) : 99;
}

unsigned long long strtoull(const char *restrict s, char **restrict end, int base) {
    unsigned long long value = 0;
    const char *p = s, *begin;

    while (*p == ' ' || *p == '\t')
        p++;
    if ((base == 0 || base == 16) && p[0] == '0' && (p[1] | 0x20) == 'x' &&
        digit(p[2]) < 16) {
        base = 16;
        p += 2;
    } else if (base == 0) {
        base = *p == '0' ? 8 : 10;
    }
    for (begin = p; digit(*p) < (unsigned)base; p++)
        value = value * (unsigned)base + digit(*p);
    if (end)
        *end = (char *)(uintptr_t)(p == begin ? s : p);
    return value;
}

unsigned long strtoul(const char *restrict s, char **restrict end, int base) {
    return strtoull(s, end, base);
}
