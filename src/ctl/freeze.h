/* What of a snapshot is the command line's: the options of the run, its disks, its host,
 * and what its file of memory is. ctl/take.h writes it, `bivisor restore` reads it. */
#ifndef CTL_FREEZE_H
#define CTL_FREEZE_H

#include "ctl/run_options.h"
#include "machine/machine.h"
#include "snapshot/snapshot.h"

#define FREEZE_BOOT 36u
#define FREEZE_ID 16u

struct api;

struct freeze {
    const struct run_options *options;
    const struct api *api; /* NULL: nobody has described the machine by requests */
    struct {
        const char *path;
        int fd;
        uint64_t changed;
    } watch[MACHINE_DISKS]; /* disks that others could write to */
    unsigned watched;
    char boot[FREEZE_BOOT]; /* of the host: which start of it; empty: unknown */
};

/* Before the jail: what is looked at later. And the end. */
void freeze_look(struct freeze *f);
void freeze_watch(struct freeze *f);
void freeze_end(struct freeze *f);
/* The options' disk N, whose path was OLD, has another file, of which FD is a descriptor
 * that is taken over. */
void freeze_exchanged(struct freeze *f, unsigned n, const char *old, int fd);

/* False: what the guest wrote to a disk ends with this run. */
bool freeze_disks_last(const struct freeze *f);

/* The run's own records, while the machine stands. */
void freeze_write(struct freeze *f, struct snapshot *s);

/* A file of memory has a number that no other has, which the state has as well. False: it
 * has none. SIGNED_RAM (to write: true): it says so itself, in a page behind the memory
 * of SIZE bytes, so that the one cannot be taken for another's. */
bool freeze_ram(struct snapshot *s, uint8_t id[FREEZE_ID], bool *signed_ram);
#define FREEZE_TAIL 4096u
/* FD gets that page. 0 or -errno. */
int freeze_sign(int fd, uint64_t size, const uint8_t id[FREEZE_ID]);
/* FD has it, with that number. */
bool freeze_signed(int fd, uint64_t size, const uint8_t id[FREEZE_ID]);

/* Where the memory's file is, as seen from where the state's is, if it is not called as
 * that one, with .ram behind it: empty then. Writes PATH, or reads it. False: the
 * snapshot is wrong. */
#define FREEZE_PATH 4096u
bool freeze_memory(struct snapshot *s, char path[FREEZE_PATH]);

/* An incremental one: its file of memory has these pages, and all else is in that of
 * BASE, by a name that is looked for from where this one is. */
struct freeze_increment {
    bool there;
    uint8_t base_id[FREEZE_ID];
    char base[FREEZE_PATH];
    uint32_t count;
    struct freeze_run {
        uint64_t from, end; /* numbers of pages of the machine's memory */
    } * run;
};

/* Writes I, or reads it: then I->run is the caller's to free. False: the snapshot is
 * wrong. */
bool freeze_increment(struct snapshot *s, struct freeze_increment *i);

/* The disks of the run that S is of are what they were then, as far as files tell: else
 * false, with one sentence in WHY. WORDS are those that the run that is to go on has from
 * it. */
bool freeze_disks(struct snapshot *s, char *why, size_t why_size);

/* What the API said of the machine, as text, the caller's to free(); NULL: nothing. */
char *freeze_api(struct snapshot *s);

/* The run that S is of counted time by instructions: from *START_NS on, since 1970. */
bool freeze_counted(struct snapshot *s, uint64_t *start_ns);

/* Takes what S says of the host, if it is this one: what need not be measured again. */
void freeze_host(struct snapshot *s);

/* The options of the run that S is of: as many words as *COUNT says, which are BUF's
 * (SIZE bytes), into WORDS (of MAX). False: there is none, or they are too many. */
bool freeze_options(struct snapshot *s, char *buf, size_t size, const char **words,
                    size_t max, size_t *count);
/* The same of a run that is here: how many; 0: they are too many. */
size_t freeze_given(const struct run_options *o, char *buf, size_t size,
                    const char **words, size_t max);

#endif
