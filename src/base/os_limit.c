/* Limits of a process; see os_limit.h. */
#include "base/os_limit.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/resource.h>

/* Linux, fs/coredump.c: a core that goes to a program, as /proc/sys/kernel/core_pattern
 * may have it, is made whatever the limit is, but for 1; one that goes to a file is not
 * made with that either. */
#define NO_CORE 1

static void limit(__rlimit_resource_t what, rlim_t most, rlim_t now) {
    struct rlimit r;

    if (getrlimit(what, &r))
        return;
    r.rlim_max = r.rlim_max < most ? r.rlim_max : most;
    r.rlim_cur = now < r.rlim_max ? now : r.rlim_max;
    setrlimit(what, &r);
}

static void lower(__rlimit_resource_t what, rlim_t most) {
    struct rlimit r;

    if (!getrlimit(what, &r))
        limit(what, most, r.rlim_cur);
}

void limit_process(bool forks, unsigned files) {
    limit(RLIMIT_CORE, NO_CORE, NO_CORE);
    if (!forks)
        lower(RLIMIT_NPROC, 0);
    lower(RLIMIT_MSGQUEUE, 0);
    lower(RLIMIT_MEMLOCK, 0);
    if (files != LIMIT_FILES_ANY)
        lower(RLIMIT_NOFILE, files);
}

unsigned limit_highest_open(void) {
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *e;
    unsigned highest = 0;

    while (dir && (e = readdir(dir)))
        if ((unsigned)atoi(e->d_name) > highest)
            highest = (unsigned)atoi(e->d_name);
    if (!dir)
        return UINT16_MAX;
    closedir(dir);
    return highest;
}
