/*
 * Memory that shows a snapshot's file becomes memory that has a descriptor, which other
 * processes (cells) can map. The memfd that memory was made with waits for that, empty.
 *
 * What was given back to the host meanwhile (mem_discard(), a reset) is zero, whatever
 * the file has there: these ranges are noted, a few of them, and cleared in the end.
 */
#include <errno.h>

#include "base/os.h"
#include "base/os_overlay.h"
#include "mem/mem_int.h"
#include "mem/share.h"

int mem_share_begin(struct mem *m) {
    if (m->shown < 0 || m->fd < 0 || !m->overlay.size)
        return -ENODEV;
    m->blanks = 0;
    return os_overlay_begin(&m->overlay, m->fd);
}

int mem_share_part(struct mem *m, uint64_t *at) {
    int rc = m->overlay.second ? os_overlay_fill(&m->overlay, m->shown, at) : -ENODEV;

    return rc ? rc : *at < m->host;
}

static int clear_blanks(struct mem *m) {
    int rc = m->blanks > MEM_BLANKS ? -ENOSPC : 0;

    for (unsigned n = 0; n < m->blanks && !rc; n++)
        rc = os_memfd_zero_part(m->fd, m->overlay.second, m->blank[n].from,
                                m->blank[n].to - m->blank[n].from);
    return rc;
}

int mem_share_finish(struct mem *m) {
    int rc = m->overlay.second ? clear_blanks(m) : -ENODEV;

    if (!rc)
        rc = os_overlay_settle(&m->overlay, m->layout.base);
    if (rc) {
        os_overlay_end(&m->overlay);
        return rc;
    }
    m->shown = -1;
    os_overlay_close(&m->overlay);
    return 0;
}

void mem_share_drop(struct mem *m) {
    os_overlay_close(&m->overlay);
}
