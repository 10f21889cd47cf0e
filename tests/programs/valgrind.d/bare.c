/* Without a C library, whose start depends on what the kernel passes: counts of
 * instructions must be the same anywhere. */
static int table[4000];
static unsigned char text[4096];

static long call(long number, long a, long b, long c) {
    __asm__ volatile("syscall"
                     : "+a"(number)
                     : "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return number;
}

static unsigned sift(unsigned x) {
    for (unsigned i = 0; i < 40000; i++) {
        x = x * 1664525 + 1013904223;
        table[x >> 20 & 2047] += (int)i;
        x ^= table[x >> 9 & 2047] > (int)i ? x >> 3 : x / 7;
    }
    return x;
}

static int deep(int n) {
    return n < 2 ? n : deep(n - 1) + deep(n - 2);
}

static unsigned strings(void) {
    unsigned long n = sizeof text;
    unsigned char *p = text;
    unsigned h = 0;
    __asm__ volatile("rep stosb" : "+c"(n), "+D"(p) : "a"('x') : "memory");
    for (unsigned i = 0; i < sizeof text; i++)
        h = h * 31 + (text[i] ^= (unsigned char)i);
    return h;
}

static double series(void) {
    double s = 0;
    for (int i = 1; i < 2000; i++)
        s += (i & 1 ? 1.0 : -1.0) / i;
    return s;
}

/* The stack is our own: where the kernel puts it depends on what it passes. */
unsigned char stack[65536] __attribute__((aligned(4096)));
__asm__(".globl _start\n_start: lea stack+65536(%rip), %rsp\n call start\n ud2");

void start(void);
void start(void) {
    unsigned h = sift(1) + (unsigned)deep(18) + strings() + (unsigned)(series() * 1e6);
    char out[11];
    for (int i = 9; i >= 0; i--, h /= 10)
        out[i] = (char)('0' + h % 10);
    out[10] = '\n';
    call(1, 1, (long)out, 11);
    call(231, 0, 0, 0);
}
