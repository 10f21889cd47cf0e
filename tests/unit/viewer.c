/*
 * What viewers make of keys, and of the text screen: symbols and characters as keys, what
 * a terminal sends, and what it is sent.
 */
#include "lib/unit.h"

#include "dev/pc/keyboard.h"
#include "viewer/cells.h"
#include "viewer/keys.h"
#include "viewer/typed.h"

/* --- keys --- */

static void expect_key(struct keys_key key, unsigned code, enum keys_shift shift) {
    assert_int_equal(key.code, code);
    assert_int_equal(key.shift, shift);
}

static void test_keys(void **state) {
    expect_key(keys_of_char('a'), 0x1e, KEYS_PLAIN);
    expect_key(keys_of_char('A'), 0x1e, KEYS_SHIFTED);
    expect_key(keys_of_char('~'), 0x29, KEYS_SHIFTED);
    expect_key(keys_of_char('\\'), 0x2b, KEYS_PLAIN);
    expect_key(keys_of_char('?'), 0x35, KEYS_SHIFTED);
    expect_key(keys_of_char(' '), 0x39, KEYS_ANY);
    expect_key(keys_of_char('\n'), 0, KEYS_ANY);
    expect_key(keys_of_char(0x7f), 0, KEYS_ANY);
    expect_key(keys_of_symbol('z'), 0x2c, KEYS_PLAIN);
    expect_key(keys_of_symbol(0xff0d), KEYS_ENTER, KEYS_ANY);
    expect_key(keys_of_symbol(0xffbe), 0x3b, KEYS_ANY);
    expect_key(keys_of_symbol(0xffc9), 0x58, KEYS_ANY);
    expect_key(keys_of_symbol(0xff52), KEYBOARD_EXTENDED | 0x48, KEYS_ANY);
    expect_key(keys_of_symbol(0xe4), 0, KEYS_ANY);
    expect_key(keys_of_symbol(0x1000000), 0, KEYS_ANY);
    for (unsigned c = '!'; c < 0x7f; c++) /* every character has a key */
        assert_true(keys_of_char((uint8_t)c).code >= 2 &&
                    keys_of_char((uint8_t)c).code < 0x37);
}

/* --- what is typed --- */

static struct typed typed;

static void type(const char *text) {
    while (*text)
        typed_byte(&typed, (uint8_t)*text++);
}

/* Codes, those of keys that go up with 0x100, and a 0. */
static void expect_typed(const unsigned *codes) {
    for (; *codes; codes++) {
        assert_true(typed.count > 0);
        assert_int_equal(typed.keys[typed.first].code, *codes & 0xff);
        assert_int_equal(typed.keys[typed.first].down, !(*codes & 0x100));
        typed.first = (typed.first + 1) % TYPED_KEYS;
        typed.count--;
    }
    assert_int_equal(typed.count, 0);
}
#define EXPECT(...) expect_typed((const unsigned[]){__VA_ARGS__, 0})
#define TAP(code) code, 0x100 | (code)

static void test_typed(void **state) {
    type("a\r\t");
    EXPECT(TAP(0x1e), TAP(0x1c), TAP(0x0f));
    type("B\x7f");
    EXPECT(0x2a, TAP(0x30), 0x12a, TAP(0x0e));
    type("\x03"); /* control and c */
    EXPECT(0x1d, TAP(0x2e), 0x11d);
    typed_byte(&typed, 0);
    EXPECT(0x1d, TAP(0x39), 0x11d);
    type("\xc3\xa4"); /* not ASCII */
    assert_int_equal(typed.count, 0);
}

static void test_sequences(void **state) {
    const unsigned up = KEYBOARD_EXTENDED | 0x48;

    type("\033[A\033OA\033[1;5A");
    EXPECT(TAP(up), TAP(up), 0x1d, TAP(up), 0x11d);
    type("\033OP\033[[A\033[11~\033[24~\033[3~");
    EXPECT(TAP(0x3b), TAP(0x3b), TAP(0x3b), TAP(0x58), TAP(KEYBOARD_EXTENDED | 0x53));
    type("\033[Z\033x");
    EXPECT(0x2a, TAP(0x0f), 0x12a, 0x38, TAP(0x2d), 0x138);
    type("\033");
    assert_int_equal(typed.count, 0);
    typed_pause(&typed);
    EXPECT(TAP(0x01));
    type("\033\033");
    EXPECT(TAP(0x01));
    typed_pause(&typed);
    EXPECT(TAP(0x01));
    type("\033["); /* alt and [ */
    typed_pause(&typed);
    EXPECT(0x38, TAP(0x1a), 0x138);
    type("\033[99~\033[;;;m\033[1;2;3;4;5;6;7;8;9;10a"); /* none that is known */
    assert_int_equal(typed.count, 0);
}

/* Anything at all, and as long as there is room nothing is lost. */
static void test_typed_anything(void **state) {
    uint32_t seed = 1;

    for (unsigned n = 0; n < 200000; n++) {
        seed = seed * 1664525 + 1013904223;
        if (!typed_has_room(&typed))
            typed.count = 0;
        for (unsigned k = 0; k < TYPED_READ; k++) {
            unsigned before = typed.count;

            typed_byte(&typed, seed >> 24 & 3 ? (uint8_t)(seed >> 16) : 0x1b);
            assert_true(typed.count >= before && typed.count < TYPED_KEYS);
            seed = seed * 1664525 + 1013904223;
        }
        if (!(n % 7))
            typed_pause(&typed);
        assert_true(typed.held_len < sizeof(typed.held));
    }
}

/* --- the screen --- */

static struct vga_picture picture;
static struct cells cells;

static void put(unsigned row, unsigned column, const char *text, uint8_t attribute) {
    for (; *text; text++, column++) {
        picture.text.cell[row][column] = (uint8_t)*text;
        picture.text.attribute[row][column] = attribute;
    }
}

static int setup(void **state) {
    typed = (struct typed){0};
    picture = (struct vga_picture){.kind = VGA_TEXT, .text = {.columns = 8, .rows = 4}};
    cells = (struct cells){.utf8 = true};
    for (unsigned y = 0; y < 4; y++)
        put(y, 0, "        ", 0x07);
    cells_resize(&cells, 80, 25);
    return 0;
}

static void expect_drawn(const char *text) {
    char out[4096];
    bool whole;
    size_t len = cells_draw(&cells, &picture, out, sizeof(out), &whole);

    assert_true(whole);
    out[len] = 0;
    assert_string_equal(out, text);
}

static void test_cells(void **state) {
    put(1, 2, "ab", 0x07);
    expect_drawn(
        "\033[0m\033[2J\033[1;1H\033[0;37;40m        \033[2;1H  ab    \033[3;1H        "
        "\033[4;1H        ");
    expect_drawn("");
    put(2, 7, "\xdb", 0x4e); /* yellow on red */
    expect_drawn("\033[3;8H\033[0;93;41m\xe2\x96\x88");
    put(0, 0, "x", 0x81); /* blue on a bright black; or blinking */
    expect_drawn("\033[1;1H\033[0;34;100mx");
    picture.blinks = true;
    picture.text.rows = 1;
    picture.text.columns = 1;
    expect_drawn("\033[1;1H\033[0;5;34;40mx");
    picture.text.cursor = true;
    picture.text.column = 3;
    expect_drawn("\033[1;4H\033[?25h");
    expect_drawn("");
    picture.text.cursor = false;
    expect_drawn("\033[?25l");
}

/* Without UTF-8, and where the terminal is smaller: what is around the cursor. */
static void test_small_terminal(void **state) {
    put(0, 0, "\xc9\xcd\xb3\xe9", 0x07);
    put(3, 0, "last", 0x07);
    cells.utf8 = false;
    cells_resize(&cells, 4, 2);
    expect_drawn("\033[0m\033[2J\033[1;1H\033[0;37;40m+-|?\033[2;1H    ");
    picture.text.cursor = true;
    picture.text.row = 3;
    expect_drawn("\033[1;1H\033[0;37;40m    \033[2;1Hlast\033[2;1H\033[?25h");
}

/* What has no room is drawn the next time; and it comes to an end. */
static void test_small_buffer(void **state) {
    char out[100];
    bool whole = false;
    unsigned turns = 0;

    picture.text.columns = VGA_COLUMNS;
    picture.text.rows = VGA_ROWS;
    cells_resize(&cells, 1000, 1000);
    for (unsigned y = 0; y < VGA_ROWS; y++)
        for (unsigned x = 0; x < VGA_COLUMNS; x++) {
            picture.text.cell[y][x] = (uint8_t)(x * 7 + y);
            picture.text.attribute[y][x] = (uint8_t)(x * y);
        }
    while (!whole) {
        assert_in_range(cells_draw(&cells, &picture, out, sizeof(out), &whole), 0,
                        sizeof(out) - 1);
        assert_true(turns++ < VGA_ROWS * VGA_COLUMNS);
    }
    expect_drawn("");
    assert_int_equal(cells_draw(&cells, &picture, out, 0, &whole), 0);
    assert_false(whole);
}

int main(void) {
#define T(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        T(test_keys),           T(test_typed), T(test_sequences),
        T(test_typed_anything), T(test_cells), T(test_small_terminal),
        T(test_small_buffer),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
