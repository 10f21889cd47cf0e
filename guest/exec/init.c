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
#include "agent.h"
#include "command.h"

#define CONFIG "/config"
#define PIECE 65536

enum { IN, OUT, ERR, CTL, PORTS };
static const char *const port_names[PORTS] = {"exec.in", "exec.out", "exec.err",
                                              "exec.ctl"};

static struct {
    bool rw, net, agent;
    const char *share_type, *share_options, *hostname;
    const char *release, *tree; /* where the kernel's modules are: NULL: nowhere */
    const char *modules[256];
    unsigned module_count;
} machine;

static int port[PORTS] = {-1, -1, -1, -1};
static char config[4 << 20];

/* --- words to the host --- */

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

_Noreturn void fail(const char *what, const char *which, long rc) {
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

static void take(const char *s) {
    const char *v;

    if (command_take(s))
        return;
    if ((v = after(s, "module=")) && machine.module_count < 256)
        machine.modules[machine.module_count++] = v;
    else if ((v = after(s, "type=")))
        machine.share_type = v;
    else if ((v = after(s, "options=")))
        machine.share_options = v;
    else if ((v = after(s, "hostname=")))
        machine.hostname = v;
    else if ((v = after(s, "release=")))
        machine.release = v;
    else if ((v = after(s, "tree=")))
        machine.tree = v;
    else if (same(s, "rw="))
        machine.rw = true;
    else if (same(s, "net="))
        machine.net = true;
    else if (same(s, "agent="))
        machine.agent = true;
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
    if (len < 0 || !todo.argc || !machine.share_type || !todo.cwd)
        fail("the initial RAM disk says nothing to do", "", len);
}

/* --- modules and ports --- */

static void load_modules(void) {
    static char bytes[24 << 20];

    for (unsigned n = 0; n < machine.module_count; n++) {
        long len = read_file(machine.modules[n], bytes, sizeof(bytes)), rc = len;

        if (len >= 0)
            rc = sys(SYS_init_module, P(bytes), len, P(""), 0, 0);
        if (rc < 0 && rc != -17 && rc != -ENODEV) /* EEXIST: built in, or there */
            fail("cannot load the module ", machine.modules[n], rc);
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
    if (machine.rw) {
        must_mount("root", "/new", machine.share_type, 0, machine.share_options);
        return;
    }
    must_mount("root", "/lower", machine.share_type, MS_RDONLY, machine.share_options);
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

/* The kernel's modules, at WHERE: a directory of the root, or a share of their own. */
static long put_modules(const char *where) {
    if (*machine.tree)
        return sys_mount(machine.tree, where, NULL, MS_BIND, NULL);
    return sys_mount("modules", where, machine.share_type, MS_RDONLY,
                     machine.share_options);
}

/* modprobe(8) looks for them in /lib/modules, where the root has another kernel's or
 * none. Nothing is made in a root that is written to; a command that wants no modules
 * does not care. */
static void mount_modules(void) {
    struct text where = {.len = 0};

    if (!machine.release || !machine.tree)
        return;
    add(&where, "/lib/modules/");
    add(&where, machine.release);
    if (put_modules(where.s) != -ENOENT)
        return;
    if (machine.rw) {
        sys_mount("modules", "/lib/modules", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
    } else {
        sys_mkdir("/lib", 0755);
        sys_mkdir("/lib/modules", 0755);
    }
    sys_mkdir(where.s, 0755);
    put_modules(where.s);
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
    if (machine.net)
        rc = configure((int)fd);
    if (rc < 0)
        fail("there is no network card", "", rc);
    sys_close((int)fd);
    if (!machine.net || machine.rw)
        return;
    file = sys_open("/etc/resolv.conf", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file >= 0) {
        write_all((int)file, names, sizeof(names) - 1);
        sys_close((int)file);
    }
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

        command_size(columns, *v ? (unsigned)number(v + 1, NULL) : 0);
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

    command = command_start();
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
    todo.who = "bivisor exec: ";
    read_config();
    load_modules();
    open_ports();
    mount_root();
    fill_root();
    enter_root();
    mount_modules();
    if (machine.hostname)
        sys(SYS_sethostname, P(machine.hostname), (long)length(machine.hostname), 0, 0,
            0);
    set_up_network();
    if (machine.agent)
        agent_start();
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
