/*
 * Machines with names (--name): each has sockets in a directory of this user's,
 * NAME.WHAT, and is there as long as somebody listens at NAME.control. Nothing else is
 * kept of them.
 *
 * The sockets go when their process ends, however it ends (base/os_socket.c); what is
 * left over, of a host that lost its power, is removed by whoever finds it. So that
 * nobody removes a socket that is bound and not yet listened at, both is done by whoever
 * has the directory's lock.
 */
#ifndef CTL_RUNTIME_H
#define CTL_RUNTIME_H

#include "base/types.h"

#define RUNTIME_NAME_MAX 48
#define RUNTIME_PATH 108 /* of a socket, with its end */

/* What a machine's sockets are called. */
#define RUNTIME_CONTROL "control"
#define RUNTIME_CONSOLE "console"
#define RUNTIME_VSOCK "vsock"
#define RUNTIME_API "api"

bool runtime_is_name(const char *name);
/* False after a message: a name has letters, digits, '-', '_' and '.', and begins with
 * one of the first two. */
bool runtime_check_name(const char *name);
/* The directory; made, if that is wanted. False after a message; without MAKE also, and
 * without one, when there is none. */
bool runtime_dir(bool make, char *out, size_t size);
/* DIR/NAME.WHAT. False after a message: it is too long. */
bool runtime_path(const char *dir, const char *name, const char *what, char *out);
/* Waits for the directory's lock: a descriptor that is closed to give it back, or -errno.
 */
int runtime_lock(const char *dir);
/* Calls FN for each machine whose control socket is there. */
void runtime_each(const char *dir, void (*fn)(void *arg, const char *name), void *arg);
/* Removes what is left of a machine that nobody answers for; with the lock. */
void runtime_remove(const char *dir, const char *name);

#endif
