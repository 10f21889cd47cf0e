/* A process that enters a jail, and calls that end it there. */
#ifndef LIB_JAILED_H
#define LIB_JAILED_H

#include "base/os.h"
#include "lib/child.h"

struct jailed_call {
    const char *name;
    long nr;
    long arg[6];
    const char *told; /* instead of the name */
};
#define JAILED_CALL(name, ...)                                                           \
    { #name, SYS_##name, {__VA_ARGS__ }, NULL }

/* In a child: with NEEDS, or none (NULL). Without a jail the child ends. */
void jailed_enter(const struct os_jail_needs *needs);
void jailed_call(const struct jailed_call *c);
/* The child ended for C, with the sentence that there is for that and no other; if not,
 * what it did is printed. */
bool jailed_forbids(const struct child_end *e, const struct jailed_call *c);

#endif
