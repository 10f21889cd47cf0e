/*
 * What `bivisor translate` is given: functions of ELF files, which may be anything, and
 * the translator's options. The file lies right before a page that cannot be read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>
#include <sys/mman.h>

#include "bt/bt.h"
#include "ctl/elf_symbol.h"

enum { TEXT = 0x401000, TEXT_LEN = 40, SIZE = 64 + TEXT_LEN + 5 * 24 + 12 + 4 * 64 };

static uint8_t image[SIZE];
static uint8_t *guarded; /* SIZE bytes that end where a page ends */

/* f: 8 bytes at 4. g and h: no size, at 16 and 24. data: not code. */
static void build(void) {
    static const char names[12] = "\0f\0g\0h\0data";
    Elf64_Ehdr eh = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1},
                     .e_type = ET_EXEC,
                     .e_machine = EM_X86_64,
                     .e_shoff = SIZE - 4 * 64,
                     .e_shentsize = 64,
                     .e_shnum = 4};
    Elf64_Sym sym[5] = {
        {0},
        {1, ELF64_ST_INFO(STB_GLOBAL, STT_FUNC), 0, 1, TEXT + 4, 8},
        {3, ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE), 0, 1, TEXT + 16, 0},
        {5, ELF64_ST_INFO(STB_LOCAL, STT_FUNC), 0, 1, TEXT + 24, 0},
        {7, ELF64_ST_INFO(STB_GLOBAL, STT_OBJECT), 0, 1, TEXT + 32, 8},
    };
    Elf64_Shdr sh[4] = {
        {0},
        {0, SHT_PROGBITS, 0, TEXT, 64, TEXT_LEN, 0, 0, 1, 0},
        {0, SHT_SYMTAB, 0, 0, 64 + TEXT_LEN, sizeof(sym), 3, 1, 8, 24},
        {0, SHT_STRTAB, 0, 0, 64 + TEXT_LEN + sizeof(sym), sizeof(names), 0, 0, 1, 0},
    };
    uint8_t *p = image;

    p = mempcpy(p, &eh, sizeof(eh));
    for (unsigned n = 0; n < TEXT_LEN; n++)
        *p++ = (uint8_t)n;
    p = mempcpy(p, sym, sizeof(sym));
    p = mempcpy(p, names, sizeof(names));
    p = mempcpy(p, sh, sizeof(sh));
    assert_ptr_equal(p, image + SIZE);
}

static int group_setup(void **state) {
    uint8_t *map =
        mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (map == MAP_FAILED || mprotect(map + 4096, 4096, PROT_NONE))
        return -1;
    guarded = map + 4096 - SIZE;
    build();
    return 0;
}

/* The first byte of NAME's code and its length, or -1. */
static int look(const char *name, uint64_t *len) {
    struct elf_code c;
    char why[128] = "";

    if (elf_symbol_find(image, SIZE, name, &c, why, sizeof(why))) {
        assert_true(*why);
        return -1;
    }
    assert_int_equal(c.mode, MODE_64);
    assert_int_equal(c.va, TEXT + *c.bytes);
    *len = c.size;
    return *c.bytes;
}

static void test_elf_symbols(void **state) {
    uint64_t len;

    assert_int_equal(look("f", &len), 4);
    assert_int_equal(len, 8);
    assert_int_equal(look("g", &len), 16);
    assert_int_equal(len, 8); /* up to h */
    assert_int_equal(look("h", &len), 24);
    assert_int_equal(len, TEXT_LEN - 24); /* to the end */
    assert_int_equal(look("data", &len), -1);
    assert_int_equal(look("", &len), -1);
    assert_int_equal(look("ff", &len), -1);
}

/* What becomes of "f" when COUNT headers more name the table of symbols: all but the last
 * of them with other names. */
static int look_behind(unsigned count) {
    unsigned size = SIZE + count * 64;
    uint8_t *file = calloc(1, size);
    Elf64_Ehdr eh;
    Elf64_Shdr sh;
    struct elf_code c;
    char why[128];
    int rc;

    assert_non_null(file);
    memcpy(file, image, SIZE);
    memcpy(&eh, file, sizeof(eh));
    eh.e_shnum = (uint16_t)(4 + count);
    memcpy(file, &eh, sizeof(eh));
    memcpy(&sh, file + SIZE - 2 * 64, sizeof(sh));
    for (unsigned n = 0; n <= count; n++) {
        sh.sh_link = n < count ? 1 : 3;
        memcpy(file + SIZE + ((int)n - 1) * 64 - (n ? 0 : 64), &sh, sizeof(sh));
    }
    rc = elf_symbol_find(file, size, "f", &c, why, sizeof(why));
    free(file);
    return rc;
}

/* Section headers may name one table again and again: no more symbols are looked at than
 * the file has room for. */
static void test_elf_same_table(void **state) {
    assert_int_equal(look_behind(12), 0);
    assert_int_equal(look_behind(64), -EINVAL);
}

/* Whatever is found in FILE lies in it; returns how many of the names were. */
static unsigned find_all(const uint8_t *file, uint64_t size) {
    static const char *const names[] = {"f", "g", "h", "data", ""};
    unsigned found = 0;

    for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
        struct elf_code c;
        char why[128];

        if (elf_symbol_find(file, size, names[n], &c, why, sizeof(why)))
            continue;
        assert_true(c.bytes >= file && c.bytes <= file + size);
        assert_true(c.size <= (uint64_t)(file + size - c.bytes));
        found++;
    }
    return found;
}

static void test_elf_truncated(void **state) {
    for (unsigned len = 0; len < SIZE; len++) {
        uint8_t *file = guarded + SIZE - len;

        memcpy(file, image, len);
        assert_int_equal(find_all(file, len), 0); /* the section headers come last */
    }
    memcpy(guarded, image, SIZE);
    assert_int_equal(find_all(guarded, SIZE), 3);
}

static void test_elf_damaged(void **state) {
    static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
    unsigned lost = 0;

    for (unsigned at = 0; at < SIZE; at++) {
        for (unsigned v = 0; v < ARRAY_SIZE(values); v++) {
            memcpy(guarded, image, SIZE);
            guarded[at] = values[v];
            lost += find_all(guarded, SIZE) < 3;
            /* Its eight bytes, as an offset or a size. */
            memset(guarded + (at & ~7u), values[v], at / 8 < SIZE / 8 ? 8 : 1);
            lost += find_all(guarded, SIZE) < 3;
        }
    }
    assert_true(lost > 100);
}

static void test_options(void **state) {
    static const char *const bad[] = {"",        "chains",
                                      "no-",     "tu",
                                      "tu=",     "tu=0",
                                      "tu=65",   "tu=x",
                                      "no-tu",   "no-tu=1",
                                      "chain=1", "chain,",
                                      ",chain",  "tu=99999999999999999999"};
    struct bt_options o = bt_defaults();
    char why[256];

    assert_int_equal(bt_options_parse(&o, "no-chain,tu=7", why, sizeof(why)), 0);
    assert_false(o.chain);
    assert_true(o.tr.liveness);
    assert_int_equal(o.tr.tu_limit, 7);
    assert_int_equal(bt_options_parse(&o, "chain,no-liveness", why, sizeof(why)), 0);
    assert_true(o.chain);
    assert_false(o.tr.liveness);
    assert_int_equal(o.tr.tu_limit, 7);
    for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
        *why = '\0';
        assert_int_equal(bt_options_parse(&o, bad[n], why, sizeof(why)), -EINVAL);
        assert_true(*why);
    }
}

/* Each switch of the table is its own byte, on by default unless it says otherwise. */
static void test_option_table(void **state) {
    const struct engine_option *t = bt_option_set.table;
    size_t count = bt_option_set.count;

    for (size_t n = 0; n < count; n++) {
        struct bt_options before = bt_defaults(), after = before;
        char text[64], why[256];

        snprintf(text, sizeof(text), t[n].max ? "%s=%u" : "no-%s", t[n].name, t[n].min);
        assert_int_equal(bt_options_parse(&after, text, why, sizeof(why)), 0);
        memset((char *)&before + t[n].off, 0, t[n].max ? sizeof(unsigned) : 1);
        memset((char *)&after + t[n].off, 0, t[n].max ? sizeof(unsigned) : 1);
        assert_memory_equal(&before, &after, sizeof(before));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elf_symbols),   cmocka_unit_test(test_elf_same_table),
        cmocka_unit_test(test_elf_truncated), cmocka_unit_test(test_elf_damaged),
        cmocka_unit_test(test_options),       cmocka_unit_test(test_option_table),
    };

    return cmocka_run_group_tests(tests, group_setup, NULL);
}
