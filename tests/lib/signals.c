#include "lib/signals.h"

#include <signal.h>

static struct sigaction action;

void signals_remember(void) {
    sigaction(SIGSEGV, NULL, &action);
}

void signals_back(void) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

    for (unsigned k = 0; k < sizeof(faults) / sizeof(*faults); k++)
        sigaction(faults[k], &action, NULL);
}
