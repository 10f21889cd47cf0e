/*
 * The first process of a machine that `bivisor exec` makes: it loads modules, makes the
 * host's directory the root, runs the command, and passes on what goes in and out. It is
 * in the initial RAM disk, with a file that says what to do (src/exec/initrd.c writes
 * it): strings that begin with a word and a `=`, each ended by a NUL.
 *
 * Four ports of the virtio console lead to the host (src/exec/pump.c):
 *
 *     exec.ctl  lines. To the host: `error TEXT`, `run`, `status N OUT ERR` with the
 *               numbers of bytes that were written. From it: `eof N` (there are N bytes
 *               of input in all), `signal N`, `size COLUMNS ROWS`.
 *     exec.in, exec.out, exec.err
 *
 * The command has pipes, or a terminal where its caller has one: programs open those
 * anew by /dev/stdout, which a port does not allow. What they write is passed on; when
 * the command has ended, what is in the pipes by then.
 */
#include "sys.h"

#define ARGS_MAX 4096
#define CONFIG "/config"
#define PIECE 65536

enum { IN, OUT, ERR, CTL, PORTS };
static const char *const port_names[PORTS] = {"exec.in", "exec.out", "exec.err",
                                              "exec.ctl"};

static struct {
    bool rw, net, superuser;
    const char *share_type, *share_options, *cwd, *hostname;
    unsigned uid, gid, tty; /* bits of the command's descriptors */
    unsigned columns, rows;
    unsigned groups[256];
    unsigned group_count;
    const char *modules[256];
    unsigned module_count;
    const char *argv[ARGS_MAX + 1], *envp[ARGS_MAX + 1];
    unsigned argc, envc;
} todo;

static int port[PORTS] = {-1, -1, -1, -1};
static char config[4 << 20];

/* --- words to the host --- */

static void write_all(int fd, const char *bytes, size_t len) {
    while (len) {
        long n = sys_write(fd, bytes, len);

        if (n == -EAGAIN || n == -EINTR) {
            struct pollfd p = {.fd = fd, .events = POLLOUT};

            sys(SYS_poll, P(&p), 1, -1, 0, 0);
            continue;
        }
        if (n <= 0)
            return;
        bytes += n;
        len -= (size_t)n;
    }
}

static void say(const struct text *t) {
    int fd = port[CTL] < 0 ? 2 : port[CTL];

    write_all(fd, t->s, t->len);
}

static _Noreturn void power_off(void) {
    sys(SYS_sync, 0, 0, 0, 0, 0);
    sys(SYS_reboot, (long)0xfee1dead, 672274793, 0x4321fedc, 0, 0);
    for (;;)
        sleep_ms(1000);
}

static _Noreturn void fail(const char *what, const char *which, long rc) {
    struct text t = {.len = 0};

    add(&t, "error ");
    add(&t, what);
    add(&t, which);
    if (rc) {
        add(&t, ": error ");
        add_number(&t, (unsigned long)-rc);
    }
    add(&t, "\n");
    say(&t);
    sleep_ms(10000); /* the host ends the machine when it has read that */
    power_off();
}

/* --- what to do --- */

static void take_groups(const char *s) {
    while (*s && todo.group_count < 256) {
        todo.groups[todo.group_count++] = (unsigned)number(s, &s);
        if (*s++ != ',')
            break;
    }
}

static void take(const char *s) {
    const char *v;

    if ((v = after(s, "arg=")) && todo.argc < ARGS_MAX)
        todo.argv[todo.argc++] = v;
    else if ((v = after(s, "env=")) && todo.envc < ARGS_MAX)
        todo.envp[todo.envc++] = v;
    else if ((v = after(s, "module=")) && todo.module_count < 256)
        todo.modules[todo.module_count++] = v;
    else if ((v = after(s, "type=")))
        todo.share_type = v;
    else if ((v = after(s, "options=")))
        todo.share_options = v;
    else if ((v = after(s, "cwd=")))
        todo.cwd = v;
    else if ((v = after(s, "hostname=")))
        todo.hostname = v;
    else if ((v = after(s, "uid=")))
        todo.uid = (unsigned)number(v, NULL);
    else if ((v = after(s, "gid=")))
        todo.gid = (unsigned)number(v, NULL);
    else if ((v = after(s, "groups=")))
        take_groups(v);
    else if ((v = after(s, "tty=")))
        todo.tty = (unsigned)number(v, NULL);
    else if ((v = after(s, "columns=")))
        todo.columns = (unsigned)number(v, NULL);
    else if ((v = after(s, "rows=")))
        todo.rows = (unsigned)number(v, NULL);
    else if (same(s, "rw="))
        todo.rw = true;
    else if (same(s, "net="))
        todo.net = true;
}

static long read_file(const char *path, char *buf, size_t size) {
    long fd = sys_open(path, O_RDONLY, 0), n, len = 0;

    if (fd < 0)
        return fd;
    while ((size_t)len < size &&
           (n = sys_read((int)fd, buf + len, size - (size_t)len)) > 0)
        len += n;
    sys_close((int)fd);
    return len;
}

static void read_config(void) {
    long len = read_file(CONFIG, config, sizeof(config) - 1);

    for (long at = 0; at < len; at += (long)length(config + at) + 1)
        take(config + at);
    if (len < 0 || !todo.argc || !todo.share_type || !todo.cwd)
        fail("the initial RAM disk says nothing to do", "", len);
}

/* --- modules and ports --- */

static void load_modules(void) {
    static char bytes[24 << 20];

    for (unsigned n = 0; n < todo.module_count; n++) {
        long len = read_file(todo.modules[n], bytes, sizeof(bytes)), rc = len;

        if (len >= 0)
            rc = sys(SYS_init_module, P(bytes), len, P(""), 0, 0);
        if (rc < 0 && rc != -17 && rc != -ENODEV) /* EEXIST: built in, or there */
            fail("cannot load the module ", todo.modules[n], rc);
    }
}

/* /dev/NAME of the port; false: it is none of ours, or not there yet. */
static bool open_port(const char *name) {
    struct text path = {.len = 0};
    char text[64];
    long len;

    add(&path, "/sys/class/virtio-ports/");
    add(&path, name);
    add(&path, "/name");
    len = read_file(path.s, text, sizeof(text) - 1);
    if (len <= 0)
        return false;
    text[text[len - 1] == '\n' ? len - 1 : len] = 0;
    for (unsigned n = 0; n < PORTS; n++)
        if (same(text, port_names[n]) && port[n] < 0) {
            path.len = 0;
            add(&path, "/dev/");
            add(&path, name);
            port[n] =
                (int)sys_open(path.s, (n == IN ? O_RDONLY : O_RDWR) | O_NONBLOCK, 0);
            return port[n] >= 0;
        }
    return false;
}

struct dirent {
    unsigned long ino, off;
    unsigned short len;
    char name[];
};

static void look_for_ports(void) {
    static char buf[4096];
    long fd = sys_open("/sys/class/virtio-ports", O_RDONLY | O_DIRECTORY, 0), len;

    if (fd < 0)
        return;
    while ((len = sys(SYS_getdents, fd, P(buf), sizeof(buf), 0, 0)) > 0)
        for (long at = 0; at < len;) {
            struct dirent *e = (void *)(buf + at);

            if (*e->name == 'v')
                open_port(e->name);
            at += e->len;
        }
    sys_close((int)fd);
}

static void open_ports(void) {
    for (unsigned n = 0; n < 30000; n++) {
        look_for_ports();
        if (port[IN] >= 0 && port[OUT] >= 0 && port[ERR] >= 0 && port[CTL] >= 0)
            return;
        sleep_ms(1);
    }
    fail("the kernel has no virtio console", "", 0);
}

/* --- the root --- */

static void must_mount(const char *what, const char *where, const char *type,
                       unsigned flags, const char *options) {
    long rc = sys_mount(what, where, type, flags, options);

    if (rc == -ENOENT && sys_mkdir(where, 0755) >= 0)
        rc = sys_mount(what, where, type, flags, options);
    if (rc == -ENODEV)
        fail("the kernel has no file system of type ", type, 0);
    if (rc < 0)
        fail("cannot mount ", where, rc);
}

static void early_mounts(void) {
    sys_mount("proc", "/proc", "proc", 0, NULL);
    sys_mount("sysfs", "/sys", "sysfs", 0, NULL);
    sys_mount("dev", "/dev", "devtmpfs", 0, NULL);
}

/* The share, or what is over it: then changes are in memory. */
static void mount_root(void) {
    if (todo.rw) {
        must_mount("root", "/new", todo.share_type, 0, todo.share_options);
        return;
    }
    must_mount("root", "/lower", todo.share_type, MS_RDONLY, todo.share_options);
    must_mount("over", "/over", "tmpfs", 0, "mode=0755");
    sys_mkdir("/over/upper", 0755);
    sys_mkdir("/over/work", 0755);
    must_mount("overlay", "/new", "overlay", 0,
               "lowerdir=/lower,upperdir=/over/upper,workdir=/over/work");
}

static void fill_root(void) {
    must_mount("proc", "/new/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    must_mount("sysfs", "/new/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    must_mount("dev", "/new/dev", "devtmpfs", MS_NOSUID, NULL);
    must_mount("devpts", "/new/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
               "gid=5,mode=620,ptmxmode=666");
    must_mount("shm", "/new/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    must_mount("run", "/new/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
    sys(SYS_symlink, P("/proc/self/fd"), P("/new/dev/fd"), 0, 0, 0);
    sys(SYS_symlink, P("/proc/self/fd/0"), P("/new/dev/stdin"), 0, 0, 0);
    sys(SYS_symlink, P("/proc/self/fd/1"), P("/new/dev/stdout"), 0, 0, 0);
    sys(SYS_symlink, P("/proc/self/fd/2"), P("/new/dev/stderr"), 0, 0, 0);
}

static void enter_root(void) {
    long rc = sys(SYS_chdir, P("/new"), 0, 0, 0, 0);

    if (!rc)
        rc = sys_mount(".", "/", NULL, MS_MOVE, NULL);
    if (!rc)
        rc = sys(SYS_chroot, P("."), 0, 0, 0, 0);
    if (rc)
        fail("cannot enter the root", "", rc);
}

/* --- the network --- */

struct ifreq {
    char name[16];
    union {
        struct {
            uint16_t family, port;
            uint32_t address;
            uint64_t zero;
        } in;
        short flags;
        char room[24];
    };
};

struct rtentry {
    unsigned long pad1;
    struct {
        uint16_t family, port;
        uint32_t address;
        uint64_t zero;
    } dst, gateway, mask;
    unsigned short flags;
    short pad2;
    unsigned long pad3;
    void *pad4;
    short metric;
    char *dev;
    unsigned long mtu, window;
    unsigned short irtt;
};

#define SIOCADDRT 0x890b
#define SIOCGIFFLAGS 0x8913
#define SIOCSIFFLAGS 0x8914
#define SIOCSIFADDR 0x8916
#define SIOCSIFNETMASK 0x891c
#define IFF_UP 1
#define AF_INET 2
#define ADDRESS(a, b, c, d) ((uint32_t)(a) | (b) << 8 | (c) << 16 | (uint32_t)(d) << 24)

static struct ifreq interface(const char *name) {
    struct ifreq r = {.name = ""};

    for (unsigned n = 0; name[n] && n < 15; n++)
        r.name[n] = name[n];
    return r;
}

static long bring_up(int fd, const char *name) {
    struct ifreq r = interface(name);
    long rc = sys_ioctl(fd, SIOCGIFFLAGS, &r);

    r.flags |= IFF_UP;
    return rc ? rc : sys_ioctl(fd, SIOCSIFFLAGS, &r);
}

/* The addresses of the user network (src/net/slirp.c). */
static long configure(int fd) {
    struct ifreq r = interface("eth0");
    struct rtentry route = {.flags = 3}; /* up, by a gateway */
    long rc = 0;

    r.in.family = AF_INET;
    r.in.address = ADDRESS(10, 0, 2, 15);
    rc = sys_ioctl(fd, SIOCSIFADDR, &r);
    r.in.address = ADDRESS(255, 255, 255, 0);
    if (!rc)
        rc = sys_ioctl(fd, SIOCSIFNETMASK, &r);
    if (!rc)
        rc = bring_up(fd, "eth0");
    route.dst.family = route.gateway.family = route.mask.family = AF_INET;
    route.gateway.address = ADDRESS(10, 0, 2, 2);
    return rc ? rc : sys_ioctl(fd, SIOCADDRT, &route);
}

static void set_up_network(void) {
    static const char names[] = "nameserver 10.0.2.3\n";
    long fd = sys(SYS_socket, AF_INET, 2, 0, 0, 0), file, rc = fd;

    if (fd < 0)
        return;
    bring_up((int)fd, "lo");
    if (todo.net)
        rc = configure((int)fd);
    if (rc < 0)
        fail("there is no network card", "", rc);
    sys_close((int)fd);
    if (!todo.net || todo.rw)
        return;
    file = sys_open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file >= 0) {
        write_all((int)file, names, sizeof(names) - 1);
        sys_close((int)file);
    }
}

/* --- the command --- */

struct winsize {
    unsigned short rows, columns, x, y;
};

#define TIOCSCTTY 0x540e
#define TIOCSWINSZ 0x5414
#define TIOCSPTLCK 0x40045431
#define TIOCGPTN 0x80045430

static int master = -1; /* of the terminal */
static int input = -1;  /* what the command reads, by a pipe */
static int output[2] = {-1, -1};

static const char *env(const char *name) {
    for (unsigned n = 0; n < todo.envc; n++) {
        const char *v = after(todo.envp[n], name);

        if (v && *v == '=')
            return v + 1;
    }
    return NULL;
}

static long execute(const char *path) {
    return sys(SYS_execve, P(path), P(todo.argv), P(todo.envp), 0, 0);
}

/* As execvp(3): what fails for another reason than that there is none ends the search. */
static long search(const char *name) {
    const char *path = env("PATH");
    long rc = -ENOENT, denied = 0;

    for (const char *p = name; *p; p++)
        if (*p == '/')
            return execute(name);
    for (path = path ? path : "/usr/bin:/bin"; *path;) {
        char full[4096];
        size_t n = 0, dir = 0;

        while (path[dir] && path[dir] != ':')
            dir++;
        if (dir + length(name) + 2 < sizeof(full)) {
            for (; n < dir; n++)
                full[n] = path[n];
            full[n++] = '/';
            for (const char *p = name; *p; p++)
                full[n++] = *p;
            full[n] = 0;
            rc = execute(full);
            denied = rc == -EACCES ? rc : denied;
        }
        path += dir + (path[dir] == ':');
    }
    return denied ? denied : rc;
}

static _Noreturn void be_command(const int *fds) {
    struct text t = {.len = 0};
    long rc;

    sys(todo.tty ? SYS_setsid : SYS_setpgid, 0, 0, 0, 0, 0);
    for (int n = 0; n < 3; n++)
        sys(SYS_dup2, fds[n], n, 0, 0, 0);
    if (todo.tty)
        sys_ioctl(todo.tty & 1 ? 0 : todo.tty & 2 ? 1 : 2, TIOCSCTTY, NULL);
    sys(SYS_setgroups, todo.group_count, P(todo.groups), 0, 0, 0);
    sys(SYS_setgid, todo.gid, 0, 0, 0, 0);
    sys(SYS_setuid, todo.uid, 0, 0, 0, 0);
    sys(SYS_umask, 022, 0, 0, 0, 0);
    if (sys(SYS_chdir, P(todo.cwd), 0, 0, 0, 0) < 0)
        sys(SYS_chdir, P("/"), 0, 0, 0, 0);
    rc = search(todo.argv[0]);
    add(&t, "bivisor exec: ");
    add(&t, todo.argv[0]);
    add(&t, rc == -ENOENT   ? ": not found\n"
            : rc == -EACCES ? ": permission denied\n"
                            : ": cannot be executed\n");
    sys_write(2, t.s, t.len);
    sys(SYS_exit, rc == -ENOENT ? 127 : 126, 0, 0, 0, 0);
    for (;;)
        ;
}

static void set_size(unsigned columns, unsigned rows) {
    const struct winsize w = {.rows = (unsigned short)rows,
                              .columns = (unsigned short)columns};

    if (master >= 0)
        sys_ioctl(master, TIOCSWINSZ, &w);
}

/* The terminal's other side. */
static int open_terminal(void) {
    struct text name = {.len = 0};
    int zero = 0, n = 0;
    long fd;

    master = (int)sys_open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, 0);
    if (master < 0 || sys_ioctl(master, TIOCSPTLCK, &zero) ||
        sys_ioctl(master, TIOCGPTN, &n))
        fail("there is no terminal", "", master);
    add(&name, "/dev/pts/");
    add_number(&name, (unsigned long)n);
    fd = sys_open(name.s, O_RDWR | O_NOCTTY, 0);
    if (fd < 0)
        fail("there is no terminal", "", fd);
    set_size(todo.columns, todo.rows);
    return (int)fd;
}

/* The command's descriptors; ours are in `master`, `input` and `output`. */
static void make_descriptors(int *fds) {
    int terminal = todo.tty ? open_terminal() : -1;

    for (unsigned n = 0; n < 3; n++) {
        int ends[2];

        if (todo.tty & 1u << n) {
            fds[n] = terminal;
            continue;
        }
        if (sys(SYS_pipe2, P(ends), O_CLOEXEC, 0, 0, 0))
            fail("there is no pipe", "", 0);
        fds[n] = ends[n > 0];
        if (n == 0)
            input = ends[1];
        else
            output[n - 1] = ends[0];
    }
    if (input >= 0) /* what it does not read waits in the port */
        sys(72, input, 4, O_NONBLOCK, 0, 0);
    for (unsigned n = 0; n < 2; n++)
        if (output[n] >= 0)
            sys(72, output[n], 4, O_NONBLOCK, 0, 0); /* fcntl(F_SETFL) */
}

static long start(void) {
    int fds[3];
    long pid;

    make_descriptors(fds);
    pid = sys(SYS_fork, 0, 0, 0, 0, 0);
    if (!pid)
        be_command(fds);
    for (unsigned n = 0; n < 3; n++)
        if (fds[n] >= 0 && (n == 0 || fds[n] != fds[n - 1]) &&
            (n < 2 || fds[2] != fds[0]))
            sys_close(fds[n]);
    if (pid < 0)
        fail("no process can be made", "", pid);
    return pid;
}

/* --- what goes in and out --- */

static char piece[PIECE], kept[PIECE]; /* KEPT: from the port, not yet taken */
static size_t kept_len, kept_at;
static unsigned long taken, end_of_input = ~0ul, written[2];
static long command;

/* From FD to port WHICH: false when nothing more will come. */
static bool pass_out(int fd, unsigned which) {
    for (;;) {
        long n = sys_read(fd, piece, sizeof(piece));

        if (n == -EAGAIN || n == -EINTR)
            return true;
        if (n <= 0)
            return false;
        write_all(port[which], piece, (size_t)n);
        written[which - OUT] += (unsigned long)n;
    }
}

static void close_input(void) {
    if (input >= 0)
        sys_close(input);
    input = -1;
}

static void pass_in(void) {
    int to = todo.tty & 1 ? master : input;
    long n;

    if (kept_at == kept_len && to >= 0) {
        n = sys_read(port[IN], kept, sizeof(kept));
        kept_at = 0;
        kept_len = n > 0 ? (size_t)n : 0;
        taken += kept_len;
    }
    while (kept_at < kept_len && to >= 0) {
        n = sys_write(to, kept + kept_at, kept_len - kept_at);
        if (n == -EAGAIN || n == -EINTR)
            break;
        if (n <= 0) { /* nobody reads any more */
            close_input();
            to = -1;
            break;
        }
        kept_at += (size_t)n;
    }
    if (kept_at == kept_len && taken >= end_of_input) {
        if (todo.tty & 1 && end_of_input != ~0ul) {
            sys_write(master, "\4", 1); /* as a terminal ends its input */
            end_of_input = ~0ul;
        }
        close_input();
    }
}

static void obey(const char *line) {
    const char *v;

    if ((v = after(line, "eof ")))
        end_of_input = number(v, NULL);
    else if ((v = after(line, "signal ")))
        sys(SYS_kill, -command, (long)number(v, NULL), 0, 0, 0);
    else if ((v = after(line, "size "))) {
        unsigned columns = (unsigned)number(v, &v);

        set_size(columns, *v ? (unsigned)number(v + 1, NULL) : 0);
    }
}

static void take_orders(void) {
    static char line[128];
    static size_t len;
    char byte;

    while (sys_read(port[CTL], &byte, 1) == 1) {
        if (byte == '\n') {
            line[len] = 0;
            obey(line);
            len = 0;
        } else if (len + 1 < sizeof(line)) {
            line[len++] = byte;
        }
    }
}

/* Of all processes, this is the first: it buries them. */
static bool ended(int *status) {
    int s;
    long pid;

    while ((pid = sys(SYS_wait4, -1, P(&s), 1, 0, 0)) > 0) /* WNOHANG */
        if (pid == command) {
            *status = s & 0x7f ? 128 + (s & 0x7f) : s >> 8 & 0xff;
            return true;
        }
    return false;
}

static void poll_all(void) {
    struct pollfd p[6];
    int to = todo.tty & 1 ? master : input;
    bool waiting = kept_at < kept_len;
    int child_ms = 50;

    p[0] = (struct pollfd){.fd = port[CTL], .events = POLLIN};
    p[1] = (struct pollfd){.fd = to < 0 || waiting ? -1 : port[IN], .events = POLLIN};
    p[2] = (struct pollfd){.fd = waiting ? to : -1, .events = POLLOUT};
    p[3] = (struct pollfd){.fd = output[0], .events = POLLIN};
    p[4] = (struct pollfd){.fd = output[1], .events = POLLIN};
    p[5] = (struct pollfd){.fd = master, .events = POLLIN};
    sys(SYS_poll, P(p), 6, child_ms, 0, 0);
    take_orders();
    pass_in();
    for (unsigned n = 0; n < 2; n++)
        if (output[n] >= 0 && !pass_out(output[n], OUT + n)) {
            sys_close(output[n]);
            output[n] = -1;
        }
    if (master >= 0)
        pass_out(master, todo.tty & 2 ? OUT : ERR);
    /* A port that the host has not opened yet, a terminal that nobody has open, are ready
     * for ever. */
    if ((p[0].revents | p[1].revents | p[5].revents) & POLLHUP)
        sleep_ms(2);
}

static void run(void) {
    struct text t = {.len = 0};
    int status;

    command = start();
    add(&t, "run\n");
    say(&t);
    while (!ended(&status))
        poll_all();
    for (unsigned n = 0; n < 2; n++)
        if (output[n] >= 0)
            pass_out(output[n], OUT + n);
    if (master >= 0)
        pass_out(master, todo.tty & 2 ? OUT : ERR);
    sys(SYS_sync, 0, 0, 0, 0, 0);
    t.len = 0;
    add(&t, "status ");
    add_number(&t, (unsigned long)status);
    add(&t, " ");
    add_number(&t, written[0]);
    add(&t, " ");
    add_number(&t, written[1]);
    add(&t, "\n");
    say(&t);
}

_Noreturn void init_main(void) {
    early_mounts();
    read_config();
    load_modules();
    open_ports();
    mount_root();
    fill_root();
    enter_root();
    if (todo.hostname)
        sys(SYS_sethostname, P(todo.hostname), (long)length(todo.hostname), 0, 0, 0);
    set_up_network();
    run();
    /* The host ends the machine when it has everything. */
    for (;;)
        sleep_ms(1000);
}

__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    and $-16, %rsp\n"
        "    call init_main\n");
