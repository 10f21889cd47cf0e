/*
 * Runs a fuzzing target on the files that are named, and on those of the directories that
 * are named. Prints which one it is at when the target dies of it.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz/fuzz.h"

static char now[512];
static unsigned count;

/* Async-signal-safe. */
static void say(const char *text) {
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(1);
}

static void on_death(int signo) {
    say("not ok ");
    say(now);
    say(": died of it\n");
    signal(signo, SIG_DFL);
    raise(signo);
}

static int run_file(const char *path) {
    uint8_t *data;
    long size;
    FILE *f = fopen(path, "rb");

    snprintf(now, sizeof(now), "%s", path);
    if (!f || fseek(f, 0, SEEK_END) < 0 || (size = ftell(f)) < 0) {
        fprintf(stderr, "not ok %s: %s\n", path, strerror(errno));
        return 1;
    }
    rewind(f);
    /* Exactly as large as the input: the sanitizers see a byte too many. */
    data = malloc((size_t)size ? (size_t)size : 1);
    if (!data || fread(data, 1, (size_t)size, f) != (size_t)size) {
        fprintf(stderr, "not ok %s: cannot read it\n", path);
        return 1;
    }
    fclose(f);
    alarm(60); /* no input takes longer than a second */
    LLVMFuzzerTestOneInput(data, (size_t)size);
    alarm(0);
    free(data);
    count++;
    return 0;
}

static int run_path(const char *path) {
    struct dirent **names;
    struct stat st;
    int rc = 0, n;

    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        return run_file(path);
    n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char file[512];

        snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.')
            rc |= run_file(file);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return rc;
}

int main(int argc, char **argv) {
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM};
    /* The stack pointer may be a guest's. */
    static uint8_t stack[64 << 10];
    const stack_t ss = {
        .ss_sp = stack, .ss_size = sizeof(stack), .ss_flags = (int)(1u << 31)};
    const struct sigaction act = {.sa_handler = on_death,
                                  .sa_flags = SA_ONSTACK | SA_NODEFER};
    int rc = 0;

    sigaltstack(&ss, NULL); /* disarmed while in use: see os_signal_stack() */
    for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
        sigaction(deadly[i], &act, NULL);
    for (int i = 1; i < argc; i++)
        rc |= run_path(argv[i]);
    if (!rc && count)
        printf("ok %s: %u inputs\n", argc > 1 ? argv[1] : "", count);
    return rc || !count;
}
