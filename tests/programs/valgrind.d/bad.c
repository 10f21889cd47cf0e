/* A fault for each complaint that Valgrind has. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile int sink;
static int shared;
static pthread_mutex_t first = PTHREAD_MUTEX_INITIALIZER,
                       second = PTHREAD_MUTEX_INITIALIZER;
struct list {
    struct list *next;
    char text[40];
};

static void uninitialised(void) {
    int *p = malloc(16), local[4];
    if (p[2] > local[1])
        sink = 1;
    sink = local[p[3] & 3];
    printf("%d\n", (p[0] & 0) + 1);
    free(p);
}

static void reads(void) {
    char *p = malloc(21);
    memset(p, 'x', 21);
    sink = p[21] + *(int *)(p + 19) + p[-1];
    free(p);
    sink = p[4];
}

static void writes(void) {
    long *p = malloc(24);
    p[3] = 1;
    ((char *)p)[-2] = 3;
    free(p);
    p[0] = 5;
}

static void leak(void) {
    struct list *head = NULL;
    for (int i = 0; i < 40; i++) {
        struct list *l = malloc(sizeof *l + (i % 5) * 32);
        l->next = i % 10 ? head : NULL;
        sprintf(l->text, "item %d", i);
        head = l;
    }
    sink = head->text[5];
    char *inside = malloc(100);
    inside += 7;
    sink = inside[0] = 1;
}

static void frees(void) {
    char *p = malloc(8), *q = malloc(9), local[8] = "local";
    free(p);
    free(p);
    free(q + 1);
    char *volatile on_stack = local;
    free(on_stack);
}

static void mismatch(void) {
    char *p = aligned_alloc(64, 128), *q = realloc(malloc(10), 0);
    p[130] = 1;
    free(p);
    sink = q == NULL;
}

static void overlap(void) {
    char s[64] = "abcdefghijklmnop", *volatile p = s;
    memcpy(p + 2, p, 10);
    strcpy(p, p + 3);
    puts(s);
}

static int deep(int n) {
    volatile char pad[512];
    pad[n % 512] = (char)n;
    return n ? deep(n - 1) + pad[n % 512] : 0;
}

static void stack(void) {
    int *volatile p;
    {
        int a[4] = {1, 2, 3, 4};
        p = a - 200;
    }
    sink = deep(300) + *p;
}

static void systems(void) {
    char *p = malloc(30);
    memset(p, 'a', 15);
    int fd = open("/dev/null", O_WRONLY);
    sink = write(fd, p, 30);
    sink = open(p + 29, O_RDONLY);
    close(fd);
    free(p);
}

static void jump(void) {
    void (*volatile f)(void) = (void (*)(void))8;
    fflush(stdout);
    f();
}

static void floats(void) {
    double *p = malloc(64), s = 0;
    for (int i = 0; i < 6; i++)
        p[i] = sin(i) * exp(i / 3.0);
    for (int i = 0; i < 8; i++)
        s += p[i];
    if (s > 1)
        sink = 2;
    long double l = 1;
    for (int i = 1; i < 30; i++)
        l = l * 1.1L + 1.0L / i;
    printf("%.10Lg %.12g\n", l, pow(2.5, 3.7) + fmod(7.7, 2.1));
    free(p);
}

static void vectors(void) {
    typedef int v8 __attribute__((vector_size(32)));
    v8 *p = aligned_alloc(32, 96), s = {0};
    for (int i = 0; i < 2; i++)
        p[i] = (v8){i, 2, 3, 4, 5, 6, 7, 8} * 3;
    for (int i = 0; i < 3; i++)
        s += p[i] ^ (s >> 1);
    if (s[3] == 99)
        sink = 3;
    printf("%d\n", (s[0] & 0) + p[0][7] + p[1][1]);
    free(p);
}

static void *racer(void *arg) {
    for (int i = 0; i < 3; i++)
        shared += (int)(long)arg;
    return NULL;
}

static void race(void) {
    pthread_t t[2];
    for (long i = 0; i < 2; i++)
        pthread_create(&t[i], NULL, racer, (void *)(i + 1));
    for (int i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    printf("%d\n", shared);
}

static void locks(void) {
    pthread_mutex_lock(&first);
    pthread_mutex_unlock(&second);
    pthread_mutex_t *m = malloc(sizeof *m);
    pthread_mutex_init(m, NULL);
    pthread_mutex_lock(m);
    free(m);
}

static void *other_way(void *arg) {
    pthread_mutex_lock(&second);
    pthread_mutex_lock(&first);
    pthread_mutex_unlock(&first);
    pthread_mutex_unlock(&second);
    return arg;
}

static void order(void) {
    pthread_t t;
    pthread_mutex_lock(&first);
    pthread_mutex_lock(&second);
    pthread_mutex_unlock(&second);
    pthread_mutex_unlock(&first);
    pthread_create(&t, NULL, other_way, NULL);
    pthread_join(t, NULL);
}

static void compute(void) {
    unsigned x = 1, h = 0;
    static int a[4000];
    for (int i = 0; i < 40000; i++) {
        x = x * 1664525 + 1013904223;
        a[x >> 20 & 2047] += i;
        h = h * 31 + (a[x >> 9 & 2047] > i ? x >> 3 : h / 7);
    }
    printf("%u\n", h);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*f)(void);
    } table[] = {{"uninitialised", uninitialised},
                 {"read", reads},
                 {"write", writes},
                 {"leak", leak},
                 {"free", frees},
                 {"mismatch", mismatch},
                 {"overlap", overlap},
                 {"stack", stack},
                 {"system", systems},
                 {"jump", jump},
                 {"float", floats},
                 {"vector", vectors},
                 {"race", race},
                 {"lock", locks},
                 {"order", order},
                 {"compute", compute}};
    for (unsigned i = 0; argc > 1 && i < sizeof table / sizeof *table; i++)
        if (!strcmp(argv[1], table[i].name))
            table[i].f();
    return 0;
}
