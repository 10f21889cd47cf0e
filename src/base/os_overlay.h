/*
 * Memory that shows a file (os_memory_overlay()): what of it has become this process's
 * own, for whoever saves it; and how it comes to be in a memfd, which other processes can
 * map, without its host addresses' changing. (os_overlay.c)
 */
#ifndef BASE_OS_OVERLAY_H
#define BASE_OS_OVERLAY_H

#include "base/types.h"

struct os_overlay {
    uint8_t *second; /* the memfd's mapping; NULL: there is none */
    uint64_t size;   /* 0: it is not open */
    int pagemap;     /* which pages are this process's own */
};

/* For SIZE bytes. Before the jail. 0, or -errno: the host does not tell. */
int os_overlay_open(struct os_overlay *o, uint64_t size);
void os_overlay_close(struct os_overlay *o);

/* As os_sparse_part(), also where the host has put pages away (which mincore(2) does not
 * tell from none). */
int os_overlay_save_part(const struct os_overlay *o, int to, const uint8_t *map, int from,
                         uint64_t *at);

/* MEMFD, as long, is what memory is to be in. Before the jail. 0 or -errno. */
int os_overlay_begin(struct os_overlay *o, int memfd);
/* What the file FROM has at *AT and a little behind it goes there; *AT says afterwards
 * how far that was, SIZE at the end. Memory may be used meanwhile. 0 or -errno. */
int os_overlay_fill(struct os_overlay *o, int from, uint64_t *at);
/* The pages of MAP that are this process's own go there, too, and MAP shows it from then
 * on. Nobody else uses memory meanwhile. 0 or -errno: MAP is as it was. */
int os_overlay_settle(struct os_overlay *o, uint8_t *map);
/* That is not wanted any more. */
void os_overlay_end(struct os_overlay *o);

#endif
