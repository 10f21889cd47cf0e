/* In the process where clients come (gate.h): what is opened for the machine. */
#ifndef API_GATE_FILES_H
#define API_GATE_FILES_H

#include "api/gate_int.h"

struct gate_files;

/* NAMED, which stays the caller's, is what may be opened. NULL: out of memory. */
struct gate_files *gate_files_new(struct named *named);
/* The answer to O, with two descriptors in FD, the caller's, or -1s. */
void gate_files_do(struct gate_files *f, struct gate_order *o, struct gate_answer *a,
                   int fd[2]);
/* The machine has ended: what it has not finished goes. */
void gate_files_end(struct gate_files *f);

#endif
