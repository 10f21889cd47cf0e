/* The files of memory that a snapshot is restored from: its own, and those of the
 * snapshots that it only has the changes to. */
#ifndef CTL_CHAIN_H
#define CTL_CHAIN_H

#include "ctl/freeze.h"

struct machine;

#define CHAIN_MAX 64u /* snapshots, one the base of the next */

struct chain {
    unsigned count;
    struct chain_link {
        char path[FREEZE_PATH], memory[FREEZE_PATH + 16];
        bool named;      /* ID is its number: it can be a base */
        bool signed_ram; /* its memory's file says that number, too */
        uint8_t id[FREEZE_ID];
        int ram;
        bool packed;                       /* RAM is (pack.h), until chain_unpack() */
        struct freeze_increment increment; /* of all but the last */
    } link[CHAIN_MAX];                     /* what is restored, its base, its base's... */
};

/* Opens that of PATH, whose state S is, and all that it leads to. Its memory is in the
 * file MEMORY, or if that is NULL where S says. 0, or -errno after a message. To be
 * closed in either case. */
int chain_open(struct chain *c, const char *path, const char *memory, struct snapshot *s);
void chain_close(struct chain *c);
/* What is packed of it is not any more, but in memory; files of up to MOST bytes. 0 or
 * -errno: -EINVAL if one is no such file. */
int chain_unpack(struct chain *c, uint64_t most);

/* Memory of M, which is new, is that of C; and then that of the pages of I, in the file
 * RAM. 0, or -errno, the first after a message. */
int chain_show(struct chain *c, struct machine *m);
int chain_show_changes(struct machine *m, int ram, const struct freeze_increment *i);

/* The whole file PATH, a snapshot's state: the caller's to free; -errno after a message.
 */
int chain_read(const char *path, uint8_t **bytes, size_t *len);
/* The same of an open file, from its beginning, without messages: 0 or -errno, -EINVAL:
 * it is too long to be one. */
int chain_read_fd(int fd, uint8_t **bytes, size_t *len);

#endif
