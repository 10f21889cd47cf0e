/* The agent; see agent.h. */
#include "agent.h"

#include "command.h"
#include "exec/agent.h"

enum {
    SYS_stat = 4,
    SYS_fstat = 5,
    SYS_rt_sigaction = 13,
    SYS_accept4 = 288,
    SYS_bind = 49,
    SYS_listen = 50,
    SYS_fcntl = 72,
    SYS_fchmod = 91,
    SYS_rename = 82,
    SYS_unlink = 87,
};

#define AF_VSOCK 40
#define SOCK_STREAM 1
#define SOCK_CLOEXEC O_CLOEXEC
#define CONFIG_MAX (2 << 20)
#define F_SETFL 4
#define SIGHUP 1
#define SIGPIPE 13
#define SIGCHLD 17
#define SIG_DFL 0
#define SIG_IGN 1

struct sockaddr_vm {
    unsigned short family, reserved;
    unsigned port, cid;
    unsigned char flags, zero[3];
};

static int peer = -1;
static char config[CONFIG_MAX];
static size_t config_len;
static const char *path;
static unsigned mode = 0644;
static long process; /* the command's; 0: none yet */

static void set_signal(int signo, long handler) {
    const struct {
        long handler;
        unsigned long flags;
        long restorer;
        uint64_t mask;
    } act = {.handler = handler};

    sys(SYS_rt_sigaction, signo, P(&act), 0, 8, 0);
}

/* --- pieces --- */

static void put32(unsigned char *to, unsigned v) {
    for (unsigned n = 0; n < 4; n++)
        to[n] = (unsigned char)(v >> 8 * n);
}

static unsigned get32(const char *from) {
    unsigned v = 0;

    for (unsigned n = 0; n < 4; n++)
        v |= (unsigned)(unsigned char)from[n] << 8 * n;
    return v;
}

static void send_piece(char what, const char *bytes, size_t len) {
    unsigned char head[5] = {(unsigned char)what};

    put32(head + 1, (unsigned)len);
    write_all(peer, (char *)head, sizeof(head));
    write_all(peer, bytes, len);
}

static void send_number(char what, unsigned v) {
    unsigned char bytes[4];

    put32(bytes, v);
    send_piece(what, (char *)bytes, sizeof(bytes));
}

static _Noreturn void leave(unsigned status) {
    send_number('x', status);
    sys(SYS_exit, 0, 0, 0, 0, 0);
    for (;;)
        ;
}

static void add_reason(struct text *t, long rc) {
    static const struct {
        long rc;
        const char *text;
    } known[] = {
        {-ENOENT, "no such file or directory"}, {-EACCES, "permission denied"},
        {-ENOTDIR, "not a directory"},          {-ENOSPC, "no space left on device"},
        {-EROFS, "read-only file system"},
    };

    add(t, ": ");
    for (size_t n = 0; n < sizeof(known) / sizeof(known[0]); n++)
        if (known[n].rc == rc) {
            add(t, known[n].text);
            return;
        }
    add(t, "error ");
    add_number(t, (unsigned long)-rc);
}

static _Noreturn void refuse(const char *what, const char *which, long rc) {
    struct text t = {.len = 0};

    add(&t, what);
    add(&t, which);
    if (rc)
        add_reason(&t, rc);
    send_piece('m', t.s, t.len);
    leave(125);
}

/* All LEN bytes, or the host has gone: then nobody needs us, nor the command. */
static void receive(char *to, size_t len) {
    while (len) {
        long n = sys_read(peer, to, len);

        if (n == -EINTR)
            continue;
        if (n <= 0) {
            if (process > 0)
                sys(SYS_kill, -process, SIGHUP, 0, 0, 0);
            sys(SYS_exit, 0, 0, 0, 0, 0);
            for (;;)
                ;
        }
        to += n;
        len -= (size_t)n;
    }
}

/* A piece, whose bytes are in BUF. */
static char next_piece(char *buf, size_t *len) {
    char head[5];

    receive(head, sizeof(head));
    *len = get32(head + 1);
    if (*len > AGENT_PIECE)
        refuse("the host sends pieces that are too long", "", 0);
    receive(buf, *len);
    return *head;
}

/* --- files --- */

struct stat {
    uint64_t dev, ino, links;
    uint32_t mode, room[29];
};

static bool is_ordinary(const struct stat *st) {
    return (st->mode & 0170000) == 0100000;
}

static void write_file(void) {
    static char piece[AGENT_PIECE];
    struct text other = {.len = 0};
    struct stat st;
    size_t len;
    long fd;
    char what;

    /* A device, or a directory, is not replaced by a file. */
    if (!sys(SYS_stat, P(path), P(&st), 0, 0, 0) && !is_ordinary(&st))
        refuse("it is not an ordinary file: ", path, 0);
    add(&other, path);
    add(&other, ".bivisor-new"); /* so that nobody sees half of it */
    fd = sys_open(other.s, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
    if (fd < 0)
        refuse("cannot write ", path, fd);
    while ((what = next_piece(piece, &len)) == 'i') {
        for (size_t at = 0; at < len;) {
            long n = sys_write((int)fd, piece + at, len - at);

            if (n <= 0) {
                sys(SYS_unlink, P(other.s), 0, 0, 0, 0);
                refuse("cannot write ", path, n);
            }
            at += (size_t)n;
        }
        send_number('a', (unsigned)len);
    }
    sys(SYS_fchmod, fd, mode & 07777, 0, 0, 0);
    sys_close((int)fd);
    if (what == 'e') {
        long rc = sys(SYS_rename, P(other.s), P(path), 0, 0, 0);

        if (rc >= 0)
            leave(0);
        sys(SYS_unlink, P(other.s), 0, 0, 0, 0);
        refuse("cannot write ", path, rc);
    }
    leave(125);
}

static void read_file(void) {
    static char piece[AGENT_PIECE];
    struct stat st;
    long fd = sys_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0), n;

    if (fd < 0 || (n = sys(SYS_fstat, fd, P(&st), 0, 0, 0)) < 0)
        refuse("cannot read ", path, fd < 0 ? fd : n);
    if (!is_ordinary(&st))
        refuse("it is not an ordinary file: ", path, 0);
    send_number('f', st.mode & 07777);
    while ((n = sys_read((int)fd, piece, sizeof(piece))) > 0)
        send_piece('o', piece, (size_t)n);
    if (n < 0)
        refuse("cannot read ", path, n);
    leave(0);
}

/* --- commands --- */

static char kept[AGENT_WINDOW]; /* input that the command has not taken */
static size_t kept_len;
static bool input_ended;

static void close_input(void) {
    if (input >= 0)
        sys_close(input);
    input = -1;
}

static void give_input(void) {
    int to = todo.tty & 1 ? master : input;
    long n = kept_len && to >= 0 ? sys_write(to, kept, kept_len) : 0;

    if (to < 0 || (n < 0 && n != -EAGAIN && n != -EINTR)) {
        close_input(); /* nobody reads any more: it is taken, to nowhere */
        n = (long)kept_len;
    }
    if (n > 0) {
        for (size_t k = (size_t)n; k < kept_len; k++)
            kept[k - (size_t)n] = kept[k];
        kept_len -= (size_t)n;
        send_number('a', (unsigned)n);
    }
    if (kept_len || !input_ended)
        return;
    if (todo.tty & 1 && master >= 0)
        sys_write(master, "\4", 1); /* as a terminal ends its input */
    input_ended = false;
    close_input();
}

static void take_piece(void) {
    static char piece[AGENT_PIECE];
    size_t len;

    switch (next_piece(piece, &len)) {
    case 'i':
        if (len > sizeof(kept) - kept_len)
            refuse("the host sends more than was asked for", "", 0);
        for (size_t n = 0; n < len; n++)
            kept[kept_len++] = piece[n];
        break;
    case 'e':
        input_ended = true;
        break;
    case 's':
        if (len == 4)
            sys(SYS_kill, -process, (long)get32(piece), 0, 0, 0);
        break;
    case 'w':
        if (len == 8)
            command_size(get32(piece), get32(piece + 4));
        break;
    default:
        break;
    }
}

/* False: nothing more will come of FD. */
static bool pass_out(int fd, char what) {
    static char piece[AGENT_PIECE];

    for (;;) {
        long n = sys_read(fd, piece, sizeof(piece));

        if (n == -EAGAIN || n == -EINTR)
            return true;
        if (n <= 0)
            return false;
        send_piece(what, piece, (size_t)n);
    }
}

static void pass_all_out(void) {
    for (unsigned n = 0; n < 2; n++)
        if (output[n] >= 0 && !pass_out(output[n], n ? 'r' : 'o')) {
            sys_close(output[n]);
            output[n] = -1;
        }
    if (master >= 0)
        pass_out(master, todo.tty & 2 ? 'o' : 'r');
}

static bool ended(unsigned *status) {
    int s;

    if (sys(SYS_wait4, process, P(&s), 1, 0, 0) != process) /* WNOHANG */
        return false;
    *status = s & 0x7f ? 128 + (unsigned)(s & 0x7f) : (unsigned)(s >> 8 & 0xff);
    return true;
}

static void turn(void) {
    struct pollfd p[5];
    int to = todo.tty & 1 ? master : input;

    p[0] = (struct pollfd){.fd = peer, .events = POLLIN};
    p[1] = (struct pollfd){.fd = kept_len ? to : -1, .events = POLLOUT};
    p[2] = (struct pollfd){.fd = output[0], .events = POLLIN};
    p[3] = (struct pollfd){.fd = output[1], .events = POLLIN};
    p[4] = (struct pollfd){.fd = master, .events = POLLIN};
    sys(SYS_poll, P(p), 5, 20, 0, 0);
    if (p[0].revents)
        take_piece();
    if (kept_len || input_ended)
        give_input();
    pass_all_out();
    if (p[4].revents & POLLHUP)
        sleep_ms(2);
}

static _Noreturn void run_command(void) {
    unsigned status;

    if (!todo.argc)
        refuse("there is no command", "", 0);
    process = command_start();
    set_signal(SIGPIPE, SIG_IGN); /* the command need not read */
    while (!ended(&status))
        turn();
    pass_all_out();
    leave(status);
}

/* --- connections --- */

static void take_config(void) {
    for (size_t at = 0; at < config_len; at += length(config + at) + 1) {
        const char *s = config + at, *v;

        if ((v = after(s, "path=")))
            path = v;
        else if ((v = after(s, "mode=")))
            mode = (unsigned)number(v, NULL);
        else
            command_take(s);
    }
}

static _Noreturn void serve(int fd) {
    size_t len;
    char what;

    peer = fd;
    command_forget();
    todo.who = "bivisor do: ";
    todo.cwd = "/";
    while ((what = next_piece(config + config_len, &len)) == 'k') {
        config_len += len;
        if (config_len > sizeof(config) - AGENT_PIECE - 1)
            refuse("there is too much to be done", "", 0);
    }
    config[config_len] = 0;
    take_config();
    if (what == 'C')
        run_command();
    if (path && what == 'P')
        write_file();
    if (path && what == 'G')
        read_file();
    refuse("there is nothing to be done", "", 0);
}

long agent_serve(void) {
    const struct sockaddr_vm a = {
        .family = AF_VSOCK, .port = AGENT_PORT, .cid = 0xffffffff /* any */};
    long fd = sys(SYS_socket, AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0), rc;

    if (fd < 0)
        return fd;
    rc = sys(SYS_bind, fd, P(&a), sizeof(a), 0, 0);
    if (!rc)
        rc = sys(SYS_listen, fd, 16, 0, 0, 0);
    if (rc < 0)
        return rc;
    set_signal(SIGCHLD, SIG_IGN); /* children bury themselves */
    for (;;) {
        long client = sys(SYS_accept4, fd, 0, 0, SOCK_CLOEXEC, 0), child;

        if (client < 0) {
            sleep_ms(10);
            continue;
        }
        child = sys(SYS_fork, 0, 0, 0, 0, 0);
        if (!child) {
            set_signal(SIGCHLD, SIG_DFL); /* the command is waited for */
            sys_close((int)fd);
            serve((int)client);
        }
        sys_close((int)client);
    }
}

void agent_start(void) {
    if (!sys(SYS_fork, 0, 0, 0, 0, 0)) {
        sys(SYS_setsid, 0, 0, 0, 0, 0);
        agent_serve();
        sys(SYS_exit, 1, 0, 0, 0, 0);
    }
}
