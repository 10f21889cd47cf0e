/*
 * Runs a command as a person at its console would: waits for text, types, measures, and
 * reports one TAP-like line, with the end of the console when something went wrong.
 *
 *   drive [-p] [-l LOG] NAME STEP... -- COMMAND...
 *
 * -p gives the command a terminal (else pipes), -l keeps a copy of the console. A step is
 * WORD:ARGUMENT and looks only at what came after the step before it:
 *
 *   limit:SECONDS      time that each later step may take (at first 120)
 *   expect:REGEX       extended regular expression; its first group is kept
 *   never:REGEX        fails, now or at any later step, when the whole console matches
 *   send:TEXT          types TEXT and Enter
 *   key:TEXT           types TEXT; \a and \b stand for Ctrl-A and Ctrl-B
 *   elapsed:MIN:MAX    seconds between the ends of the last two expects
 *   clock:SECONDS      the group kept is a time in seconds since 1970 that is right to so
 * much idle:SECONDS:MAX   the command uses at most MAX percent of a CPU over so long
 *   host:COMMAND       the shell's command ends well, while the console is read
 *   status:N           the command ends with exit status N, and the terminal is as before
 *
 * Carriage returns are dropped before matching. A command that still runs at the end of
 * the steps is killed; one that ends before a `status` step fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define TAIL_LINES 40
#define MAX_NEVER 8

struct drive {
    const char *name;
    bool pty;
    FILE *log;
    pid_t child;
    int in, out; /* what we write to and read from */
    int slave;   /* kept open: the terminal's settings are read from it */
    struct termios before;
    char *text; /* the whole console, NUL-terminated, without \r */
    size_t len, room;
    size_t seen; /* matched so far */
    bool eof;
    bool ended;
    int wait_status;
    double limit;
    double last, previous; /* when the last two expects matched */
    char group[64];
    regex_t never[MAX_NEVER];
    const char *never_text[MAX_NEVER];
    unsigned nevers;
    char why[512];
};

static double now(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

__attribute__((format(printf, 2, 3))) static bool fail(struct drive *d, const char *fmt,
                                                       ...) {
    va_list ap;

    if (d->why[0])
        return false;
    va_start(ap, fmt);
    vsnprintf(d->why, sizeof(d->why), fmt, ap);
    va_end(ap);
    return false;
}

static void die(const char *what) {
    fprintf(stderr, "drive: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* --- the command --- */

static void in_child(struct drive *d, int in, int out, char **argv) {
    if (d->pty) {
        setsid();
        dup2(d->slave, STDIN_FILENO);
        dup2(d->slave, STDOUT_FILENO);
        dup2(d->slave, STDERR_FILENO);
    } else {
        dup2(in, STDIN_FILENO);
        dup2(out, STDOUT_FILENO);
        dup2(out, STDERR_FILENO);
    }
    for (int fd = 3; fd < 64; fd++)
        close(fd);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execvp(argv[0], argv);
    dprintf(STDERR_FILENO, "drive: cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static void open_pty(struct drive *d) {
    d->in = d->out = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (d->in < 0 || grantpt(d->in) || unlockpt(d->in))
        die("cannot make a terminal");
    d->slave = open(ptsname(d->in), O_RDWR | O_NOCTTY);
    if (d->slave < 0 || tcgetattr(d->slave, &d->before))
        die("cannot open the terminal");
}

static void start(struct drive *d, char **argv) {
    int to[2] = {-1, -1}, from[2] = {-1, -1};

    if (d->pty) {
        open_pty(d);
    } else {
        if (pipe(to) || pipe(from))
            die("cannot make pipes");
        d->in = to[1];
        d->out = from[0];
    }
    d->child = fork();
    if (d->child < 0)
        die("cannot fork");
    if (d->child == 0)
        in_child(d, to[0], from[1], argv);
    if (!d->pty) {
        close(to[0]);
        close(from[1]);
    }
}

static void reap(struct drive *d, int flags) {
    if (!d->ended && waitpid(d->child, &d->wait_status, flags) == d->child)
        d->ended = true;
}

/* --- its console --- */

static void keep(struct drive *d, const char *bytes, size_t n) {
    if (d->log) {
        fwrite(bytes, 1, n, d->log);
        fflush(d->log);
    }
    if (d->len + n + 1 > d->room) {
        d->room = (d->len + n + 1) * 2;
        d->text = realloc(d->text, d->room);
        if (!d->text)
            die("console");
    }
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != '\r')
            d->text[d->len++] = bytes[i] ? bytes[i] : '?';
    d->text[d->len] = 0;
}

/* Waits up to SECONDS for output; true when some came. */
static bool take(struct drive *d, double seconds) {
    struct pollfd p = {.fd = d->out, .events = POLLIN};
    char buf[4096];
    ssize_t n;

    if (d->eof || poll(&p, 1, seconds > 0 ? (int)(seconds * 1000) + 1 : 0) <= 0)
        return false;
    n = read(d->out, buf, sizeof(buf));
    if (n <= 0) {
        d->eof = true; /* a terminal's other side says EIO */
        return false;
    }
    keep(d, buf, (size_t)n);
    return true;
}

/* Takes output for SECONDS, or until the command has ended. */
static void take_for(struct drive *d, double seconds) {
    double end = now() + seconds;

    while (now() < end) {
        double step = end - now() < 0.1 ? end - now() : 0.1;

        if (!take(d, step) && (d->eof || d->pty)) {
            reap(d, WNOHANG);
            if (d->ended)
                return;
            if (d->eof)
                usleep(10000);
        }
    }
}

static bool check_never(struct drive *d) {
    for (unsigned i = 0; i < d->nevers; i++)
        if (d->text && !regexec(&d->never[i], d->text, 0, NULL, 0))
            return fail(d, "the console says /%s/", d->never_text[i]);
    return true;
}

/* --- steps --- */

static bool compile(struct drive *d, regex_t *re, const char *arg) {
    if (regcomp(re, arg, REG_EXTENDED | REG_NEWLINE))
        return fail(d, "bad regular expression /%s/", arg);
    return true;
}

static bool matched(struct drive *d, const regex_t *re) {
    regmatch_t at[2];
    size_t n;

    if (!d->text || regexec(re, d->text + d->seen, 2, at, 0))
        return false;
    d->group[0] = 0;
    if (at[1].rm_so >= 0) {
        n = (size_t)(at[1].rm_eo - at[1].rm_so);
        n = n < sizeof(d->group) ? n : sizeof(d->group) - 1;
        memcpy(d->group, d->text + d->seen + at[1].rm_so, n);
        d->group[n] = 0;
    }
    d->seen += (size_t)at[0].rm_eo;
    d->previous = d->last;
    d->last = now();
    return true;
}

static bool step_expect(struct drive *d, const char *arg) {
    double end = now() + d->limit;
    regex_t re;

    if (!compile(d, &re, arg))
        return false;
    while (check_never(d) && !matched(d, &re)) {
        if (d->eof) {
            fail(d, "the command ended before /%s/ came", arg);
            break;
        }
        if (now() > end) {
            fail(d, "no /%s/ within %.0f s", arg, d->limit);
            break;
        }
        take(d, 0.2);
        if (d->pty)
            reap(d, WNOHANG);
        if (d->ended && !take(d, 0))
            d->eof = true;
    }
    regfree(&re);
    return !d->why[0];
}

static bool step_never(struct drive *d, const char *arg) {
    if (d->nevers == MAX_NEVER)
        return fail(d, "too many `never` steps");
    if (!compile(d, &d->never[d->nevers], arg))
        return false;
    d->never_text[d->nevers++] = arg;
    return true;
}

static bool type(struct drive *d, const char *arg, const char *end) {
    char buf[1024];
    size_t n = 0;

    for (const char *p = arg; *p && n < sizeof(buf) - 2; p++) {
        if (p[0] == '\\' && (p[1] == 'a' || p[1] == 'b')) {
            buf[n++] = (char)(p[1] - 'a' + 1);
            p++;
        } else {
            buf[n++] = *p;
        }
    }
    if (*end)
        buf[n++] = *end;
    if (write(d->in, buf, n) != (ssize_t)n)
        return fail(d, "cannot type '%s': %s", arg, strerror(errno));
    return true;
}

static bool step_send(struct drive *d, const char *arg) {
    return type(d, arg, "\n");
}

static bool step_key(struct drive *d, const char *arg) {
    return type(d, arg, "");
}

static bool step_limit(struct drive *d, const char *arg) {
    d->limit = atof(arg);
    return d->limit > 0 || fail(d, "bad limit '%s'", arg);
}

static bool step_elapsed(struct drive *d, const char *arg) {
    double least, most, took = d->last - d->previous;

    if (sscanf(arg, "%lf:%lf", &least, &most) != 2)
        return fail(d, "bad step elapsed:%s", arg);
    if (took < least || took > most)
        return fail(d, "took %.2f s, not %g to %g", took, least, most);
    return true;
}

static bool step_clock(struct drive *d, const char *arg) {
    double off = atof(d->group) - (double)time(NULL);

    if (off > atof(arg) || off < -atof(arg))
        return fail(d, "the guest's clock is %.0f s off", off);
    return true;
}

/* User and system time of the command. "proc(5)", stat, fields 14 and 15. */
static double cpu_seconds(const struct drive *d) {
    char path[64], buf[1024], *p;
    unsigned long user = 0, sys = 0;
    FILE *f;
    size_t n;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)d->child);
    f = fopen(path, "r");
    if (!f)
        return 0;
    n = fread(buf, 1, sizeof(buf) - 1, f);
    fclose(f);
    buf[n] = 0;
    p = strrchr(buf, ')');
    if (p)
        sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
               &sys);
    return (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

static bool step_idle(struct drive *d, const char *arg) {
    double seconds, most, begin, used, percent;

    if (sscanf(arg, "%lf:%lf", &seconds, &most) != 2)
        return fail(d, "bad step idle:%s", arg);
    take_for(d, 1); /* what the last command left to do */
    begin = now();
    used = cpu_seconds(d);
    take_for(d, seconds);
    if (d->ended)
        return fail(d, "the command ended while it should idle");
    percent = (cpu_seconds(d) - used) / (now() - begin) * 100;
    if (percent > most)
        return fail(d, "idle, it uses %.1f %% of a CPU, not at most %g %%", percent,
                    most);
    return true;
}

static bool step_host(struct drive *d, const char *arg) {
    double end = now() + d->limit;
    int status = 0;
    pid_t pid = fork();

    if (pid < 0)
        die("cannot fork");
    if (pid == 0) {
        dup2(STDERR_FILENO, STDOUT_FILENO); /* ours is for the report */
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/bin/sh", "sh", "-c", arg, (char *)NULL);
        _exit(127);
    }
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (now() > end) {
            kill(-pid, SIGKILL);
            waitpid(pid, &status, 0);
            return fail(d, "`%s` does not end within %.0f s", arg, d->limit);
        }
        if (!take(d, 0.1) && d->eof)
            usleep(10000);
    }
    return !status || fail(d, "`%s` has failed", arg);
}

static bool step_status(struct drive *d, const char *arg) {
    double end = now() + d->limit;
    struct termios after;
    int status;

    while (!d->ended && now() < end) {
        take(d, 0.1);
        reap(d, WNOHANG);
    }
    while (d->ended && take(d, 0))
        ;
    if (!d->ended)
        return fail(d, "the command does not end within %.0f s", d->limit);
    status = WIFEXITED(d->wait_status) ? WEXITSTATUS(d->wait_status)
                                       : 128 + WTERMSIG(d->wait_status);
    if (status != atoi(arg))
        return fail(d, "exit status %d, not %s", status, arg);
    if (d->pty &&
        (tcgetattr(d->slave, &after) || after.c_lflag != d->before.c_lflag ||
         after.c_iflag != d->before.c_iflag || after.c_oflag != d->before.c_oflag))
        return fail(d, "the terminal is not as it was");
    return true;
}

static const struct {
    const char *word;
    bool (*run)(struct drive *d, const char *arg);
} steps[] = {
    {"limit:", step_limit}, {"expect:", step_expect}, {"never:", step_never},
    {"send:", step_send},   {"key:", step_key},       {"elapsed:", step_elapsed},
    {"clock:", step_clock}, {"idle:", step_idle},     {"status:", step_status},
    {"host:", step_host},
};

static bool run_step(struct drive *d, const char *step) {
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        size_t n = strlen(steps[i].word);

        if (!strncmp(step, steps[i].word, n))
            return steps[i].run(d, step + n) && check_never(d);
    }
    return fail(d, "unknown step %s", step);
}

/* --- the report --- */

static void tail(const struct drive *d) {
    const char *p = d->text + d->len;
    unsigned lines = 0;

    while (p > d->text && lines <= TAIL_LINES)
        if (*--p == '\n')
            lines++;
    if (*p == '\n')
        p++;
    printf("    ");
    for (; *p; p++) {
        putchar((unsigned char)*p < ' ' && *p != '\n' && *p != '\t' ? '.' : *p);
        if (*p == '\n')
            printf("    ");
    }
    putchar('\n');
}

static int report(const struct drive *d, double took) {
    static char buf[1 << 16];

    setvbuf(stdout, buf, _IOFBF, sizeof(buf)); /* one write: others report too */
    if (!d->why[0]) {
        printf("ok %s (%.1f s)\n", d->name, took);
        return 0;
    }
    printf("not ok %s: %s\n", d->name, d->why);
    if (d->len)
        tail(d);
    return 1;
}

int main(int argc, char **argv) {
    struct drive d = {.limit = 120};
    int opt, first, end;
    double begin = now();

    while ((opt = getopt(argc, argv, "+pl:")) >= 0) {
        if (opt == 'p')
            d.pty = true;
        else if (opt != 'l')
            return 2;
        else if (!(d.log = fopen(optarg, "w")))
            die(optarg);
    }
    first = optind + 1;
    for (end = first; end < argc && strcmp(argv[end], "--"); end++)
        ;
    if (end + 1 >= argc) {
        fprintf(stderr, "usage: drive [-p] [-l LOG] NAME STEP... -- COMMAND...\n");
        return 2;
    }
    d.name = argv[optind];
    signal(SIGPIPE, SIG_IGN);
    start(&d, argv + end + 1);
    for (int i = first; i < end && !d.why[0]; i++)
        run_step(&d, argv[i]);
    if (!d.ended)
        kill(d.child, SIGKILL);
    reap(&d, 0);
    return report(&d, now() - begin);
}
