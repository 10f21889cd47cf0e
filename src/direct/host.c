/* Can this host run user code directly at all? */
#include <string.h>

#include "base/os.h"
#include "cpu/vec.h"
#include "direct/cell.h"
#include "direct/direct.h"

static const char *lacks(int fd) {
    struct cell_pool *cells;
    int rc = cell_pool_new(fd, &cells);
    const char *text = rc ? strerror(-rc) : direct_lacks(cells);

    if (!rc)
        cell_pool_free(cells);
    return text;
}

const char *direct_host_lacks(void) {
    const char *text;
    void *map;
    int fd, rc = os_memfd_map("check", 4096, &fd, &map);

    if (rc)
        return strerror(-rc);
    vec_init();
    text = lacks(fd);
    os_memfd_unmap(fd, map, 4096);
    return text;
}
