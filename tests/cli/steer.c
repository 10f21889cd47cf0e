/*
 * Plays the programs at a run's control socket; prints TAP-like lines.
 *
 *   steer BIVISOR GUEST ENGINE   the tests (GUEST is tests/cli/guest.c)
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/types.h"

#define PATIENCE 120000 /* ms until something that should happen counts as missing */

static const char *bivisor, *guest, *engine;
static char dir[] = "/tmp/steer-XXXXXX", path[64];
static int failures;

struct run {
    pid_t pid;
    int to, from; /* its input and output */
    bool stalled; /* nobody reads the output */
    size_t len;   /* that has been read */
    char last[4096];
    int client;
};

static uint64_t now_ms(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void verdict(const char *name, bool good) {
    printf("%s cli/control-%s %s\n", good ? "ok" : "not ok", name, engine);
    fflush(stdout);
    failures += !good;
}

/* --- a run --- */

/* -1: nobody listens there. */
static int try_client(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, path, sizeof(path));
    if (!connect(fd, (struct sockaddr *)&a, sizeof(a)))
        return fd;
    close(fd);
    return -1;
}

static int new_client(void) {
    uint64_t until = now_ms() + PATIENCE;
    int fd;

    while ((fd = try_client()) < 0 && now_ms() < until)
        poll(NULL, 0, 5);
    return fd;
}

/* With one or two options more. */
static struct run start(const char *what, const char *option, const char *value) {
    char append[16];
    int in[2], out[2];
    struct run r = {0};

    snprintf(append, sizeof(append), "do=%s", what);
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        exit(1);
    r.pid = fork();
    if (!r.pid) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        execl(bivisor, "bivisor", "run", "--engine", engine, "--kernel", guest,
              "--memory", "16M", "--append", append, "--control", path, option, value,
              (char *)NULL);
        _exit(99);
    }
    close(in[0]);
    close(out[1]);
    r.to = in[1];
    r.from = out[0];
    r.client = new_client();
    return r;
}

/* Reads the output for so long. How many bytes came. */
static size_t read_for(struct run *r, int ms) {
    uint64_t until = now_ms() + (uint64_t)ms;
    size_t got = 0;
    int left;

    while ((left = (int)(until - now_ms())) >= 0) {
        struct pollfd p = {.fd = r->from, .events = POLLIN};
        ssize_t n;

        if (poll(&p, 1, left) <= 0)
            break;
        n = read(r->from, r->last, sizeof(r->last));
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    r->len += got;
    return got;
}

/* Until there is output. */
static bool wait_for_output(struct run *r) {
    uint64_t until = now_ms() + PATIENCE;

    while (!r->len && now_ms() < until)
        read_for(r, 10);
    return r->len;
}

/* The exit status, or -1: it does not end, or dies. */
static int end_of(struct run *r) {
    uint64_t until = now_ms() + PATIENCE;
    int status = -1;
    pid_t pid;

    while (!(pid = waitpid(r->pid, &status, WNOHANG)) && now_ms() < until)
        r->stalled ? poll(NULL, 0, 5) : (int)read_for(r, 5);
    if (!pid) {
        kill(r->pid, SIGKILL);
        waitpid(r->pid, &status, 0);
    }
    close(r->to);
    close(r->from);
    close(r->client);
    return pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* --- requests --- */

static bool send_all(int fd, const char *text, size_t len) {
    return send(fd, text, len, MSG_NOSIGNAL) == (ssize_t)len;
}

/* One line; "" at the end, or when there is none in time. */
static const char *hear(int fd) {
    static char line[1 << 20];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t n = 0;

    while (n + 1 < sizeof(line) && poll(&p, 1, PATIENCE) == 1 &&
           read(fd, line + n, 1) == 1 && line[n] != '\n')
        n++;
    line[n] = 0;
    return line;
}

/* The answer to REQUEST, which is free()d by the next one. */
static const cJSON *ask(int fd, const char *request) {
    static cJSON *answer;

    cJSON_Delete(answer);
    answer = NULL;
    if (send_all(fd, request, strlen(request)) && send_all(fd, "\n", 1))
        answer = cJSON_Parse(hear(fd));
    return answer;
}

static bool ok(int fd, const char *command) {
    char line[128];

    snprintf(line, sizeof(line), "{\"command\":\"%s\"}", command);
    return cJSON_IsTrue(cJSON_GetObjectItem(ask(fd, line), "ok"));
}

static double number(const cJSON *answer, const char *name) {
    const cJSON *n = cJSON_GetObjectItem(answer, name);

    return cJSON_IsNumber(n) ? n->valuedouble : -1;
}

static double insns(int fd) {
    const cJSON *stats = cJSON_GetObjectItem(ask(fd, "{\"command\":\"stats\"}"), "stats");

    return number(cJSON_GetObjectItem(stats, "counters"), "insns_retired");
}

/* Makes N steps, all of which retire an instruction. */
static bool steps(int fd, int n) {
    double before = insns(fd);
    char line[64];
    const cJSON *a;

    snprintf(line, sizeof(line), "{\"command\":\"step\",\"count\":%d}", n);
    a = ask(fd, line);
    return number(a, "steps") == n && number(a, "insns") == n && insns(fd) == before + n;
}

static bool quits(struct run *r) {
    bool good = ok(r->client, "quit");

    return end_of(r) == 0 && good && access(path, F_OK);
}

/* --- the tests --- */

static void test_pause(void) {
    struct run r = start("c", NULL, NULL); /* it chatters without end */
    bool good = wait_for_output(&r) && ok(r.client, "pause");
    double before = insns(r.client);

    while (good && read_for(&r, 200)) /* what was on its way */
        ;
    good = good && !read_for(&r, 200) && insns(r.client) == before;
    verdict("pause", good);
    verdict("step", steps(r.client, 1) && steps(r.client, 2) && steps(r.client, 5000));
    good = ok(r.client, "resume") && ok(r.client, "resume");
    r.len = 0;
    verdict("resume", good && wait_for_output(&r));
    verdict("quit", quits(&r));
}

/* WHAT never gives way: asleep for ever, or a loop with interrupts off. */
static void test_still(const char *name, const char *what) {
    struct run r = start(what, NULL, NULL);
    bool good = wait_for_output(&r) && ok(r.client, "pause") && ok(r.client, "resume");

    good = good && ok(r.client, "pause") && ok(r.client, "pause");
    verdict(name, quits(&r) && good);
}

/* Nobody reads what the guest says. */
static void test_stalled(void) {
    struct run r = start("c", NULL, NULL);
    const cJSON *a;
    bool waits = false;

    r.stalled = true;
    for (uint64_t until = now_ms() + PATIENCE; !waits && now_ms() < until;) {
        a = ask(r.client, "{\"command\":\"step\"}");
        waits = cJSON_IsTrue(cJSON_GetObjectItem(a, "waits"));
        if (!waits)
            ok(r.client, "resume");
    }
    waits =
        waits && ok(r.client, "pause") && ok(r.client, "resume") && ok(r.client, "stats");
    verdict("stalled-reader", waits && quits(&r));
}

/* The screen of a PC that nobody has written to. */
static void test_screen(void) {
    struct run r = start("c", NULL, NULL);
    const cJSON *answer = ask(r.client, "{\"command\":\"screen\"}");
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(answer, "text"));
    bool good = text && strlen(text) == 25 && strspn(text, "\n") == 25;

    good = good && number(answer, "columns") == 80 && number(answer, "rows") == 25;
    verdict("screen", quits(&r) && good);
}

static void test_two_clients(void) {
    struct run r = start("c", NULL, NULL);
    int other = new_client();
    bool good = ok(r.client, "pause");

    read_for(&r, 50); /* it may have said more than there is room for, and waits */
    good = good && steps(other, 3) && steps(r.client, 3) && ok(other, "resume");
    r.len = 0;
    good = good && wait_for_output(&r);
    close(other);
    good = good && ok(r.client, "stats");
    verdict("two-clients", quits(&r) && good);
}

static bool refused(int fd, const char *line, const char *why) {
    const cJSON *error = cJSON_GetObjectItem(ask(fd, line), "error");

    return cJSON_IsString(error) && strstr(error->valuestring, why);
}

/* Refused in words, while the guest goes on. */
static void test_hostile(void) {
    static char line[200000];
    struct run r = start("c", NULL, NULL);
    int c = r.client, flood = new_client(), half = new_client();
    bool good = wait_for_output(&r);

    good = good && refused(c, "", "not one JSON object") &&
           refused(c, "{\"command\":\"fly\"}", "no command 'fly'") &&
           refused(c, "{\"command\":\"step\",\"count\":0}", "from 1 to 1000000") &&
           refused(c, "{\"command\":\"step\",\"count\":1e9}", "from 1 to 1000000") &&
           refused(c, "{\"command\":\"pause\",\"for\":1}", "no argument 'for'") &&
           refused(c, "{\"command\":\"\xff\"}", "not UTF-8");
    memset(line, '[', 60000);
    line[60000] = 0;
    good = good && refused(c, line, "nested too deeply");
    memset(line, ' ', sizeof(line) - 1);
    good = good && refused(c, line, "longer than 65536 bytes");
    good = good && send_all(half, "{\"command\":\"qu", 14);
    close(half);
    for (unsigned n = 0; n < 5000; n++)
        if (send(flood, "{\"command\":\"stats\"}\n", 20, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            break;
    r.len = 0;
    good = good && ok(c, "stats") && wait_for_output(&r);
    close(flood);
    good = good && ok(c, "stats");
    verdict("hostile", quits(&r) && good);
}

/* A guest that ends itself under single steps, and by itself after a pause. */
static void test_ends(void) {
    struct run r = start("e", NULL, NULL);
    bool good = wait_for_output(&r) && ok(r.client, "pause");
    const cJSON *a;

    good = good && write(r.to, "x\x04", 2) == 2; /* echo, and power off */
    for (uint64_t until = now_ms() + PATIENCE; good && now_ms() < until;) {
        a = ask(r.client, "{\"command\":\"step\",\"count\":1000}");
        if (!a || cJSON_IsTrue(cJSON_GetObjectItem(a, "ended")))
            break;
    }
    verdict("steps-to-the-end", end_of(&r) == 0 && good && access(path, F_OK));
}

/* What was recorded with pauses and steps in it is the same when it is replayed. */
static void test_recorded(void) {
    char file[64];
    struct run r;
    bool good;

    snprintf(file, sizeof(file), "%s/recording", dir);
    r = start("s", "--record", file);
    good = wait_for_output(&r) && ok(r.client, "pause") && steps(r.client, 100) &&
           ok(r.client, "resume") && write(r.to, "some text", 9) == 9 &&
           ok(r.client, "pause") && steps(r.client, 1000) && ok(r.client, "resume") &&
           write(r.to, "\x04", 1) == 1;
    good = end_of(&r) == 0 && good;
    verdict("recorded", good);
    r = start("s", "--replay", file);
    /* It may be over by now: nothing holds it up. */
    if (r.client >= 0 && ok(r.client, "pause"))
        good = good && steps(r.client, 50) && ok(r.client, "resume");
    verdict("recorded-replay", end_of(&r) == 0 && good);
    unlink(file);
}

/* Killed, its socket goes all the same. */
static void test_killed(void) {
    struct run r = start("l", NULL, NULL);
    uint64_t until = now_ms() + PATIENCE;
    struct stat st = {0};
    bool good = wait_for_output(&r) && !stat(path, &st);

    good = good && st.st_mode == (S_IFSOCK | 0600);
    kill(r.pid, SIGKILL);
    good = good && end_of(&r) == -1;
    while (!access(path, F_OK) && now_ms() < until)
        poll(NULL, 0, 5);
    verdict("killed", good && access(path, F_OK));
}

int main(int argc, char **argv) {
    if (argc != 4 || !mkdtemp(dir))
        return 2;
    bivisor = argv[1];
    guest = argv[2];
    engine = argv[3];
    signal(SIGPIPE, SIG_IGN);
    snprintf(path, sizeof(path), "%s/socket", dir);
    test_pause();
    test_still("halted", "h");
    test_still("spinning", "l");
    test_stalled();
    test_screen();
    test_two_clients();
    test_hostile();
    test_ends();
    if (strcmp(engine, "kvm"))
        test_recorded();
    test_killed();
    rmdir(dir);
    return failures ? 1 : 0;
}
