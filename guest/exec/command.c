/* Starting a command; see command.h. */
#include "command.h"

struct command todo;
int master = -1, input = -1, output[2] = {-1, -1};

void write_all(int fd, const char *bytes, size_t len) {
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

/* --- what it is --- */

static void take_groups(const char *s) {
    while (*s && todo.group_count < 256) {
        todo.groups[todo.group_count++] = (unsigned)number(s, &s);
        if (*s++ != ',')
            break;
    }
}

bool command_take(const char *s) {
    const char *v;

    if ((v = after(s, "arg=")) && todo.argc < ARGS_MAX)
        todo.argv[todo.argc++] = v;
    else if ((v = after(s, "env=")) && todo.envc < ARGS_MAX)
        todo.envp[todo.envc++] = v;
    else if ((v = after(s, "cwd=")))
        todo.cwd = v;
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
    else
        return false;
    return true;
}

void command_forget(void) {
    todo.argc = todo.envc = todo.group_count = 0;
    todo.uid = todo.gid = todo.tty = todo.columns = todo.rows = 0;
}

/* --- starting it --- */

struct winsize {
    unsigned short rows, columns, x, y;
};

#define TIOCSCTTY 0x540e
#define TIOCSWINSZ 0x5414
#define TIOCSPTLCK 0x40045431
#define TIOCGPTN 0x80045430

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
    add(&t, todo.who);
    add(&t, todo.argv[0]);
    add(&t, rc == -ENOENT   ? ": not found\n"
            : rc == -EACCES ? ": permission denied\n"
                            : ": cannot be executed\n");
    sys_write(2, t.s, t.len);
    sys(SYS_exit, rc == -ENOENT ? 127 : 126, 0, 0, 0, 0);
    for (;;)
        ;
}

void command_size(unsigned columns, unsigned rows) {
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
    command_size(todo.columns, todo.rows);
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

long command_start(void) {
    int fds[3];
    long pid;

    todo.argv[todo.argc] = todo.envp[todo.envc] = NULL;
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
