/* Keys by QEMU's names; see key_names.h. */
#include "ctl/key_names.h"

#include <stdlib.h>
#include <string.h>

#include "dev/pc/keyboard.h"

#define EXT KEYBOARD_EXTENDED

static const struct {
    const char *name;
    uint8_t code;
} keys[] = {
    {"esc", 0x01},
    {"minus", 0x0c},
    {"equal", 0x0d},
    {"backspace", 0x0e},
    {"tab", 0x0f},
    {"bracket_left", 0x1a},
    {"bracket_right", 0x1b},
    {"ret", 0x1c},
    {"ctrl", 0x1d},
    {"semicolon", 0x27},
    {"apostrophe", 0x28},
    {"grave_accent", 0x29},
    {"shift", 0x2a},
    {"backslash", 0x2b},
    {"comma", 0x33},
    {"dot", 0x34},
    {"slash", 0x35},
    {"shift_r", 0x36},
    {"asterisk", 0x37},
    {"kp_multiply", 0x37},
    {"alt", 0x38},
    {"spc", 0x39},
    {"caps_lock", 0x3a},
    {"num_lock", 0x45},
    {"scroll_lock", 0x46},
    {"kp_7", 0x47},
    {"kp_8", 0x48},
    {"kp_9", 0x49},
    {"kp_subtract", 0x4a},
    {"kp_4", 0x4b},
    {"kp_5", 0x4c},
    {"kp_6", 0x4d},
    {"kp_add", 0x4e},
    {"kp_1", 0x4f},
    {"kp_2", 0x50},
    {"kp_3", 0x51},
    {"kp_0", 0x52},
    {"kp_decimal", 0x53},
    {"less", 0x56},
    {"f11", 0x57},
    {"f12", 0x58},
    {"kp_enter", EXT | 0x1c},
    {"ctrl_r", EXT | 0x1d},
    {"kp_divide", EXT | 0x35},
    {"print", KEYBOARD_PRINT},
    {"sysrq", KEYBOARD_PRINT},
    {"alt_r", EXT | 0x38},
    {"pause", KEYBOARD_PAUSE},
    {"home", EXT | 0x47},
    {"up", EXT | 0x48},
    {"pgup", EXT | 0x49},
    {"left", EXT | 0x4b},
    {"right", EXT | 0x4d},
    {"end", EXT | 0x4f},
    {"down", EXT | 0x50},
    {"pgdn", EXT | 0x51},
    {"insert", EXT | 0x52},
    {"delete", EXT | 0x53},
    {"meta_l", EXT | 0x5b},
    {"meta_r", EXT | 0x5c},
    {"menu", EXT | 0x5d},
    {"compose", EXT | 0x5d},
};

/* Digits and letters, by the rows of the keyboard. */
static unsigned of_character(char c) {
    static const struct {
        const char *keys;
        uint8_t first;
    } rows[] = {{"1234567890", 0x02},
                {"qwertyuiop", 0x10},
                {"asdfghjkl", 0x1e},
                {"zxcvbnm", 0x2c}};

    for (size_t n = 0; n < ARRAY_SIZE(rows); n++) {
        const char *at = c ? strchr(rows[n].keys, c) : NULL;

        if (at)
            return rows[n].first + (unsigned)(at - rows[n].keys);
    }
    return 0;
}

/* "f1" to "f10"; a code in hexadecimal. */
static unsigned of_number(const char *name) {
    char *rest;
    unsigned long n;

    if (name[0] == 'f' && name[1] >= '1' && name[1] <= '9') {
        n = strtoul(name + 1, &rest, 10);
        return !*rest && n <= 10 ? 0x3a + (unsigned)n : 0;
    }
    if (strncmp(name, "0x", 2) != 0)
        return 0;
    n = strtoul(name + 2, &rest, 16);
    return name[2] && !*rest && n <= 0xff ? (unsigned)n : 0;
}

unsigned key_names_find(const char *name) {
    if (name[0] && !name[1])
        return of_character(name[0]);
    for (size_t n = 0; n < ARRAY_SIZE(keys); n++)
        if (!strcmp(name, keys[n].name))
            return keys[n].code;
    return of_number(name);
}
