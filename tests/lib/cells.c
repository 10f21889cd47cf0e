/* Cells with programs of a test's in them; see cells.h. */
#include "lib/cells.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bug.h"
#include "base/os.h"
#include "cpu/vcpu.h"
#include "cpu/vec_host.h"
#include "direct/direct.h"

#define SIZE (CELLS_PAGES * 4096u)
#define PROT_RW 3
#define PROT_RX 5

extern const uint8_t _binary_cell_start[];

static void new_cell(struct cells_world *w) {
    w->cell = cell_new(w->pool, -1, 0);
    BUG_ON(!w->cell || cell_ready(w->cell, true) != 1);
    cell_unmap_all(w->cell);
    cell_map(w->cell, CELLS_CODE, CELLS_PAGES, PROT_RX, 0);
    cell_map(w->cell, CELLS_DATA, CELLS_PAGES, PROT_RW, SIZE);
    BUG_ON(cell_sync(w->cell));
}

bool cells_open(struct cells_world *w) {
    const char *lacks;
    void *map;

    *w = (struct cells_world){0};
    vec_init();
    BUG_ON(os_memfd_map("cells", 2 * SIZE, &w->fd, &map));
    w->ram = map;
    w->data = (uint64_t *)(w->ram + SIZE);
    BUG_ON(cell_pool_new(w->fd, &w->pool));
    lacks = direct_lacks(w->pool);
    if (lacks) {
        fprintf(stderr, "# %s\n", lacks);
        return false;
    }
    w->image = aligned_alloc(64, VCPU_XSAVE_SIZE);
    memset(w->image, 0, VCPU_XSAVE_SIZE);
    w->vec = (struct cell_vec){w->image, 832, vec_supported(), vec_mxcsr_mask()};
    new_cell(w);
    return true;
}

void cells_close(struct cells_world *w) {
    cell_give_back(w->cell);
    cell_pool_free(w->pool);
    os_memfd_unmap(w->fd, w->ram, 2 * SIZE);
    free(w->image);
}

void cells_again(struct cells_world *w) {
    cell_give_back(w->cell);
    new_cell(w);
}

static bool never(void *arg) {
    return false;
}

void cells_go_on(struct cells_world *w) {
    cell_run(w->cell, &w->regs, &w->vec, never, NULL, &w->out);
}

void cells_run(struct cells_world *w, const char *from, const char *to) {
    BUG_ON(to - from > SIZE);
    memcpy(w->ram, from, (size_t)(to - from));
    w->regs.rip = CELLS_CODE;
    w->regs.gpr[REG_RSP] = CELLS_DATA + SIZE - 4096;
    cells_go_on(w);
}

uint64_t cells_symbol(const char *name) {
    const Elf64_Ehdr *e = (const Elf64_Ehdr *)_binary_cell_start;
    const Elf64_Shdr *s = (const Elf64_Shdr *)(_binary_cell_start + e->e_shoff);

    for (unsigned n = 0; n < e->e_shnum; n++) {
        const Elf64_Sym *sym = (const Elf64_Sym *)(_binary_cell_start + s[n].sh_offset);
        const char *text = (const char *)_binary_cell_start + s[s[n].sh_link].sh_offset;

        if (s[n].sh_type != SHT_SYMTAB)
            continue;
        for (unsigned k = 0; k < s[n].sh_size / sizeof(*sym); k++)
            if (!strcmp(text + sym[k].st_name, name))
                return sym[k].st_value;
    }
    BUG_ON(true);
}
