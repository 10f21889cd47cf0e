/*
 * Looks up a function in an ELF file's symbol table.
 *
 * The file is not trusted: every structure is reached through slice(), which checks that
 * it lies in the file, and no sum can wrap; section headers may name the same symbols
 * again and again, but no more are looked at than the file has room for. A symbol without
 * a size (assembly code) ends at the next symbol of its section, or with the section.
 * Relocations are not applied: the code of a relocatable file has zeros in place of what
 * the linker fills in.
 */
#include "ctl/elf_symbol.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct elf {
    const uint8_t *file;
    uint64_t size;
    bool is64;
    uint64_t shoff;
    unsigned shnum, shentsize, type;
};

struct section {
    uint32_t type, link;
    uint64_t addr, offset, size, entsize;
};

struct symbol {
    uint32_t name;
    uint8_t type;
    uint16_t section;
    uint64_t value, size;
};

/* LEN bytes at OFF of the file, or NULL. */
static const uint8_t *slice(const struct elf *e, uint64_t off, uint64_t len) {
    return off <= e->size && len <= e->size - off ? e->file + off : NULL;
}

bool elf_probe(const uint8_t *file, uint64_t size) {
    return size >= SELFMAG && !memcmp(file, ELFMAG, SELFMAG);
}

static bool read_header(struct elf *e) {
    if (e->size < EI_NIDENT || e->file[EI_DATA] != ELFDATA2LSB)
        return false;
    e->is64 = e->file[EI_CLASS] == ELFCLASS64;
    if (e->is64) {
        Elf64_Ehdr h;

        if (!slice(e, 0, sizeof(h)))
            return false;
        memcpy(&h, e->file, sizeof(h));
        e->shoff = h.e_shoff;
        e->shnum = h.e_shnum;
        e->shentsize = h.e_shentsize;
        e->type = h.e_type;
        return h.e_machine == EM_X86_64 && h.e_shentsize >= sizeof(Elf64_Shdr);
    } else {
        Elf32_Ehdr h;

        if (!slice(e, 0, sizeof(h)))
            return false;
        memcpy(&h, e->file, sizeof(h));
        e->shoff = h.e_shoff;
        e->shnum = h.e_shnum;
        e->shentsize = h.e_shentsize;
        e->type = h.e_type;
        return h.e_machine == EM_386 && h.e_shentsize >= sizeof(Elf32_Shdr);
    }
}

static bool read_section(const struct elf *e, unsigned n, struct section *s) {
    uint64_t off = e->shoff + (uint64_t)n * e->shentsize;
    const uint8_t *p;

    if (n >= e->shnum || off < e->shoff || !(p = slice(e, off, e->shentsize)))
        return false;
    if (e->is64) {
        Elf64_Shdr h;

        memcpy(&h, p, sizeof(h));
        *s = (struct section){h.sh_type,   h.sh_link, h.sh_addr,
                              h.sh_offset, h.sh_size, h.sh_entsize};
    } else {
        Elf32_Shdr h;

        memcpy(&h, p, sizeof(h));
        *s = (struct section){h.sh_type,   h.sh_link, h.sh_addr,
                              h.sh_offset, h.sh_size, h.sh_entsize};
    }
    return true;
}

/* Symbol N of TABLE; false behind the last one that lies in the file. */
static bool read_symbol(const struct elf *e, const struct section *table, uint64_t n,
                        struct symbol *s) {
    size_t size = e->is64 ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
    const uint8_t *p;

    if (table->entsize != size || n >= table->size / size || table->offset > e->size ||
        !(p = slice(e, table->offset + n * size, size)))
        return false;
    if (e->is64) {
        Elf64_Sym y;

        memcpy(&y, p, sizeof(y));
        *s = (struct symbol){y.st_name, ELF64_ST_TYPE(y.st_info), y.st_shndx, y.st_value,
                             y.st_size};
    } else {
        Elf32_Sym y;

        memcpy(&y, p, sizeof(y));
        *s = (struct symbol){y.st_name, ELF32_ST_TYPE(y.st_info), y.st_shndx, y.st_value,
                             y.st_size};
    }
    return true;
}

/* Whether the string at AT of section STR is NAME. */
static bool name_is(const struct elf *e, const struct section *str, uint32_t at,
                    const char *name) {
    uint64_t len = strlen(name) + 1;
    const uint8_t *p;

    if (at >= str->size || len > str->size - at || str->offset > e->size)
        return false;
    p = slice(e, str->offset + at, len);
    return p && !memcmp(p, name, len);
}

static bool is_code(const struct symbol *s) {
    return (s->type == STT_FUNC || s->type == STT_NOTYPE || s->type == STT_GNU_IFUNC) &&
           s->section != SHN_UNDEF && s->section < SHN_LORESERVE;
}

/* Where a symbol without a size ends: bytes from its beginning, at most ROOM. */
static uint64_t extent(const struct elf *e, const struct section *table,
                       const struct symbol *of, uint64_t room) {
    struct symbol s;

    for (uint64_t n = 0; read_symbol(e, table, n, &s); n++)
        if (s.section == of->section && is_code(&s) && s.value > of->value &&
            s.value - of->value < room)
            room = s.value - of->value;
    return room;
}

/* The bytes of symbol S. */
static bool locate(const struct elf *e, const struct section *table,
                   const struct symbol *s, struct elf_code *out) {
    struct section code;
    uint64_t in, room;

    if (!read_section(e, s->section, &code) || code.type == SHT_NOBITS)
        return false;
    in = e->type == ET_REL ? s->value : s->value - code.addr;
    if (in >= code.size || code.offset > e->size)
        return false;
    room = code.size - in;
    out->size = s->size ? s->size : extent(e, table, s, room);
    if (out->size > room || in > e->size)
        return false;
    out->bytes = slice(e, code.offset + in, out->size);
    out->va = s->value;
    out->mode = e->is64 ? MODE_64 : MODE_32;
    return out->bytes != NULL;
}

/* 1: found, 0: not there, -1: there, but its bytes are not in the file. *LEFT: symbols
 * that may still be looked at. */
static int search(const struct elf *e, const struct section *table, const char *name,
                  uint64_t *left, struct elf_code *out) {
    struct section str;
    struct symbol s;

    if (!read_section(e, table->link, &str))
        return 0;
    for (uint64_t n = 0; *left && read_symbol(e, table, n, &s); n++, --*left)
        if (is_code(&s) && name_is(e, &str, s.name, name))
            return locate(e, table, &s, out) ? 1 : -1;
    return 0;
}

int elf_symbol_find(const uint8_t *file, uint64_t size, const char *name,
                    struct elf_code *out, char *why, size_t why_size) {
    struct elf e = {.file = file, .size = size};
    struct section s;
    uint64_t left = size / sizeof(Elf32_Sym);
    unsigned tables = 0;

    if (!elf_probe(file, size) || !read_header(&e)) {
        snprintf(why, why_size, "it is not a complete ELF file for x86");
        return -EINVAL;
    }
    for (unsigned n = 0; read_section(&e, n, &s); n++) {
        int found;

        if (s.type != SHT_SYMTAB && s.type != SHT_DYNSYM)
            continue;
        tables++;
        found = search(&e, &s, name, &left, out);
        if (found > 0)
            return 0;
        if (found < 0) {
            snprintf(why, why_size, "the code of '%s' does not lie in the file", name);
            return -EINVAL;
        }
    }
    if (tables)
        snprintf(why, why_size, "it has no function '%s'", name);
    else
        snprintf(why, why_size, "it has no symbol table; is it stripped?");
    return -EINVAL;
}
