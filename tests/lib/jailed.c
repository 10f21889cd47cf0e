/* A process that enters a jail; see jailed.h. */
#include "lib/jailed.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/unit.h"

void jailed_enter(const struct os_jail_needs *needs) {
    int rc = os_jail_enter(needs ? needs : &(struct os_jail_needs){0});

    if (rc) {
        fprintf(stderr, "no jail: %s\n", strerror(-rc));
        _exit(1);
    }
}

void jailed_call(const struct jailed_call *c) {
    const long *a = c->arg;

    syscall(c->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

bool jailed_forbids(const struct child_end *e, const struct jailed_call *c) {
    char want[128];

    snprintf(want, sizeof(want), "the jail forbids the system call %s (%d)",
             c->told ? c->told : c->name, (int)c->nr);
    if (WIFEXITED(e->status) && WEXITSTATUS(e->status) == 1 && strstr(e->text, want) &&
        strchr(e->text, '\n') == e->text + strlen(e->text) - 1)
        return true;
    print_error("%s: status %#x, it said: %s\n", c->name, e->status, e->text);
    return false;
}
