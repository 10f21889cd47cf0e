/*
 * Cells with programs of a test's in them. A world has a pool, some RAM, and one cell
 * that maps CODE (read and execute) and DATA (read and write).
 */
#ifndef LIB_CELLS_H
#define LIB_CELLS_H

#include "direct/abi.h"
#include "direct/cell.h"

#define CELLS_CODE 0x10000000ull
#define CELLS_DATA 0x20000000ull
#define CELLS_PAGES 16u /* of each */

struct cells_world {
    struct cell_pool *pool;
    struct cell *cell;
    uint8_t *ram; /* code, then data */
    uint64_t *data;
    int fd;
    struct cell_regs regs;
    struct cell_exit out;
    struct cell_vec vec;
    uint8_t *image;
};

/* False, after a word to standard error: this host has none. */
bool cells_open(struct cells_world *w);
void cells_close(struct cells_world *w);
/* Another cell in place of the one that has died. */
void cells_again(struct cells_world *w);
/* Runs the bytes [FROM, TO) from the beginning, with the registers as they are. */
void cells_run(struct cells_world *w, const char *from, const char *to);
/* From where it was. */
void cells_go_on(struct cells_world *w);
/* Where NAME is in the cell's program. */
uint64_t cells_symbol(const char *name);

/* A piece of code NAME for cells_run(), as assembly. */
#define CELLS_PROGRAM(name, text)                                                        \
    extern const char name[], name##_end[];                                              \
    __asm__(".pushsection .rodata\n" #name ":\n" text "\n" #name "_end:\n.popsection\n")
#define CELLS_RUN(w, name) cells_run(w, name, name##_end)

#endif
