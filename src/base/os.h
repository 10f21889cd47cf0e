/*
 * The seam to the host: everything that needs Linux or POSIX beyond malloc and stdio.
 * Functions return 0 or -errno unless they say otherwise.
 */
#ifndef BASE_OS_H
#define BASE_OS_H

#include "base/types.h"

/* --- memory (os_memory.c) --- */

#define OS_LARGE_PAGE (2ull << 20)
#define OS_MADV_COLLAPSE 25 /* madvise(2); libc's headers may be too old to have it */
#define OS_GUARD                                                                         \
    (1ull << 20) /* of addresses, before and behind what is not to be left               \
                  */
/* SIZE bytes of address space that cannot be accessed, to be mapped over; BEFORE bytes
 * behind its start there is a boundary of large pages. NULL: there is no room. */
void *os_reserve(uint64_t size, uint64_t before);
/* The shared memory at P, a boundary of large pages, becomes one such page, with what is
 * in it; all of it is allocated from now on. -EINVAL: this host does not do that. */
int os_large_page(void *p);

/* SIZE zeroed bytes, shared, backed by a memfd (*FD; -1: the host has a limit for those),
 * allocated on touch, from a boundary of large pages on. Whole pages; what lies before
 * and behind them cannot be accessed. */
int os_memfd_map(const char *name, uint64_t size, int *fd, void **map);
void os_memfd_unmap(int fd, void *map, uint64_t size);
/* Bit 0 of each byte of THERE: the host has the page of the SIZE bytes at BASE; what it
 * has not, of memory that shows no file, is zero. 0 or -errno. */
int os_memory_resident(const void *base, uint64_t size, uint8_t *there);
/* Gives the pages back and makes them read as zero. */
int os_memfd_zero(int fd, void *map, uint64_t size);
/* The same with SIZE bytes from OFF on, whole pages. */
int os_memfd_zero_part(int fd, void *map, uint64_t off, uint64_t size);

/* SIZE zeroed bytes, of which few will be touched: the host promises none of them. */
int os_sparse_alloc(uint64_t size, void **out);
void os_sparse_free(void *p, uint64_t size); /* P may be NULL */
/* All of it is zero again, and given back. */
void os_sparse_zero(void *p, uint64_t size);

/* N pieces of SIZE bytes, whole pages, that hold WORD throughout and are of one's own: a
 * page takes memory once it is written. In OUT, which is freed piece by piece, also after
 * an error: those that were not made are NULL. */
int os_filled_alloc(uint64_t word, size_t size, unsigned n, void **out);
void os_filled_free(void *p, size_t size); /* P may be NULL */

/* A page that can be read and written, with one before it and two behind it that cannot
 * be accessed; for as long as the process lives. */
int os_guarded_page(uint8_t **page);

/* A code buffer mapped twice: RW for us, RX for the CPU (W^X). */
struct os_code {
    uint8_t *rw;
    uint8_t *rx;
    size_t size;
    int fd;
};
int os_code_map(size_t size, struct os_code *out);
void os_code_unmap(struct os_code *c);
/* os_large_page() of both mappings, at an offset. */
int os_code_large_page(const struct os_code *c, size_t at);
/* --- and while it is not made, it cannot be written either (os_seal.c) --- */
/* From now on it can be read only, at RW, but for what is opened: 0 or -errno. */
int os_code_seal(const struct os_code *c);
/* The pages of LEN bytes at RW can be written; and no longer. By any thread, also while
 * vector registers hold the guest's. */
void os_code_open(const uint8_t *rw, size_t len);
void os_code_close(const uint8_t *rw, size_t len);

/* --- time (os_time.c) --- */
uint64_t os_monotonic_ns(void);
uint64_t os_realtime_ns(void); /* since 1970 */
uint64_t os_tsc(void);
/* CPU time: of the calling thread, and of a process (0: ours), 0 if there is none.
 * Nanoseconds. */
uint64_t os_thread_cpu_ns(void);
uint64_t os_process_cpu_ns(uint32_t pid);
/* Host TSC frequency, measured against the monotonic clock once (a few ms), then cached.
 */
uint64_t os_tsc_hz(void);
/* It is HZ, as was measured on this host since it was started. */
void os_tsc_hz_known(uint64_t hz);
void os_sleep_ns(uint64_t ns);

/* Fills BUF with up to LEN random bytes of the host's kernel, and does not wait for them:
 * how many. */
size_t os_random(void *buf, size_t len);

/* --- host faults in code that runs for the guest (os_fault.c) --- */

struct os_regs { /* general registers at the fault, may be changed; order of enum vcpu_reg
                  */
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
};

struct os_fault {
    int signo;       /* SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP */
    int code;        /* si_code */
    unsigned trapno; /* x86 vector that the host CPU raised */
    uint64_t error;  /* its error code */
    uint64_t addr;   /* fault address where there is one */
    struct os_regs regs;
};

/*
 * FN runs in the signal handler when an instruction in [LO, HI) faults; it changes
 * f->regs to say where to go on and returns true, or returns false (then the process dies
 * as it would have). Async-signal-safe code only.
 */
int os_fault_range(const void *lo, const void *hi,
                   bool (*fn)(void *arg, struct os_fault *f), void *arg);
/* Takes back the range that begins at LO, before its code goes. */
void os_fault_range_remove(const void *lo);

/* --- what translated code needs (os_tc.c) --- */

/* Points this thread's %gs base at P. The C library does not use %gs. */
int os_gs_base(void *p);
/* Gives this thread an alternate signal stack (once; kept until the thread ends): its
 * stack pointer is the guest's while translated code runs. */
int os_signal_stack(void);
void os_signal_stack_free(void); /* what os_thread_start()'s threads do at their end */
/* A page below 4 GiB that translated code reads to be stopped: readable (open) or not. */
int os_poll_page(uint8_t **page);
void os_poll_page_free(uint8_t *page);
void os_poll_set(uint8_t *page, bool open); /* from any thread; async-signal-safe */

/* SIZE readable bytes with an unreadable page in front of them, and back. */
int os_guarded_alloc(size_t size, const uint8_t **out);
void os_guarded_free(const uint8_t *p, size_t size); /* P may be NULL */

/* SIZE zeroed bytes between two unreadable pages, and back. SIZE is rounded up to pages:
 * the first byte lies right behind the page in front. */
int os_fenced_alloc(size_t size, void **out);
void os_fenced_free(void *p, size_t size); /* P may be NULL */

/* SIZE bytes of addresses that nobody can read, write or execute; freed the same way as
 * os_fenced_alloc()'s. */
int os_nowhere_alloc(size_t size, void **out);

/* --- threads and waiting (os_thread.c; the event loop is in os_loop.h) --- */

/* What a thread is for; each kind has a jail of its own. */
enum os_thread_kind {
    OS_THREAD_LOOP,   /* the process's first: clients, the terminal, the network */
    OS_THREAD_CPU,    /* runs the guest, and devices for it */
    OS_THREAD_WORKER, /* executes requests to disks, and devices that have waited for it
                       */
    OS_THREAD_KINDS,
};

struct os_thread;
/* FN(ARG) on a thread of its own, which ends when FN returns. Before the jail: it lets no
 * thread be made. */
int os_thread_start(enum os_thread_kind kind, void (*fn)(void *arg), void *arg,
                    struct os_thread **out);
/* Queues the signal OS_THREAD_SIGNAL, with its kind as the value, to each such thread
 * that lives: how many there are, or -errno. */
#define OS_THREAD_SIGNAL (SIGRTMIN + 2)
int os_threads_signal(void);
int os_threads_known(void);               /* how many there are */
void os_thread_join(struct os_thread *t); /* waits for its end; T may be NULL */
/* A system call that T waits in for a reader or a writer returns EINTR; from any thread.
 * It may come just before the call begins, so that whoever waits for T calls again. */
void os_thread_interrupt(const struct os_thread *t);

/* How many CPUs of the host's this process may run on. Before the jail. */
unsigned os_cpus(void);
/* The calling thread does little at a time, and others wait for it: where the host can
 * (Linux 6.12), it need not wait for the end of a computing thread's time slice. Threads
 * that are made afterwards inherit it. */
void os_thread_prompt(void);

/* A descriptor that tells how long T (NULL: the caller) has waited for a CPU of the
 * host's while it could have run. Before the jail. -errno: the host does not tell. */
int os_thread_waits_open(const struct os_thread *t);
void os_thread_waits_close(int fd); /* -1: there is none */
/* *NS, since it began. False: the host does not tell. */
bool os_thread_waited(int fd, uint64_t *ns);

/* What one thread sleeps by and others wake it with. */
struct os_bell;
int os_bell_new(struct os_bell **out);
void os_bell_free(struct os_bell *b); /* B may be NULL */
/* From any thread; async-signal-safe. Not lost if nobody waits yet. */
void os_bell_ring(struct os_bell *b);
/* Sleeps until it has been rung, FD (-1: none) is ready for EVENTS (os_loop.h) or a
 * signal was taken: true; or for NS (UINT64_MAX: for ever): false. */
bool os_bell_wait(struct os_bell *b, int fd, unsigned events, uint64_t ns);

/* Does the host execute locked accesses that cross a cache line as it does others
 * (os_split.c)? False: it slows them down or kills who makes them. It forks: before there
 * are threads, and the jail. */
bool os_split_locks(void);

/* --- sleeping by a word (os_word.c), also while vector state is live --- */

/* Sleeps while *WORD is OLD, until it is woken; or for no reason: look again. */
void os_word_wait(uint32_t *word, uint32_t old);
/* COUNT of those who sleep by WORD wake; nothing of the memory is touched. */
void os_word_wake(uint32_t *word, unsigned count);
/* Another thread that wants to run does, on this CPU of the host's. */
void os_yield(void);

/* A lock between threads, not to be taken twice by one. Zeroed it is free. What is taken
 * free and given back with nobody waiting costs no call and touches general registers
 * only, so that who holds the guest's vector state in the host's may do that. */
struct os_mutex {
    uint32_t state; /* 0: free, 1: held, 2: held, and somebody may sleep; atomic */
};
static inline bool os_mutex_try(struct os_mutex *x) {
    uint32_t is = 0;

    return __atomic_compare_exchange_n(&x->state, &is, 1, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}
/* Waits until it has X: after os_mutex_try() has failed. */
void os_mutex_wait(struct os_mutex *x);
/* Gives X back. True: somebody sleeps, and os_mutex_wake() is to be called. */
static inline bool os_mutex_give(struct os_mutex *x) {
    return __atomic_exchange_n(&x->state, 0, __ATOMIC_RELEASE) == 2;
}
void os_mutex_wake(struct os_mutex *x);

/* --- memory as files (os_sparse.c) --- */

/* All LEN bytes to that place of the file. 0 or -errno. */
int os_write_at(int fd, const void *bytes, size_t len, uint64_t at);

/* SIZE bytes at MAP to the beginning of the file TO, which has holes where there are zero
 * pages, and is as long. What MAP shows of the file FROM (or of none: -1), and the host
 * has not in memory, is looked for there. 0 or -errno. */
int os_sparse_save(int to, const uint8_t *map, uint64_t size, int from);
/* The same bit by bit: the file's length; then what is from *AT on, of which *AT says
 * afterwards how far it went. Others may write to MAP meanwhile. */
int os_sparse_begin(int to, uint64_t size);
int os_sparse_part(int to, const uint8_t *map, uint64_t size, int from, uint64_t *at);
/* Pages FROM to END (bytes) of MAP take the place of those of the file. */
int os_sparse_pages(int to, const uint8_t *map, uint64_t from, uint64_t end);
/* LEN bytes at AT of the file, which has them, to the same place of MAP. 0 or -errno. */
int os_sparse_fetch(int from, uint8_t *map, uint64_t at, uint64_t len);
/* -EINVAL unless FD is a file of that size, or of a page more, which is its owner's. */
int os_sparse_check(int fd, uint64_t size);
/* The other way; MAP is all zeros. -EINVAL: the file has another size. */
int os_sparse_load(int from, uint8_t *map, uint64_t size);
/* MAP shows the file FD, of such a size (else -EINVAL), and what is written there is this
 * process's own. 0 or -errno. */
int os_memory_overlay(uint8_t *map, uint64_t size, int fd);
/* Whole pages of an overlay are zeros, this process's own. 0 or -errno. */
int os_memory_blank(uint8_t *map, uint64_t size);

/* --- a fence for all threads (os_fence.c) --- */

/* Once before the other, and before the jail. 0 or -errno: the kernel has none. */
int os_fence_init(void);
/* What each thread of this process has stored is seen by all, and what it loads from here
 * on is no older: as if each had executed a full fence. False: it was not done. */
bool os_fence_all(void);

/* --- taking a thread out of a system call (os_kick.c) --- */

int os_kick_init(void); /* once before the others */
int os_thread_id(void); /* of the caller */
/* A system call of THREAD returns EINTR if it is one that signals end; async-signal-safe.
 */
void os_kick(int thread);
/* Kicks the caller after NS, and again and again until it is stopped. */
int os_kick_timer(uint64_t ns, void **timer);
void os_kick_timer_stop(void *timer);

/* --- helpers (os_helper.c) --- */

/* In a process that was forked to do one thing for us, which ps(1) shows by NAME (15
 * bytes): what stops us is not for it, it makes no processes and leaves no core, and of
 * our descriptors it has the COUNT in KEEP. It knows our end by one of them. */
void os_helper_begin(const char *name, const int *keep, unsigned count);
/* Closes all descriptors but the COUNT in KEEP. */
void os_helper_keep(const int *keep, unsigned count);

/* --- sockets that listen (os_socket.c) --- */

struct os_listener;
/* A socket at PATH that only this user may connect to. One that nobody listens at any
 * more is replaced; the path is removed when the listener is closed, or the process ends
 * in whatever way. Before the jail, and before there are threads: it forks. 0 or -errno:
 * -EEXIST: there is something that is no socket; -EADDRINUSE: somebody listens there. */
int os_listener_open(const char *path, struct os_listener **out);
/* The same at a port (0: any) of a numeric address of the Internet, to which all of the
 * host, or more, may connect. -EINVAL: that is no address. */
int os_listener_open_tcp(const char *address, uint16_t port, struct os_listener **out);
void os_listener_close(struct os_listener *l); /* L may be NULL */
/* The descriptor: readable when somebody wants to be accepted. */
int os_listener_fd(const struct os_listener *l);
/* A client's descriptor, whose calls do not wait, or -errno. */
int os_listener_accept(const struct os_listener *l);
/* How many bytes (0: the other side has ended), or -errno; SIGPIPE is ignored. */
int os_socket_read(int fd, void *buf, size_t size);
int os_socket_write(int fd, const void *buf, size_t len);
/* Writes the rest of LEN bytes, from *AT on, as far as there is room; *AT counts them. 0,
 * or -errno: nobody reads any more. */
int os_socket_write_rest(int fd, const void *bytes, size_t len, size_t *at);
/* Nothing more is written. 0 or -errno. */
int os_socket_end(int fd);
void os_socket_close(int fd);
/* Sends a token, and a descriptor with it if FD is one, at a local socket that keeps
 * messages apart. False: nobody is there. */
bool os_socket_hand(int socket, uint32_t token, int fd);
/* Takes the next such message, without waiting: 0, and *FD may be -1; -EAGAIN: there is
 * none; -EPIPE: the other side has ended. */
int os_socket_handed(int socket, uint32_t *token, int *fd);

/* --- where sockets are (os_endpoint.c) ---
 *
 * WHERE is a unix socket's path, or tcp:ADDR:PORT in numbers, ADDR in brackets if it is
 * of IPv6. Who can reach a port can connect to it: it is no secret of the user's. */

/* As os_listener_open() and os_listener_open_tcp(); -EINVAL: it is no address. */
int os_endpoint_listen(const char *where, struct os_listener **out);
/* A socket that is connected and does not block, the caller's to close; or -errno. Waits
 * for a port's host, for ten seconds at most. */
int os_endpoint_connect(const char *where);
/* What RC of these means, for a sentence; valid until the next call of strerror(3). */
const char *os_endpoint_reason(int rc);

/* --- the jail (os_jail.c) --- */

/* Sanitizers make calls of their own, at any time: there is no jail with them. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OS_JAIL_SANITIZED true
#else
#define OS_JAIL_SANITIZED false
#endif

/* What a process needs for which the jail must be told; all zero: nothing. */
struct os_jail_needs {
    /* Further requests for ioctl(2), and a 0; NULL: none. Of threads that run the guest
     * and of the loop's, and of each thread. */
    const unsigned long *cpu_ioctls, *device_ioctls;
    /* Where clients are accepted (of os_listener_fd()), and a -1; NULL: nowhere. */
    const int *listeners;
    /* The same where processes of ours hand over sockets that they have connected, at
     * which send(2), recv(2) and shutdown(2) may be used. */
    const int *handing;
    /* Those of them where a descriptor may be sent, too, and a -1; NULL: none. */
    const int *sending;
    /* A thread does what others do elsewhere: a counted run has no workers, lockstep no
     * threads. */
    bool any_thread;
};

/*
 * From here on each thread of the process may compute, wait, and read and write what is
 * open, as far as its kind needs that, and nothing else, for good. Descriptors above 2
 * that we were started with are closed. -errno: the host does not let us (-ENOTSUP: this
 * build does not; -EBUSY: there are threads that os_thread_start() did not make).
 */
int os_jail_enter(const struct os_jail_needs *needs);
/* What os_jail_enter() would return here. */
int os_jail_probe(void);
/* What this host has beside the filter, as words after a comma; "" if nothing. */
void os_jail_describe(char *buf, size_t size);
/* The same for a process that is a network (net/user.c): of one thread, which may make
 * and use sockets of the Internet, and no others; the file that names the name servers
 * stays as it is now. FILES, if it is not NULL, is the real path of a directory: regular
 * files below it may be read, by names that begin so. (os_jail_network.c) */
int os_jail_network(const char *files);
/* The same for a process that connects to sockets of a FAMILY (os_connector.c), which it
 * may and nothing else; to be told of, it has standard
 * error. (os_jail_connector.c) */
int os_jail_connector(int family);
/* The same for the process that makes cells of the program that descriptor PROGRAM is,
 * and for what it makes (direct/spawner.c). A call that it does not allow fails.
 * (os_jail_spawner.c) */
int os_jail_spawner(int program);
/* The same for a process that serves the files of the directory DIR (share/server.c): of
 * one thread, which finds that directory and no other. (os_jail_files.c) */
int os_jail_files(int dir, bool readonly);
/* The same for a process that shows the guest's screen to clients that LISTENER accepts
 * (viewer/server.c). (os_jail_viewer.c) */
int os_jail_viewer(int listener);
/* The same for the process that makes a run's files in the directory DIR, and hands them
 * over (ctl/snapshots.c). */
int os_jail_keeper(int dir);
/* The same for a process that removes a name of the directory DIR when we have ended
 * (os_socket.c). (os_jail_remover.c) */
int os_jail_remover(int dir);
/* The same for the process that passes on what clients of the API say, and opens what
 * they name (api/gate.c). (os_jail_gate.c) */
int os_jail_gate(void);

/* --- terminal and signals (os_tty.c) --- */

/* Puts FD in raw mode when it is a terminal; restored by os_tty_restore(), which also
 * runs at exit and on every fatal signal. *IS_TTY tells. -EINTR: a stop signal came while
 * we waited in the background for the terminal. */
int os_tty_raw(int fd, bool *is_tty);
void os_tty_restore(void);
bool os_tty_is_raw(void);
/* Before os_tty_raw(): what is written to FD whenever the terminal is taken, and given
 * back; for as long as the process lives. */
void os_tty_screen(int fd, const char *at_enter, const char *at_leave);
/* How often it has been taken. */
unsigned os_tty_taken(void);

/* FN(SIGNO) is called, async-signal-safe, on SIGINT, SIGTERM, SIGHUP, SIGQUIT, and
 * SIGXCPU (the host's limit of CPU time, "setrlimit(2)"), but for those that were ignored
 * when we started. One that comes more than a second after the first ends the process.
 * SIGPIPE is ignored: a lost reader is an error of write(2). */
int os_on_stop_signals(void (*fn)(int signo));
/* A file that grows past the host's limit (SIGXFSZ) is an error of write(2). */
int os_ignore_file_limit(void);
/* FN(SIGNO) is called, async-signal-safe, on SIGUSR1. */
int os_on_report_signal(void (*fn)(int signo));
/* Ends the process by that signal's default action. */
void os_die_of(int signo);

#endif
