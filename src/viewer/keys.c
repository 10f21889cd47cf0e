/* Keys by symbols and characters; see keys.h. */
#include "viewer/keys.h"

#include "dev/pc/keyboard.h"

#define EXT KEYBOARD_EXTENDED

/* The codes of set 1 of what is on the keys, from 0x02 on; a space: no character. */
static const char plain[] = "1234567890-=  qwertyuiop[]  asdfghjkl;'` \\zxcvbnm,./";
static const char shifted[] = "!@#$%^&*()_+  QWERTYUIOP{}  ASDFGHJKL:\"~ |ZXCVBNM<>?";
#define FIRST 0x02u

static bool is_letter(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

struct keys_key keys_of_char(uint8_t c) {
    struct keys_key key = {.letter = is_letter(c)};

    if (c == ' ')
        return (struct keys_key){.code = 0x39};
    for (unsigned n = 0; n + 1 < sizeof(plain) && c > ' '; n++) {
        if ((uint8_t)plain[n] != c && (uint8_t)shifted[n] != c)
            continue;
        key.code = (uint8_t)(FIRST + n);
        key.shift = (uint8_t)plain[n] == c ? KEYS_PLAIN : KEYS_SHIFTED;
        return key;
    }
    return (struct keys_key){0};
}

static const struct {
    uint16_t symbol; /* X11's keysymdef.h */
    uint8_t code;
} symbols[] = {
    {0xff08, KEYS_BACKSPACE},
    {0xff09, KEYS_TAB},
    {0xfe20, KEYS_TAB}, /* with shift */
    {0xff0d, KEYS_ENTER},
    {0xff1b, KEYS_ESCAPE},
    {0xff13, KEYBOARD_PAUSE},
    {0xff14, 0x46}, /* scroll lock */
    {0xff15, KEYBOARD_PRINT},
    {0xff61, KEYBOARD_PRINT},
    {0xff6b, KEYBOARD_PAUSE},
    {0xff50, EXT | 0x47}, /* home, arrows, page up and down, end, insert, delete */
    {0xff51, EXT | 0x4b},
    {0xff52, EXT | 0x48},
    {0xff53, EXT | 0x4d},
    {0xff54, EXT | 0x50},
    {0xff55, EXT | 0x49},
    {0xff56, EXT | 0x51},
    {0xff57, EXT | 0x4f},
    {0xff63, EXT | 0x52},
    {0xffff, EXT | 0x53},
    {0xff67, EXT | 0x5d}, /* menu */
    {0xff7f, 0x45},       /* num lock */
    {0xff8d, EXT | KEYS_ENTER},
    {0xff95, 0x47}, /* the keypad without num lock */
    {0xff96, 0x4b},
    {0xff97, 0x48},
    {0xff98, 0x4d},
    {0xff99, 0x50},
    {0xff9a, 0x49},
    {0xff9b, 0x51},
    {0xff9c, 0x4f},
    {0xff9d, 0x4c},
    {0xff9e, 0x52},
    {0xff9f, 0x53},
    {0xffaa, 0x37}, /* and with it: * + , - . / 0 to 9 */
    {0xffab, 0x4e},
    {0xffac, 0x53},
    {0xffad, 0x4a},
    {0xffae, 0x53},
    {0xffaf, EXT | 0x35},
    {0xffb0, 0x52},
    {0xffb1, 0x4f},
    {0xffb2, 0x50},
    {0xffb3, 0x51},
    {0xffb4, 0x4b},
    {0xffb5, 0x4c},
    {0xffb6, 0x4d},
    {0xffb7, 0x47},
    {0xffb8, 0x48},
    {0xffb9, 0x49},
    {0xffc8, 0x57}, /* F11, F12; the others are below */
    {0xffc9, 0x58},
    {0xffe1, KEYS_LEFT_SHIFT},
    {0xffe2, KEYS_RIGHT_SHIFT},
    {0xffe3, KEYS_LEFT_CONTROL},
    {0xffe4, EXT | 0x1d},
    {0xffe5, KEYS_CAPS_LOCK},
    {0xffe7, EXT | 0x5b}, /* meta is the logo's key, as super is */
    {0xffe8, EXT | 0x5c},
    {0xffe9, KEYS_LEFT_ALT},
    {0xffea, EXT | 0x38},
    {0xffeb, EXT | 0x5b},
    {0xffec, EXT | 0x5c},
    {0xfe03, EXT | 0x38}, /* AltGr */
};

struct keys_key keys_of_symbol(uint32_t symbol) {
    if (symbol < 0x80)
        return keys_of_char((uint8_t)symbol);
    if (symbol >= 0xffbe && symbol <= 0xffc7) /* F1 to F10 */
        return (struct keys_key){.code = (uint8_t)(0x3b + symbol - 0xffbe)};
    for (unsigned n = 0; n < sizeof(symbols) / sizeof(symbols[0]); n++)
        if (symbols[n].symbol == symbol)
            return (struct keys_key){.code = symbols[n].code};
    return (struct keys_key){0};
}
