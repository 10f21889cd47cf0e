/* The IDE controller of a machine, when its configuration has disks for it. */
#ifndef MACHINE_IDE_H
#define MACHINE_IDE_H

#include "dev/ide/ide.h"

struct machine;

/* *OUT is NULL when there is nothing for it to drive. 0, or -errno with one sentence in
 * WHY. */
int machine_ide_create(struct machine *m, struct ide **out, char *why, size_t why_size);
/* Which of its drives disk DISK of the configuration is; IDE_DRIVES: none. */
unsigned machine_ide_place(const struct machine *m, unsigned disk);

#endif
