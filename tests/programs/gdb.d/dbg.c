/* What the scripts of gdb look at. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct node {
    int value;
    double weight;
    struct node *next;
    char name[12];
};

volatile int counter;
volatile uint8_t byte;
volatile uint16_t half;
volatile uint64_t wide;
int table[64];
struct node *list;
double ratio = 1.5;
static pthread_barrier_t barrier;

static int factorial(int n) {
    return n < 2 ? 1 : n * factorial(n - 1);
}

static int count(int n) {
    for (int i = 0; i < n; i++) {
        counter += i;
        byte = (uint8_t)(byte + 3);
        half = (uint16_t)(half * 3 + 1);
        wide = wide * 5 + (uint64_t)i;
    }
    return counter;
}

static void build(int n) {
    for (int i = 0; i < n; i++) {
        struct node *p = malloc(sizeof *p);
        *p = (struct node){i, sqrt(i), list, ""};
        snprintf(p->name, sizeof p->name, "node%d", i);
        list = p;
    }
}

static int fill(int seed) {
    for (int i = 0; i < 64; i++)
        table[i] = seed = seed * 1103515245 + 12345;
    memmove(table + 3, table, 40 * sizeof *table);
    memset(table + 50, 7, 20);
    return table[20];
}

typedef float v8 __attribute__((vector_size(32)));
static v8 vectors(float f) {
    v8 a = {1, 2, 3, 4, 5, 6, 7, 8};
    for (int i = 0; i < 5; i++)
        a = a * f + (v8){.5f, .25f, -1, 0, 2, -2, 3, 1};
    return a;
}

static long double x87(int n) {
    long double s = 0;
    for (int i = 1; i <= n; i++)
        s += 1.0L / i;
    return s;
}

static void on_signal(int sig) {
    counter += sig;
}

static void signals(void) {
    signal(SIGUSR1, on_signal);
    signal(SIGALRM, on_signal);
    raise(SIGUSR1);
    counter = 1;
    raise(SIGALRM);
    counter = 2;
}

static void *thread(void *arg) {
    long n = (long)arg;
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 100; i++)
        __atomic_add_fetch(&wide, (uint64_t)n, __ATOMIC_SEQ_CST);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static void threads(void) {
    pthread_t t[3];
    pthread_barrier_init(&barrier, NULL, 4);
    wide = 0;
    for (long i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, thread, (void *)(i + 1));
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
}

static int child(void) {
    int status;
    fflush(stdout);
    if (!fork()) {
        counter = factorial(5);
        _exit(counter & 0x7f);
    }
    wait(&status);
    return WEXITSTATUS(status);
}

static void crash(int how) {
    volatile int zero = 0;
    if (how == 1)
        *(volatile int *)16 = 1;
    if (how == 2)
        counter = 7 / zero;
    if (how == 3)
        __asm__ volatile("ud2");
    if (how == 4)
        __asm__ volatile("mov $0x8000000000000000, %%rax; mov (%%rax), %%eax" ::: "rax");
    if (how == 5)
        abort();
    if (how == 6)
        __asm__ volatile("int3");
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("factorial %d\n", factorial(8));
    printf("count %d\n", count(20));
    build(9);
    printf("fill %d\n", fill(argc));
    v8 v = vectors(0.75f);
    printf("vectors %g %g\n", v[0], v[7]);
    printf("x87 %.15Lg\n", x87(50));
    signals();
    threads();
    printf("wide %lu\n", (unsigned long)wide);
    printf("child %d\n", child());
    if (argc > 1)
        crash(atoi(argv[1]));
    return counter & 1;
}
