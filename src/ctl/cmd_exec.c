/*
 * `bivisor exec`: runs a command in a machine whose root is a directory of the host's
 * (exec/). The machine is a `bivisor run` in a process of its own, which ends with this
 * one; what it is given are the ends of sockets that are the command's input and output.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "ctl/ctl.h"
#include "ctl/runtime.h"
#include "exec/exec.h"

#define DEFAULT_MEMORY "1G"
#define PATH_IN_ROOT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define ENV_MAX 4096
#define WORDS 48
/* Nobody changes what an overlay is over, is the rule: names are asked for rarely. */
#define VALID_SECONDS "10"

struct options {
    const char *kernel, *root, *cwd, *memory, *cpus, *engine, *direct, *jail, *append,
        *stats, *name;
    bool rw, net, as_root, verbose;
    const char *env[64]; /* NAME or NAME=VALUE */
    unsigned env_count;
};

/* All that is made, and goes at the end. */
struct exec {
    struct options o;
    struct exec_kernel kernel;
    struct exec_modules modules;
    const struct root_type *type;
    struct exec_command command;
    char *env[ENV_MAX + 1];
    unsigned env_count;
    char cwd[4096], tree[PATH_MAX]; /* TREE: where the modules are */
    int initrd;
    int ours[EXEC_PORTS], theirs[EXEC_PORTS], log[2];
    char *words[WORDS + 1]; /* of `bivisor run` */
    unsigned count;
};

static void print_help(void) {
    printf(
        "usage: bivisor exec [OPTION...] [--] COMMAND [ARGUMENT...]\n"
        "\n"
        "Runs a command in a virtual machine that has this host's files: what it writes\n"
        "comes out here, what comes in here it reads, and its status is this one's. The\n"
        "command can read what you can read. What it changes is in the machine's "
        "memory,\n"
        "and gone afterwards.\n"
        "\n"
        "  --kernel K      a bzImage, or a directory in which a kernel's package is\n"
        "                  unpacked, with its modules (default: this host's, of /boot)\n"
        "  --root DIR      a directory that is the command's root instead of /\n"
        "  --rw            changes are made to the files themselves, as you could\n"
        "  --net           a network card, with the user network\n"
        "  --as-root       the command is root's, in the machine\n"
        "  --cwd DIR       where it starts (default: here, if that is in the root)\n"
        "  --env NAME[=V]  one more variable for it\n"
        "  --cpus N, --memory SIZE, --engine NAME, --direct MODE, --jail MODE,\n"
        "  --stats=FILE\n"
        "                  as for `bivisor run` (default: 1 CPU, " DEFAULT_MEMORY ")\n"
        "  --name NAME     `bivisor do NAME` runs others in the machine meanwhile\n"
        "  --append TEXT   more for the kernel's command line\n"
        "  --verbose       show what the kernel says\n"
        "\n"
        "exit status: the command's; 128 + N when signal N ended it; 127 when it was "
        "not\n"
        "found, 126 when it could not be executed; 125 when the machine failed\n"
        "\n"
        "example: bivisor exec --kernel ./linux-image -- make check\n");
}

enum {
    OPT_KERNEL = 256,
    OPT_ROOT,
    OPT_RW,
    OPT_NET,
    OPT_AS_ROOT,
    OPT_CWD,
    OPT_ENV,
    OPT_CPUS,
    OPT_MEMORY,
    OPT_ENGINE,
    OPT_DIRECT,
    OPT_JAIL,
    OPT_STATS,
    OPT_APPEND,
    OPT_NAME,
    OPT_VERBOSE,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"kernel", required_argument, NULL, OPT_KERNEL},
    {"root", required_argument, NULL, OPT_ROOT},
    {"rw", no_argument, NULL, OPT_RW},
    {"net", no_argument, NULL, OPT_NET},
    {"as-root", no_argument, NULL, OPT_AS_ROOT},
    {"cwd", required_argument, NULL, OPT_CWD},
    {"env", required_argument, NULL, OPT_ENV},
    {"cpus", required_argument, NULL, OPT_CPUS},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"engine", required_argument, NULL, OPT_ENGINE},
    {"direct", required_argument, NULL, OPT_DIRECT},
    {"jail", required_argument, NULL, OPT_JAIL},
    {"stats", required_argument, NULL, OPT_STATS},
    {"name", required_argument, NULL, OPT_NAME},
    {"append", required_argument, NULL, OPT_APPEND},
    {"verbose", no_argument, NULL, OPT_VERBOSE},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

static bool take_option(struct options *o, int opt) {
    switch (opt) {
    case OPT_KERNEL:
        o->kernel = optarg;
        return true;
    case OPT_ROOT:
        o->root = optarg;
        return true;
    case OPT_RW:
        o->rw = true;
        return true;
    case OPT_NET:
        o->net = true;
        return true;
    case OPT_AS_ROOT:
        o->as_root = true;
        return true;
    case OPT_CWD:
        o->cwd = optarg;
        return true;
    case OPT_ENV:
        if (o->env_count == ARRAY_SIZE(o->env))
            return false;
        o->env[o->env_count++] = optarg;
        return true;
    case OPT_CPUS:
        o->cpus = optarg;
        return true;
    case OPT_MEMORY:
        o->memory = optarg;
        return true;
    case OPT_ENGINE:
        o->engine = optarg;
        return true;
    case OPT_DIRECT:
        o->direct = optarg;
        return true;
    case OPT_JAIL:
        o->jail = optarg;
        return true;
    case OPT_STATS:
        o->stats = optarg;
        return true;
    case OPT_NAME:
        o->name = optarg;
        return runtime_check_name(optarg);
    case OPT_APPEND:
        o->append = optarg;
        return true;
    case OPT_VERBOSE:
        o->verbose = true;
        return true;
    default:
        return false; /* getopt_long() has complained */
    }
}

/* -1 to go on, or the exit status. */
static int parse(struct exec *x, int argc, char **argv) {
    int opt;

    argv[0] = (char *)(uintptr_t) "bivisor exec";
    while ((opt = getopt_long(argc, argv, "+", long_options, NULL)) >= 0) {
        if (opt == OPT_HELP) {
            print_help();
            return CTL_OK;
        }
        if (!take_option(&x->o, opt))
            return EXEC_MACHINE_FAILED;
    }
    if (optind == argc) {
        log_error("a command is missing; `bivisor exec --help` shows an example");
        return EXEC_MACHINE_FAILED;
    }
    x->command.argv = argv + optind;
    return -1;
}

/* --- the command's environment --- */

static bool is_name(const char *variable, const char *name) {
    size_t len = strlen(name);

    return !strncmp(variable, name, len) &&
           (variable[len] == '=' || (len && name[len - 1] == '_'));
}

/* Names of things that the machine does not have. */
static const char *const left_out[] = {"DISPLAY",        "WAYLAND_DISPLAY",
                                       "XAUTHORITY",     "XDG_RUNTIME_DIR",
                                       "XDG_SESSION_",   "DBUS_",
                                       "SSH_",           "GPG_AGENT_INFO",
                                       "TMUX",           "STY",
                                       "WINDOWID",       "SESSION_MANAGER",
                                       "LISTEN_",        "NOTIFY_SOCKET",
                                       "INVOCATION_ID",  "LD_PRELOAD",
                                       "JOURNAL_STREAM", "PULSE_SERVER",
                                       "MAKEFLAGS",      "OLDPWD"};
/* In a root that is not the host's: what is not about its files. */
static const char *const good_anywhere[] = {"TERM", "LANG",      "LC_",
                                            "TZ",   "COLORTERM", "NO_COLOR"};

static bool listed(const char *variable, const char *const *names, size_t count) {
    for (size_t n = 0; n < count; n++)
        if (is_name(variable, names[n]))
            return true;
    return false;
}

static void put_env(struct exec *x, const char *variable) {
    if (x->env_count < ENV_MAX)
        x->env[x->env_count++] = (char *)(uintptr_t)variable;
}

static void make_env(struct exec *x) {
    for (char **e = environ; *e; e++)
        if (x->o.root ? listed(*e, good_anywhere, ARRAY_SIZE(good_anywhere))
                      : !listed(*e, left_out, ARRAY_SIZE(left_out)))
            put_env(x, *e);
    if (x->o.root) {
        put_env(x, "PATH=" PATH_IN_ROOT);
        put_env(x, "HOME=/");
    }
    for (unsigned n = 0; n < x->o.env_count; n++) {
        const char *v = x->o.env[n];

        if (strchr(v, '='))
            put_env(x, v);
        else
            for (char **e = environ; *e; e++)
                if (is_name(*e, v))
                    put_env(x, *e);
    }
    x->command.envp = x->env;
}

static void look_at_terminal(struct exec_command *c) {
    struct winsize w;

    for (int fd = 0; fd < 3; fd++) {
        if (!isatty(fd))
            continue;
        c->tty |= 1u << fd;
        if (!ioctl(fd, TIOCGWINSZ, &w)) {
            c->columns = w.ws_col;
            c->rows = w.ws_row;
        }
    }
}

/* What the guest needs besides its root's file system. */
static const struct exec_need always[] = {{"virtio_pci", "virtio over PCI"},
                                          {"virtio_console", "virtio console"}};
static const struct exec_need over[] = {{"overlay", "overlay file system"}};
static const struct exec_need agent[] = {
    {"vmw_vsock_virtio_transport", "sockets to the host over virtio"}};
static const struct exec_need net[] = {{"virtio_net", "virtio network cards"}};
/* The root's file systems, the better one first. */
static const struct root_type {
    const char *type, *options, *share;
    bool valid; /* the share has that word */
    struct exec_need needs[2];
    unsigned count;
} root_types[] = {
    {"virtiofs", "", ",type=fs", true, {{"virtiofs", "virtio-fs"}}, 1},
    {"9p",
     "trans=virtio,version=9p2000.L,msize=512000,cache=loose,access=any",
     "",
     false,
     {{"9pnet_virtio", "virtio-fs, nor 9P over virtio"},
      {"9p", "virtio-fs, nor 9P file system"}},
     2},
};

static unsigned put_needs(struct exec_need *to, unsigned at, const struct exec_need *from,
                          unsigned count) {
    memcpy(to + at, from, count * sizeof(*from));
    return at + count;
}

static int load_modules(struct exec *x, const struct root_type *t, char *why,
                        size_t why_size) {
    struct exec_need needs[8];
    unsigned n = put_needs(needs, 0, always, ARRAY_SIZE(always));

    n = put_needs(needs, n, t->needs, t->count);
    if (!x->o.rw)
        n = put_needs(needs, n, over, ARRAY_SIZE(over));
    if (x->o.net)
        n = put_needs(needs, n, net, ARRAY_SIZE(net));
    if (x->o.name)
        n = put_needs(needs, n, agent, ARRAY_SIZE(agent));
    x->type = t;
    return exec_modules_load(&x->kernel, needs, n, &x->modules, why, why_size);
}

static int find_kernel(struct exec *x) {
    char why[512];
    int rc = exec_kernel_find(x->o.kernel, &x->kernel, why, sizeof(why));

    if (!rc) {
        rc = -ENOENT;
        for (size_t n = 0; n < ARRAY_SIZE(root_types) && rc == -ENOENT; n++)
            rc = load_modules(x, &root_types[n], why, sizeof(why));
    }
    if (rc)
        log_error("%s", why);
    return rc;
}

/* The modules of a kernel that the root knows nothing of are put into it: the whole of
 * the host's files has them already, another root has not. */
static void find_tree(struct exec *x) {
    struct exec_command *c = &x->command;
    char own[sizeof(x->kernel.release) + 16];

    snprintf(own, sizeof(own), "/lib/modules/%s", x->kernel.release);
    if (!*x->kernel.modules || !realpath(x->kernel.modules, x->tree) ||
        (!x->o.root && !strcmp(x->kernel.modules, own)))
        return;
    c->release = x->kernel.release;
    c->tree = x->o.root ? "" : x->tree;
}

static void describe(struct exec *x) {
    struct exec_command *c = &x->command;

    if (!x->o.cwd && !getcwd(x->cwd, sizeof(x->cwd)))
        strcpy(x->cwd, "/");
    c->cwd = x->o.cwd ? x->o.cwd : x->cwd;
    c->rw = x->o.rw;
    c->net = x->o.net;
    c->agent = x->o.name;
    c->as_root = x->o.as_root;
    c->type = x->type->type;
    c->options = x->type->options;
    find_tree(x);
    make_env(x);
    look_at_terminal(c);
}

/* --- the machine --- */

static void put_word(struct exec *x, const char *word) {
    if (x->count < WORDS)
        x->words[x->count++] = (char *)(uintptr_t)word;
}

static void put_option(struct exec *x, const char *name, const char *value) {
    if (!value)
        return;
    put_word(x, name);
    put_word(x, value);
}

/* NULL when memory is short, which put_option() takes for none; then the machine fails.
 */
static char *text_of(const char *format, const char *a, int n) {
    char *text = NULL;

    return asprintf(&text, format, a, n) < 0 ? NULL : text;
}

static char *cmdline(const struct options *o) {
    char *text = NULL;

    if (asprintf(&text, "console=ttyS0 panic=-1 %s %s",
                 o->verbose ? "" : "quiet loglevel=4 cryptomgr.notests",
                 o->append ? o->append : "") < 0)
        return NULL;
    return text;
}

/* DIR, with its commas twice as --share wants it, as a share of that name. */
static char *share_of(const char *name, const char *dir, bool rw,
                      const struct root_type *type) {
    char *text = malloc(strlen(name) + 2 * strlen(dir) + 48), *to = text;

    if (!text)
        return NULL;
    to += sprintf(to, "%s=", name);
    for (; *dir; dir++) {
        *to++ = *dir;
        if (*dir == ',')
            *to++ = ',';
    }
    sprintf(to, "%s%s%s", rw ? "" : ",readonly", type->share,
            rw || !type->valid ? "" : ",valid=" VALID_SECONDS);
    return text;
}

static void make_words(struct exec *x) {
    const struct options *o = &x->o;

    put_word(x, "run");
    put_word(x, "--no-reboot");
    put_option(x, "--kernel", x->kernel.path);
    put_option(x, "--initrd", text_of("%s%d", "/proc/self/fd/", x->initrd));
    put_option(x, "--append", cmdline(o));
    put_option(x, "--memory", o->memory ? o->memory : DEFAULT_MEMORY);
    put_option(x, "--cpus", o->cpus);
    put_option(x, "--engine", o->engine);
    put_option(x, "--direct", o->direct);
    put_option(x, "--jail", o->jail);
    put_option(x, "--net", o->net ? "user" : NULL);
    if (o->stats)
        put_word(x, text_of("--stats=%s%.0d", o->stats, 0));
    put_option(x, "--name", o->name);
    put_option(x, "--vsock", o->name ? "CID=3" : NULL);
    put_option(x, "--share", share_of("root", o->root ? o->root : "/", o->rw, x->type));
    if (x->command.tree && !*x->command.tree)
        put_option(x, "--share", share_of("modules", x->tree, false, x->type));
    /* The first port is a console, which cannot be opened as the others are. */
    put_option(x, "--console", "null");
    for (unsigned n = 0; n < EXEC_PORTS; n++) {
        char *name = NULL;

        if (asprintf(&name, "fd=%d,name=%s", x->theirs[n], exec_port_names[n]) < 0)
            name = NULL;
        put_option(x, "--console", name);
    }
    put_word(x, NULL);
}

static bool make_ends(struct exec *x) {
    for (unsigned n = 0; n < EXEC_PORTS; n++) {
        int ends[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
            return false;
        x->ours[n] = ends[0];
        x->theirs[n] = ends[1];
    }
    return !pipe2(x->log, O_CLOEXEC);
}

/* In the machine's process: it has no terminal, and ends with its parent. */
static _Noreturn void be_machine(struct exec *x, pid_t parent) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), status;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(CTL_HOST_FAILURE);
    setsid();
    if (null >= 0)
        dup2(null, STDIN_FILENO);
    dup2(x->o.verbose ? STDERR_FILENO : x->log[1], STDOUT_FILENO);
    for (unsigned n = 0; n < EXEC_PORTS; n++)
        close(x->ours[n]);
    close(x->log[0]);
    close(x->log[1]);
    optind = 0; /* getopt(3) begins anew */
    status = ctl_run((int)x->count - 1, x->words, NULL);
    fflush(NULL);
    _exit(status);
}

static int run(struct exec *x) {
    struct exec_ends ends = {.log = x->log[0]};
    pid_t parent = getpid(), pid;

    pid = fork();
    if (!pid)
        be_machine(x, parent);
    if (pid < 0) {
        log_error("cannot make a process for the machine: %s", strerror(errno));
        return EXEC_MACHINE_FAILED;
    }
    for (unsigned n = 0; n < EXEC_PORTS; n++) {
        close(x->theirs[n]);
        ends.port[n] = x->ours[n];
    }
    close(x->log[1]);
    close(x->initrd);
    ends.machine = pid;
    return exec_pump(&ends, &x->command);
}

static int with_kernel(struct exec *x) {
    describe(x);
    x->initrd = exec_initrd_make(&x->command, &x->modules);
    exec_modules_free(&x->modules);
    if (x->initrd < 0 || !make_ends(x)) {
        log_error("cannot make an initial RAM disk, or sockets: %s", strerror(errno));
        return EXEC_MACHINE_FAILED;
    }
    make_words(x);
    return run(x);
}

int ctl_cmd_exec(int argc, char **argv) {
    struct exec *x = calloc(1, sizeof(*x));
    int status;

    if (!x) {
        log_error("out of memory");
        return EXEC_MACHINE_FAILED;
    }
    status = parse(x, argc, argv);
    if (status < 0)
        status = find_kernel(x) ? EXEC_MACHINE_FAILED : with_kernel(x);
    free(x);
    return status;
}
