/* Work in a process of its own; see apart.h. */
#include "replay/apart.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/os.h"

static int wait_for(pid_t pid) {
    int status;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    if (WIFSIGNALED(status))
        os_die_of(WTERMSIG(status)); /* so that our caller sees what happened */
    return WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
}

static void work(void (*fn)(void *copy), void *copy, pid_t parent) {
    /* "prctl(2)", PR_SET_PDEATHSIG: the parent may be gone already. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != parent)
        _exit(1);
    fn(copy);
    _exit(0);
}

int apart_run(void (*fn)(void *copy), void *arg, size_t size) {
    void *copy =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t parent = getpid(), pid;
    int rc;

    if (copy == MAP_FAILED)
        return -errno;
    memcpy(copy, arg, size);
    pid = fork();
    if (!pid)
        work(fn, copy, parent);
    rc = pid < 0 ? -errno : wait_for(pid);
    memcpy(arg, copy, size);
    munmap(copy, size);
    return rc;
}
