/*
 * Filters of system calls (seccomp(2), through libseccomp): lists of rules, and what
 * happens to a call that is in none: it does not happen, but raises SIGSYS, whose handler
 * says which call it was and ends the process. For the jails (os_jail.c,
 * os_jail_network.c, os_jail_connector.c, os_jail_files.c and others).
 */
#ifndef BASE_OS_FILTER_H
#define BASE_OS_FILTER_H

#include <linux/filter.h>
#include <seccomp.h>
#include <signal.h>

#include "base/types.h"

#define ARG32 0xffffffffu /* of an argument that the kernel takes as 32 bits */

/* A condition on argument N: bits MASK of it are VALUE. */
struct filter_arg {
    unsigned n;
    uint64_t mask, value;
};

/* The call is allowed if all conditions hold. */
struct filter_rule {
    int call;
    unsigned nargs;
    struct filter_arg arg[2];
};

#define ANY(name)                                                                        \
    { .call = SCMP_SYS(name) }
#define IF(name, n, mask, value)                                                         \
    {                                                                                    \
        .call = SCMP_SYS(name), .nargs = 1, .arg = { {n, mask, value} }                  \
    }
#define IF2(name, n, mask, value, n2, mask2, value2)                                     \
    {                                                                                    \
        .call = SCMP_SYS(name), .nargs = 2, .arg = {                                     \
            {n, mask, value},                                                            \
            {n2, mask2, value2}                                                          \
        }                                                                                \
    }

/* A filter that lets nothing through yet: what OTHERWISE says happens to all calls
 * (SCMP_ACT_TRAP...). 0 or -errno. */
int filter_new(uint32_t otherwise, scmp_filter_ctx *out);
int filter_add(scmp_filter_ctx ctx, const struct filter_rule *r);
int filter_add_all(scmp_filter_ctx ctx, const struct filter_rule *r, size_t count);
/* A filter with COUNT rules of R, and MORE, which may be NULL, which raises SIGSYS for
 * other calls. 0; or -errno, and there is none. */
int filter_with(const struct filter_rule *r, size_t count, const struct filter_rule *more,
                scmp_filter_ctx *out);
/* The same for a process of ours, which may end itself by abort(3), after a bug. -ENOTSUP
 * under sanitizers, which call what no list has. */
int filter_for_process(const struct filter_rule *r, size_t count, scmp_filter_ctx *out);
/* CTX is used up. HANDLER is asked first, if it is not NULL, about a call that no rule
 * allows, in the handler of its signal: true when it has answered it, in CONTEXT. 0: the
 * filter holds from now on, for the calling thread; or -errno. */
int filter_load(scmp_filter_ctx ctx, bool (*handler)(const siginfo_t *si, void *context));

/* The same without a handler. */
int filter_put_on(scmp_filter_ctx ctx);

/* The same in steps, for threads that have filters of their own. CTX becomes a
 * program and is used up: 0, and free(out->filter) is the caller's; or -errno. */
int filter_program(scmp_filter_ctx ctx, struct sock_fprog *out);
/* The handler, for the whole process. 0 or -errno. */
int filter_catch(bool (*handler)(const siginfo_t *si, void *context));
/* PROGRAM holds from now on for the calling thread alone, which gains no privileges any
 * more. 0 or -errno. Async-signal-safe. */
int filter_restrict(const struct sock_fprog *program);

/* Executes FN in a child: what it returns, 0 to 255; or -errno, -EPERM when the child was
 * killed. */
int filter_in_child(int (*fn)(void));
/* Can the calls of FN be made here without being killed for it, as a filter outside of us
 * may want? Without a filter nothing is tried. */
bool filter_survives(int (*fn)(void));

/* Beside files, for filter_no_files(). */
#define FILTER_NO_TCP 1u     /* neither bound nor connected */
#define FILTER_NO_SIGNALS 2u /* to processes that are not of its making */
/* A set of rules for who finds no files, comes to no abstract socket of others, and may
 * not do ALSO; -1: this host has no Landlock. To be closed. */
int filter_no_files(unsigned also);
/* It holds for the calling thread from now on. Async-signal-safe. */
void filter_no_files_here(int rules);
/* Both, for a process of one thread, which mounts nothing afterwards. */
void filter_no_files_alone(unsigned also);
/* Which version of Landlock this host has; 0: none. */
unsigned filter_files_version(void);

/* From now on the process finds files below the directory DIR, to read them or to change
 * them as well, and no others. A host that has no Landlock leaves all to the filter. */
void filter_files(int dir, bool readonly);
/* The same for who removes a file there, and does no more. */
void filter_removing(int dir);

/* malloc(3): memory that is neither a file's nor executable. */
#define FILTER_MALLOC                                                                    \
    ANY(brk),                                                                            \
        IF2(mmap, 2, ~(uint64_t)(PROT_READ | PROT_WRITE), 0, 3, MAP_ANONYMOUS,           \
            MAP_ANONYMOUS),                                                              \
        ANY(munmap), ANY(mremap), IF(madvise, 2, ARG32, MADV_DONTNEED), ANY(futex),      \
        ANY(getrandom)

/* The handler of SIGSYS, and the end. */
#define FILTER_END                                                                       \
    ANY(rt_sigreturn), ANY(rt_sigprocmask), ANY(getpid), ANY(gettid), ANY(exit_group)

#endif
