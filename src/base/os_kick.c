/*
 * A kick is a signal whose handler does nothing: a system call that waits in the kernel
 * for the guest returns EINTR, others are restarted. The handler stays when kvm was tried
 * in vain: then it may come amid translated code, whose stack pointer is the guest's.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/os.h"

#define AGAIN_NS 100000000

static void nothing(int signo) {
}

int os_kick_init(void) {
    struct sigaction sa = {.sa_handler = nothing, .sa_flags = SA_RESTART | SA_ONSTACK};

    sigemptyset(&sa.sa_mask);
    return sigaction(SIGRTMIN, &sa, NULL) ? -errno : 0;
}

int os_thread_id(void) {
    return (int)syscall(SYS_gettid);
}

void os_kick(int thread) {
    syscall(SYS_tgkill, getpid(), thread, SIGRTMIN);
}

int os_kick_timer(uint64_t ns, void **timer) {
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    struct itimerspec its = {.it_value = {.tv_sec = (time_t)(ns / 1000000000u),
                                          .tv_nsec = (long)(ns % 1000000000u)},
                             .it_interval = {.tv_nsec = AGAIN_NS}};

    ev._sigev_un._tid = os_thread_id();
    if (timer_create(CLOCK_MONOTONIC, &ev, timer))
        return -errno;
    return timer_settime(*timer, 0, &its, NULL) ? -errno : 0;
}

void os_kick_timer_stop(void *timer) {
    timer_delete(timer);
}
