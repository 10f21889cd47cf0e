/*
 * `bivisor do` and `bivisor cp`: commands and files in a machine that runs, by the agent
 * that its guest has (exec/session.h): that of `bivisor exec --name`, or the program that
 * `bivisor agent` writes.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/ask.h"
#include "ctl/ctl.h"
#include "exec/session.h"

#define ENV_MAX 128
#define PATH_IN_GUEST "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* --- the agent --- */

/* A connection to the agent of the machine, or -1 after a message. */
static int connect_agent(const struct ask_machine *m) {
    cJSON *answer = ask_once(m, "{\"command\":\"about\"}\n");
    const cJSON *path = cJSON_GetObjectItem(answer, "vsock");
    int agent = -1, rc;

    if (cJSON_IsString(path)) {
        agent = ask_try(path->valuestring, 0);
        rc = agent < 0 ? agent : exec_session_connect(agent);
        if (rc) {
            log_error(rc == -ECONNREFUSED
                          ? "nobody answers in the guest: `bivisor agent` "
                            "tells how the agent gets there"
                          : "cannot connect to the guest: %s",
                      strerror(-rc));
            if (agent >= 0)
                close(agent);
            agent = -1;
        }
    } else if (answer) {
        log_error("the machine has no sockets to its guest: --vsock CID=3 gives it some");
    }
    cJSON_Delete(answer);
    return agent;
}

/* --- do --- */

struct order {
    struct ask_machine m;
    struct exec_command c;
    unsigned uid, gid;
    char *env[ENV_MAX + 1];
    unsigned env_count;
};

static void print_do_help(void) {
    printf(
        "usage: bivisor do [OPTION...] NAME [--] COMMAND [ARGUMENT...]\n"
        "\n"
        "Runs a command in a machine that runs: what it writes comes out here, what "
        "comes\n"
        "in here it reads, and its status is this one's. The guest must have the agent:\n"
        "that of `bivisor exec --name` has; for others see `bivisor agent --help`.\n"
        "\n"
        "  --user UID[:GID]  whose it is (default: root's)\n"
        "  --cwd DIR         where it starts (default: /)\n"
        "  --env NAME=VALUE  one more variable for it\n"
        "\n"
        "exit status: the command's; 128 + N when signal N ended it; 127 when it was "
        "not\n"
        "found, 126 when it could not be executed; 125 when it could not be asked for\n"
        "\n"
        "example: bivisor do web -- sh -c 'cat >/etc/motd' <motd\n");
}

enum { OPT_USER = 256, OPT_CWD, OPT_ENV, OPT_CONTROL, OPT_HELP };

static const struct option do_options[] = {
    {"user", required_argument, NULL, OPT_USER},
    {"cwd", required_argument, NULL, OPT_CWD},
    {"env", required_argument, NULL, OPT_ENV},
    {"help", no_argument, NULL, OPT_HELP},
    {"control", required_argument, NULL, OPT_CONTROL},
    {0},
};

static bool take_id(const char *text, char end, unsigned *out) {
    char *rest;
    unsigned long n = strtoul(text, &rest, 10);

    *out = (unsigned)n;
    return *text >= '0' && *text <= '9' && n < UINT32_MAX &&
           (!*rest || (end && *rest == end));
}

static bool take_user(struct order *o, const char *text) {
    const char *colon = strchr(text, ':');

    if (take_id(text, ':', &o->uid) && (!colon || take_id(colon + 1, 0, &o->gid))) {
        if (!colon)
            o->gid = o->uid;
        return true;
    }
    log_error("--user wants numbers, UID or UID:GID, not '%s'", text);
    return false;
}

static bool put_env(struct order *o, const char *text) {
    if (!strchr(text, '=') || o->env_count == ENV_MAX) {
        log_error("--env wants NAME=VALUE, at most %d times, not '%s'", ENV_MAX - 8,
                  text);
        return false;
    }
    o->env[o->env_count++] = (char *)(uintptr_t)text;
    return true;
}

/* -1 to go on, or the exit status. */
static int parse_do(struct order *o, int argc, char **argv) {
    int opt, words;
    char *control = NULL;

    argv[0] = (char *)(uintptr_t) "bivisor do";
    while ((opt = getopt_long(argc, argv, "+", do_options, NULL)) >= 0) {
        bool good = true;

        if (opt == OPT_HELP) {
            print_do_help();
            return CTL_OK;
        }
        if (opt == OPT_USER)
            good = take_user(o, optarg);
        else if (opt == OPT_CWD)
            o->c.cwd = optarg;
        else if (opt == OPT_ENV)
            good = put_env(o, optarg);
        else if (opt == OPT_CONTROL)
            control = optarg;
        else
            return EXEC_MACHINE_FAILED;
        if (!good)
            return EXEC_MACHINE_FAILED;
    }
    if (control) {
        char *pair[] = {(char *)(uintptr_t) "--control", control};

        words = ask_take_machine("do", 2, pair, &o->m) < 0 ? -1 : 0;
    } else {
        words = ask_take_machine("do", argc - optind, argv + optind, &o->m);
    }
    if (words < 0)
        return EXEC_MACHINE_FAILED;
    optind += words;
    if (optind < argc && !strcmp(argv[optind], "--"))
        optind++;
    if (optind == argc) {
        log_error("a command is missing; `bivisor do --help` shows an example");
        return EXEC_MACHINE_FAILED;
    }
    o->c.argv = argv + optind;
    return -1;
}

static void look_at_terminal(struct order *o) {
    static char term[128];
    struct winsize w;

    for (int fd = 0; fd < 3; fd++) {
        if (!isatty(fd))
            continue;
        o->c.tty |= 1u << fd;
        if (!ioctl(fd, TIOCGWINSZ, &w)) {
            o->c.columns = w.ws_col;
            o->c.rows = w.ws_row;
        }
    }
    if (o->c.tty && getenv("TERM")) {
        snprintf(term, sizeof(term), "TERM=%s", getenv("TERM"));
        put_env(o, term);
    }
}

int ctl_cmd_do(int argc, char **argv) {
    struct order *o = calloc(1, sizeof(*o));
    int status = EXEC_MACHINE_FAILED, fd;

    if (!o) {
        log_error("out of memory");
        return status;
    }
    o->c.cwd = "/";
    o->c.envp = o->env;
    put_env(o, PATH_IN_GUEST);
    put_env(o, "HOME=/root");
    status = parse_do(o, argc, argv);
    if (status < 0) {
        look_at_terminal(o);
        fd = connect_agent(&o->m);
        status = fd < 0 ? EXEC_MACHINE_FAILED : exec_session(fd, &o->c, o->uid, o->gid);
        if (fd >= 0)
            close(fd);
    }
    free(o);
    return status;
}

/* --- cp --- */

/* Behind NAME: in WORD, which is cut there; NULL: it is a file of this host's. */
static char *guest_path(char *word) {
    char *colon = strchr(word, ':'), *slash = strchr(word, '/');

    if (!colon || (slash && slash < colon))
        return NULL;
    *colon = 0;
    return colon + 1;
}

static int put_file(const struct ask_machine *m, const char *from, const char *to) {
    bool in = !strcmp(from, "-");
    int fd = in ? STDIN_FILENO : open(from, O_RDONLY | O_CLOEXEC), agent, rc = -EIO;
    struct stat st = {.st_mode = 0644};

    if (fd < 0 || (!in && fstat(fd, &st))) {
        log_error("cannot read '%s': %s", from, strerror(errno));
    } else if (!in && S_ISDIR(st.st_mode)) {
        log_error("'%s' is a directory: tar(1) and `bivisor do` copy those", from);
    } else if ((agent = connect_agent(m)) >= 0) {
        rc = exec_session_put(agent, fd, st.st_mode & 0777, to);
        close(agent);
    }
    if (fd > STDERR_FILENO)
        close(fd);
    return rc ? CTL_HOST_FAILURE : CTL_OK;
}

/* What is there already stays until the whole of the new one has come. */
static int get_to(int agent, const char *from, const char *to) {
    unsigned mode = 0;
    char *other;
    int fd, rc;

    if (asprintf(&other, "%s.XXXXXX", to) < 0)
        return -ENOMEM;
    fd = mkostemp(other, O_CLOEXEC);
    if (fd < 0) {
        log_error("cannot write '%s': %s", to, strerror(errno));
        free(other);
        return -EIO;
    }
    rc = exec_session_get(agent, fd, &mode, from);
    if (!rc && (fchmod(fd, mode) || close(fd) || rename(other, to))) {
        log_error("cannot write '%s': %s", to, strerror(errno));
        rc = -EIO;
    }
    if (rc)
        unlink(other);
    free(other);
    return rc;
}

/* A device, or a directory, is not replaced by a file. */
static bool may_replace(const char *to) {
    struct stat st;

    if (!strcmp(to, "-") || stat(to, &st) || S_ISREG(st.st_mode))
        return true;
    log_error("'%s' is not an ordinary file; '-' writes to standard output", to);
    return false;
}

static int get_file(const struct ask_machine *m, const char *from, const char *to) {
    int agent, rc;
    unsigned mode;

    if (!may_replace(to))
        return CTL_HOST_FAILURE;
    agent = connect_agent(m);
    if (agent < 0)
        return CTL_HOST_FAILURE;
    rc = !strcmp(to, "-") ? exec_session_get(agent, STDOUT_FILENO, &mode, from)
                          : get_to(agent, from, to);
    close(agent);
    return rc ? CTL_HOST_FAILURE : CTL_OK;
}

int ctl_cmd_cp(int argc, char **argv) {
    char *from, *to;
    struct ask_machine m;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        printf("usage: bivisor cp FILE NAME:PATH | bivisor cp NAME:PATH FILE\n"
               "\n"
               "Copies a file into a machine that runs, or out of it; its mode goes with "
               "it, and\n"
               "what was there stays until all has come. FILE may be -, standard input "
               "or output.\n"
               "The guest must have the agent: `bivisor do --help` tells more.\n"
               "\n"
               "exit status: 0; 1 when it could not be copied; 2 bad usage\n");
        return CTL_OK;
    }
    from = argc == 3 ? guest_path(argv[1]) : NULL;
    to = argc == 3 ? guest_path(argv[2]) : NULL;
    if (!from == !to || !*(from ? from : to)) {
        log_error("cp wants FILE NAME:PATH, or NAME:PATH FILE; `bivisor cp --help` tells "
                  "more");
        return CTL_USAGE;
    }
    if (ask_take_machine("cp", 1, argv + (from ? 1 : 2), &m) < 0)
        return CTL_USAGE;
    return from ? get_file(&m, from, argv[2]) : put_file(&m, argv[1], to);
}

/* --- agent --- */

int ctl_cmd_agent(int argc, char **argv) {
    const uint8_t *bytes;
    size_t len;

    if (argc != 1) {
        bool help = !strcmp(argv[1], "--help");

        if (!help)
            log_error("agent wants nothing; `bivisor agent --help` tells more");
        else
            printf(
                "usage: bivisor agent >FILE\n"
                "\n"
                "Writes the program that `bivisor do` and `bivisor cp` want in a guest: "
                "static,\n"
                "for x86-64 Linux with vsock. Copy it into the guest, and let a service "
                "start it\n"
                "as root; the machine wants --vsock CID=3. Who may connect to the "
                "machine's socket\n"
                "on the host is root in the guest.\n");
        return help ? CTL_OK : CTL_USAGE;
    }
    if (isatty(STDOUT_FILENO)) {
        log_error("standard output is a terminal, and the agent is a program: give it a "
                  "file");
        return CTL_USAGE;
    }
    exec_agent_image(&bytes, &len);
    return fwrite(bytes, len, 1, stdout) == 1 ? CTL_OK : CTL_HOST_FAILURE;
}
