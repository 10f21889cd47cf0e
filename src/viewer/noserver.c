/* In the place of server.c where libvncserver was missing when bivisor was built. */
#ifndef HAVE_LIBVNCSERVER
#include <errno.h>
#include <unistd.h>

#include "viewer/viewer_int.h"

_Noreturn void vnc_server_be(const struct vnc_config *cfg, const char *password,
                             struct arena *arena, int fd, int listener) {
    const struct word w = {.rc = -ENOENT, .library = true};

    _exit(write(fd, &w, sizeof(w)) != sizeof(w));
}

#endif
