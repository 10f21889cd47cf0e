/* Memory that shows a file (mem_overlay()) gets a descriptor again, which others can map.
 * (share.c) */
#ifndef MEM_SHARE_H
#define MEM_SHARE_H

#include "mem/mem.h"

/* After mem_overlay(), and before the jail: all of it is to be in mem_ram_fd() again.
 * Then what the file has from *AT on, bit by bit, while memory is used: 1, 0 at the end.
 * Then what was written to, while nobody uses it, and memory is there. 0 or -errno: it
 * stays as it is. */
int mem_share_begin(struct mem *m);
int mem_share_part(struct mem *m, uint64_t *at);
int mem_share_finish(struct mem *m);
/* The end of M is near: what mem_overlay() keeps open for this, and for mem_save_part(),
 * is closed. */
void mem_share_drop(struct mem *m);

#endif
