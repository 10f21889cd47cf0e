/*
 * Commands for machines that run, by name or by their control socket: stop, kill, pause,
 * resume, reset, stats and others. Each is a request or two.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/rate.h"
#include "ctl/ask.h"
#include "ctl/ctl.h"
#include "ctl/options.h"

#define STOP_SECONDS 60u
#define QUIT_SECONDS 10u
#define MIB (1ull << 20)
#define QUOTA_MIB_MAX (1u << 20)
#define QUOTA_MAX 6400u /* the machine looks, too: MACHINE_QUOTA_MAX */

#define MACHINE_WORDS                                                                    \
    "\nThe machine is NAME, which its `bivisor run` has by --name, or --control PATH, "  \
    "the\nsocket that it listens at.\n\nexit status: 0; 1 "

/* How a command is called: what stands behind the machine is its own. */
static bool wants_help(int argc, char **argv, const char *text) {
    if (argc != 2 || strcmp(argv[1], "--help") != 0)
        return false;
    fputs(text, stdout);
    return true;
}

/* The machine alone. False after a message. */
static bool take_only(const char *command, int argc, char **argv, struct ask_machine *m) {
    int words = ask_take_machine(command, argc - 1, argv + 1, m);

    if (words < 0)
        return false;
    if (words == argc - 1)
        return true;
    log_error("'%s' is too much; `bivisor %s --help` tells more", argv[1 + words],
              command);
    return false;
}

/* Asks M for what has no answer but that it was done. */
static int request_of(const struct ask_machine *m, const char *request) {
    cJSON *answer = ask_once(m, request);

    cJSON_Delete(answer);
    return answer ? CTL_OK : CTL_HOST_FAILURE;
}

static int simple(int argc, char **argv, const char *command, const char *request,
                  const char *help) {
    struct ask_machine m;

    if (wants_help(argc, argv, help))
        return CTL_OK;
    if (!take_only(command, argc, argv, &m))
        return CTL_USAGE;
    return request_of(&m, request);
}

int ctl_cmd_pause(int argc, char **argv) {
    return simple(argc, argv, "pause", "{\"command\":\"pause\"}\n",
                  "usage: bivisor pause NAME\n\nStops a guest between two instructions, "
                  "and its time.\n" MACHINE_WORDS "when that was not done\n");
}

int ctl_cmd_resume(int argc, char **argv) {
    return simple(argc, argv, "resume", "{\"command\":\"resume\"}\n",
                  "usage: bivisor resume NAME\n\nA guest that was paused goes "
                  "on.\n" MACHINE_WORDS "when that was not done\n");
}

int ctl_cmd_reset(int argc, char **argv) {
    return simple(argc, argv, "reset", "{\"command\":\"reset\"}\n",
                  "usage: bivisor reset NAME\n\nPresses the reset "
                  "button.\n" MACHINE_WORDS "when that was not done\n");
}

/* --- ending --- */

/* Waits for the end of process PID: false after MS. */
static bool wait_gone(int pid, int ms) {
    uint64_t until = os_monotonic_ns() + (uint64_t)ms * 1000000;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int left, n = 0;

    while ((left = (int)((int64_t)(until - os_monotonic_ns()) / 1000000)) > 0) {
        if (fd < 0 && kill(pid, 0))
            break;
        n = poll(&p, fd >= 0, fd < 0 && left > 10 ? 10 : left);
        if (n > 0 || (fd < 0 && n < 0 && errno != EINTR))
            break;
    }
    if (fd >= 0)
        close(fd);
    return fd >= 0 ? n > 0 : kill(pid, 0) != 0;
}

struct stopping {
    struct ask_machine m;
    unsigned seconds;
    bool kill; /* what does not stop */
};

static const char *called(const struct ask_machine *m) {
    return m->name ? m->name : m->path;
}

/* Ends the run as Ctrl-A x does; or the process, when it does not listen. */
static int end_run(int fd, const struct ask_machine *m) {
    int pid = ask_process(fd);
    cJSON *answer = ask_quietly(fd, "{\"command\":\"quit\"}\n");
    bool hangs = !answer && errno == EAGAIN; /* else it does so, or is ending already */

    cJSON_Delete(answer);
    if (pid <= 1) {
        log_error("cannot find the process of '%s'", called(m));
        return CTL_HOST_FAILURE;
    }
    if (wait_gone(pid, hangs ? 1 : QUIT_SECONDS * 1000))
        return CTL_OK;
    log_warn("'%s' does not answer: its process %d is killed", called(m), pid);
    if (kill(pid, SIGKILL) && errno != ESRCH) {
        log_error("cannot kill process %d: %s", pid, strerror(errno));
        return CTL_HOST_FAILURE;
    }
    return wait_gone(pid, QUIT_SECONDS * 1000) ? CTL_OK : CTL_HOST_FAILURE;
}

int ctl_cmd_kill(int argc, char **argv) {
    struct ask_machine m;
    int fd, status;

    if (wants_help(argc, argv,
                   "usage: bivisor kill NAME\n\nEnds a machine at once, as pulling its "
                   "plug does.\n" MACHINE_WORDS "when that was not done\n"))
        return CTL_OK;
    if (!take_only("kill", argc, argv, &m))
        return CTL_USAGE;
    fd = ask_connect(&m, QUIT_SECONDS);
    if (fd < 0)
        return CTL_HOST_FAILURE;
    status = end_run(fd, &m);
    close(fd);
    return status;
}

static bool take_seconds(const char *text, unsigned *out) {
    char *rest;
    unsigned long n = strtoul(text, &rest, 10);

    *out = (unsigned)n;
    if (*text >= '0' && *text <= '9' && !*rest && n <= 86400)
        return true;
    log_error("--timeout wants seconds, at most 86400, not '%s'", text);
    return false;
}

static bool take_stop(int argc, char **argv, struct stopping *s) {
    int at = 1;

    for (; at < argc; at++)
        if (!strcmp(argv[at], "--kill"))
            s->kill = true;
        else if (at + 1 < argc && !strcmp(argv[at], "--timeout")) {
            if (!take_seconds(argv[++at], &s->seconds))
                return false;
        } else
            break;
    return take_only("stop", argc - at + 1, argv + at - 1, &s->m);
}

static bool is_paused(int fd) {
    cJSON *answer = ask_quietly(fd, "{\"command\":\"about\"}\n");
    bool paused = cJSON_IsTrue(cJSON_GetObjectItem(answer, "paused"));

    cJSON_Delete(answer);
    return paused;
}

static int stop(int fd, const struct stopping *s) {
    int pid = ask_process(fd);
    cJSON *answer;

    if (is_paused(fd) && !s->kill) {
        log_error("'%s' is paused, and cannot shut down: `bivisor resume` comes first",
                  called(&s->m));
        return CTL_HOST_FAILURE;
    }
    answer = ask_quietly(fd, "{\"command\":\"powerdown\"}\n");
    if (!answer && pid > 1 && wait_gone(pid, QUIT_SECONDS * 1000))
        return CTL_OK; /* it shut down on its own just then */
    answer = ask_believe(answer);
    cJSON_Delete(answer);
    if (!answer)
        return CTL_HOST_FAILURE;
    if (wait_gone(pid, (int)s->seconds * 1000))
        return CTL_OK;
    if (s->kill)
        return end_run(fd, &s->m);
    log_error("'%s' has not shut down in %u s; `bivisor kill` ends it", called(&s->m),
              s->seconds);
    return CTL_HOST_FAILURE;
}

int ctl_cmd_stop(int argc, char **argv) {
    struct stopping s = {.seconds = STOP_SECONDS};
    int fd, status;

    if (wants_help(
            argc, argv,
            "usage: bivisor stop [--timeout SECONDS] [--kill] NAME\n\n"
            "Presses the power button of a machine, and waits until it has shut down.\n\n"
            "  --timeout SECONDS  how long that may take (default: 60)\n"
            "  --kill             end it then, as `bivisor kill` does\n" MACHINE_WORDS
            "when it still runs\n"))
        return CTL_OK;
    if (!take_stop(argc, argv, &s))
        return CTL_USAGE;
    fd = ask_connect(&s.m, QUIT_SECONDS);
    if (fd < 0)
        return CTL_HOST_FAILURE;
    status = stop(fd, &s);
    close(fd);
    return status;
}

/* --- snapshots --- */

/* NAME is the client's text: it becomes one of JSON's. */
static char *snapshot_line(const char *name, bool quit, bool incremental, bool zstd) {
    cJSON *o = cJSON_CreateObject();
    char *text = NULL, *line = NULL;

    if (cJSON_AddStringToObject(o, "command", "snapshot") &&
        cJSON_AddStringToObject(o, "name", name) &&
        cJSON_AddBoolToObject(o, "quit", quit) &&
        cJSON_AddBoolToObject(o, "incremental", incremental) &&
        cJSON_AddBoolToObject(o, "zstd", zstd))
        text = cJSON_PrintUnformatted(o);
    if (text && asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    cJSON_free(text);
    cJSON_Delete(o);
    return line;
}

int ctl_cmd_snapshot(int argc, char **argv) {
    bool quit = false, incremental = false, zstd = false;
    struct ask_machine m;
    cJSON *answer = NULL;
    char *line;
    int words;

    if (wants_help(
            argc, argv,
            "usage: bivisor snapshot [--quit] [--incremental] [--zstd] NAME SNAPSHOT\n\n"
            "Writes all of a machine to files called SNAPSHOT and SNAPSHOT.ram in the\n"
            "directory that its run has by --snapshots; `bivisor restore` goes on from "
            "them.\n\n"
            "  --quit         the run ends there: its disks stay what the guest "
            "remembers\n"
            "  --incremental  SNAPSHOT.ram has only what changed since the last one, "
            "which has\n                 to stay where it is\n"
            "  --zstd         memory is packed while the machine goes on: "
            "SNAPSHOT.ram.zst;\n                 it is unpacked before a machine "
            "goes on from it\n" MACHINE_WORDS "when there is no snapshot\n"))
        return CTL_OK;
    for (; argc > 1; argc--, argv++) {
        if (!strcmp(argv[1], "--quit"))
            quit = true;
        else if (!strcmp(argv[1], "--incremental"))
            incremental = true;
        else if (!strcmp(argv[1], "--zstd"))
            zstd = true;
        else
            break;
    }
    words = ask_take_machine("snapshot", argc - 1, argv + 1, &m);
    if (words < 0)
        return CTL_USAGE;
    if (argc != words + 2) {
        log_error("snapshot wants a machine and what the snapshot is called");
        return CTL_USAGE;
    }
    line = snapshot_line(argv[1 + words], quit, incremental, zstd);
    if (!line)
        log_error("out of memory");
    answer = line ? ask_long(&m, line) : NULL;
    free(line);
    cJSON_Delete(answer);
    return answer ? CTL_OK : CTL_HOST_FAILURE;
}

/* --- quotas --- */

/* The line of the command for COUNT words; false after a message. */
static bool quota_line(int count, char *const *word, char line[96]) {
    bool memory = count == 2 && !strcmp(word[0], "memory");
    const char *what = word[count - 1];
    bool none = !strcmp(what, "none");
    unsigned percent = 0;
    uint64_t size = 0;

    if (count == 2 && !memory && strcmp(word[0], "cpu") != 0) {
        log_error("quota is of cpu or of memory, not of '%s'", word[0]);
        return false;
    }
    if (!none && (memory ? !options_size("quota", what, &size)
                         : !options_percent("quota", what, QUOTA_MAX, &percent)))
        return false;
    if (memory && !none && (size < MIB || size / MIB > QUOTA_MIB_MAX)) {
        log_error("quota wants a size from 1M to 1024G, not '%s'", what);
        return false;
    }
    snprintf(line, 96, "{\"command\":\"quota\",\"%s\":%llu}\n", memory ? "memory" : "cpu",
             memory ? (unsigned long long)(size / MIB) : percent);
    return true;
}

int ctl_cmd_quota(int argc, char **argv) {
    struct ask_machine m;
    char line[96];
    int words;

    if (wants_help(
            argc, argv,
            "usage: bivisor quota NAME [cpu] PERCENT%|none\n"
            "       bivisor quota NAME memory SIZE|none\n\nBounds what a machine uses "
            "of the host's CPUs, of which 100% is one, or of its memory:\nthe balloon "
            "takes what is above SIZE. The machine has one by --memory-ceiling, or "
            "--balloon.\n" MACHINE_WORDS "when that was not done\n"))
        return CTL_OK;
    words = ask_take_machine("quota", argc - 1, argv + 1, &m);
    if (words < 0)
        return CTL_USAGE;
    if (argc != words + 2 && argc != words + 3) {
        log_error("quota wants a machine and PERCENT%%, or memory and SIZE; or none");
        return CTL_USAGE;
    }
    if (!quota_line(argc - 1 - words, argv + 1 + words, line))
        return CTL_USAGE;
    return request_of(&m, line);
}

/* --- limits --- */

/* The line of the command; false after a message. */
static bool limit_line(char *const word[3], char line[256]) {
    bool bytes =
        !strcmp(word[1], "bytes") || !strcmp(word[1], "in") || !strcmp(word[1], "out");
    struct rate_limit l = {0};

    if (strspn(word[0], "abcdefghijklmnopqrstuvwxyz0123456789") != strlen(word[0]) ||
        strspn(word[1], "abcdefghijklmnopqrstuvwxyz-") != strlen(word[1]) ||
        strlen(word[0]) > 16 || strlen(word[1]) > 16) {
        log_error(
            "limit wants a device such as disk0 or net0, and what is to be limited");
        return false;
    }
    if (strcmp(word[2], "none") != 0 && !options_rate("limit", word[2], bytes, &l))
        return false;
    snprintf(line, 256,
             "{\"command\":\"limit\",\"device\":\"%s\",\"what\":\"%s\","
             "\"amount\":%llu%s%llu}\n",
             word[0], word[1], (unsigned long long)l.amount,
             l.amount ? ",\"burst\":" : ",\"once\":", (unsigned long long)rate_holds(&l));
    return true;
}

int ctl_cmd_limit(int argc, char **argv) {
    struct ask_machine m;
    char line[256];
    int words;

    if (wants_help(argc, argv,
                   "usage: bivisor limit NAME DEVICE WHAT AMOUNT[:BURST]|none\n\n"
                   "Bounds what a disk (disk0, disk1...), a network card (net0...), the "
                   "source of\nentropy (rng0) or a serial port's output (serial0...) of "
                   "a machine may do in a\nsecond, and BURST at once. WHAT is bytes or "
                   "operations of a disk and of rng0;\nin, in-frames, out or out-frames "
                   "of a card; bytes of a serial port, which drops\nwhat is too "
                   "much.\n" MACHINE_WORDS "when that was not done\n"))
        return CTL_OK;
    words = ask_take_machine("limit", argc - 1, argv + 1, &m);
    if (words < 0)
        return CTL_USAGE;
    if (argc != words + 4) {
        log_error("limit wants a machine, DEVICE, WHAT and AMOUNT, or none");
        return CTL_USAGE;
    }
    if (!limit_line(argv + 1 + words, line))
        return CTL_USAGE;
    return request_of(&m, line);
}

/* --- forwards --- */

#define FORWARD_CHARS "abcdefghijklmnopqrstuvwxyz0123456789.:"

static int list_forwards(const cJSON *answer) {
    const cJSON *v;

    cJSON_ArrayForEach(v, cJSON_GetObjectItem(answer, "forwards")) {
        const cJSON *forward = cJSON_GetObjectItem(v, "forward");

        if (cJSON_IsString(forward) &&
            !forward->valuestring[strspn(forward->valuestring, FORWARD_CHARS)])
            printf("net%d %s\n", (int)cJSON_GetNumberValue(cJSON_GetObjectItem(v, "net")),
                   forward->valuestring);
    }
    return CTL_OK;
}

/* The line of the command for what stands behind the machine; false after a message. */
static bool forward_line(int count, char *const *word, char line[256]) {
    bool add = count > 1 && !strcmp(word[0], "add");
    unsigned net = 0;

    if (!count) {
        strcpy(line, "{\"command\":\"forward\"}\n");
        return true;
    }
    if (count < 2 || count > 3 || (!add && strcmp(word[0], "drop") != 0) ||
        word[1][strspn(word[1], FORWARD_CHARS)] || strlen(word[1]) > 127) {
        log_error(
            "forward wants a machine, add or drop, and PROTOCOL:[ADDR]:PORT:GUESTPORT");
        return false;
    }
    if (count == 3 && (sscanf(word[2], "net%u", &net) != 1 || net > 99)) {
        log_error("forward wants net0 or another network, not '%s'", word[2]);
        return false;
    }
    snprintf(line, 256, "{\"command\":\"forward\",\"net\":%u,\"%s\":\"%s\"}\n", net,
             word[0], word[1]);
    return true;
}

int ctl_cmd_forward(int argc, char **argv) {
    struct ask_machine m;
    cJSON *answer;
    char line[256];
    int words, status;

    if (wants_help(
            argc, argv,
            "usage: bivisor forward NAME [add|drop PROTOCOL:[ADDR]:PORT:GUESTPORT "
            "[netN]]\n\n"
            "Lists ports of this host that lead to a machine's guest, or makes or "
            "removes one,\nas forward= of --net has it: tcp::2222:22. netN is which "
            "--net, net0 the first.\n" MACHINE_WORDS "when that was not done\n"))
        return CTL_OK;
    words = ask_take_machine("forward", argc - 1, argv + 1, &m);
    if (words < 0 || !forward_line(argc - 1 - words, argv + 1 + words, line))
        return CTL_USAGE;
    answer = ask_once(&m, line);
    status = answer ? list_forwards(answer) : CTL_HOST_FAILURE;
    cJSON_Delete(answer);
    return status;
}

/* --- statistics --- */

int ctl_cmd_stats(int argc, char **argv) {
    struct ask_machine m;
    cJSON *answer;
    char *text;

    if (wants_help(argc, argv,
                   "usage: bivisor stats NAME\n\nWrites what --stats would write at the "
                   "end, as it is now.\n" MACHINE_WORDS
                   "when the machine does not tell\n"))
        return CTL_OK;
    if (!take_only("stats", argc, argv, &m))
        return CTL_USAGE;
    answer = ask_once(&m, "{\"command\":\"stats\"}\n");
    if (!answer)
        return CTL_HOST_FAILURE;
    text = cJSON_Print(cJSON_GetObjectItem(answer, "stats"));
    if (text)
        puts(text);
    cJSON_free(text);
    cJSON_Delete(answer);
    return text ? CTL_OK : CTL_HOST_FAILURE;
}
