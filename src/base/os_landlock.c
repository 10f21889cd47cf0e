/* Which files a process finds, by Landlock ("landlock(7)"); see os_filter.h. */
#include <linux/landlock.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/os_filter.h"

#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE                                                                            \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |                     \
     LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_DIR |                      \
     LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK |                        \
     LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM)
#define FIRST_ABI                                                                        \
    (READ | WRITE | LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |          \
     LANDLOCK_ACCESS_FS_MAKE_BLOCK)
/* Later versions', which the headers may not have. */
#define REFER (1ull << 13)    /* 2: a file gets a name in another directory */
#define TRUNCATE (1ull << 14) /* 3 */
#define DEVICES (1ull << 15)  /* 5: ioctl(2) of a device that is opened later */
#define BIND_TCP (1ull << 0)  /* 4 */
#define CONNECT_TCP (1ull << 1)
#define ABSTRACT (1ull << 0) /* 6: sockets of others that have no path */
#define SIGNALS (1ull << 1)  /* 6: to processes that are not restricted alike */

/* struct landlock_ruleset_attr as it has become. An older kernel takes it if what it does
 * not know is zero. */
struct ruleset {
    uint64_t files, network, scoped;
};

static long ask_version(void) {
    return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

/* Both calls, the second of which finds nothing to do. */
static int try_calls(void) {
    return ask_version() < 1 || !syscall(SYS_landlock_restrict_self, -1, 0);
}

unsigned filter_files_version(void) {
    long abi = filter_survives(try_calls) ? ask_version() : 0;

    return abi < 1 ? 0 : (unsigned)abi;
}

/* What the host's version knows, or 0. The first lets no file move to another directory.
 */
static uint64_t known_accesses(bool readonly) {
    unsigned abi = filter_files_version();

    if (abi < 1 || (abi < 2 && !readonly))
        return 0;
    return FIRST_ABI | (abi >= 2 ? REFER : 0) | (abi >= 3 ? TRUNCATE : 0);
}

/* ALLOWED below DIR, of all that the host's version knows; a wish. */
static void allow_below(int dir, uint64_t known, uint64_t allowed) {
    struct landlock_ruleset_attr set = {.handled_access_fs = known};
    struct landlock_path_beneath_attr below = {.allowed_access = known & allowed,
                                               .parent_fd = dir};
    int fd;

    if (!known)
        return;
    fd = (int)syscall(SYS_landlock_create_ruleset, &set, sizeof(set), 0);
    if (fd < 0)
        return;
    if (!syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &below, 0))
        filter_no_files_here(fd);
    close(fd);
}

void filter_files(int dir, bool readonly) {
    allow_below(dir, known_accesses(readonly),
                readonly ? READ : READ | WRITE | REFER | TRUNCATE);
}

void filter_removing(int dir) {
    allow_below(dir, known_accesses(true), LANDLOCK_ACCESS_FS_REMOVE_FILE);
}

int filter_no_files(unsigned also) {
    unsigned abi = filter_files_version();
    /* Signals between threads each of which is restricted by itself were taken for
     * signals to others by some kernels: a process of several leaves those to its
     * filters. */
    const struct ruleset set = {
        .files = FIRST_ABI | (abi >= 2 ? REFER : 0) | (abi >= 3 ? TRUNCATE : 0) |
                 (abi >= 5 ? DEVICES : 0),
        .network = abi >= 4 && also & FILTER_NO_TCP ? BIND_TCP | CONNECT_TCP : 0,
        .scoped = abi < 6 ? 0 : ABSTRACT | (also & FILTER_NO_SIGNALS ? SIGNALS : 0),
    };

    if (!abi)
        return -1;
    return (int)syscall(SYS_landlock_create_ruleset, &set, sizeof(set), 0);
}

void filter_no_files_here(int rules) {
    if (rules >= 0 && !prctl(PR_SET_NO_NEW_PRIVS, 1ul, 0ul, 0ul, 0ul))
        (void)!syscall(SYS_landlock_restrict_self, rules, 0);
}

void filter_no_files_alone(unsigned also) {
    int rules = filter_no_files(also);

    filter_no_files_here(rules);
    if (rules >= 0)
        close(rules);
}
