/* Keys of what is typed at a terminal; see typed.h. */
#include "viewer/typed.h"

#include <string.h>

#include "dev/pc/keyboard.h"
#include "viewer/keys.h"

#define ESC 0x1b
#define EXT KEYBOARD_EXTENDED
#define SHIFT 1u /* as xterm counts modifiers */
#define ALT 2u
#define CONTROL 4u

/* What is held makes several keys when it turns out to be no sequence. */
#define ROOM (TYPED_BYTE_KEYS * (sizeof(((struct typed *)0)->held) + TYPED_READ))

bool typed_has_room(const struct typed *t) {
    return TYPED_KEYS - t->count >= ROOM;
}

/* --- keys --- */

static void put(struct typed *t, unsigned code, bool down) {
    if (t->count == TYPED_KEYS)
        return;
    t->keys[(t->first + t->count++) % TYPED_KEYS] =
        (struct typed_key){(uint8_t)code, down};
}

static void press(struct typed *t, unsigned code, unsigned with) {
    static const struct {
        unsigned bit, code;
    } all[] = {
        {SHIFT, KEYS_LEFT_SHIFT}, {ALT, KEYS_LEFT_ALT}, {CONTROL, KEYS_LEFT_CONTROL}};

    for (unsigned n = 0; n < 3; n++)
        if (with & all[n].bit)
            put(t, all[n].code, true);
    put(t, code, true);
    put(t, code, false);
    for (unsigned n = 0; n < 3; n++)
        if (with & all[n].bit)
            put(t, all[n].code, false);
}

static void press_char(struct typed *t, uint8_t c, unsigned with) {
    struct keys_key key;

    switch (c) {
    case 0x7f:
    case '\b':
        press(t, KEYS_BACKSPACE, with);
        return;
    case '\t':
        press(t, KEYS_TAB, with);
        return;
    case '\r':
    case '\n':
        press(t, KEYS_ENTER, with);
        return;
    case ESC:
        press(t, KEYS_ESCAPE, with);
        return;
    default:
        break;
    }
    if (c < ' ') { /* control, and the character 64 above; the letters' small ones */
        with |= CONTROL;
        c = c ? c | 0x40 : ' ';
        c = c > '@' && c <= 'Z' ? c | 0x20 : c;
    }
    key = keys_of_char(c);
    if (key.code)
        press(t, key.code, with | (key.shift == KEYS_SHIFTED ? SHIFT : 0));
}

/* --- sequences --- */

/* By the last byte of a sequence. */
static unsigned key_of_final(char c) {
    static const struct {
        char c;
        uint8_t code;
    } keys[] = {{'A', EXT | 0x48}, {'B', EXT | 0x50}, {'C', EXT | 0x4d},
                {'D', EXT | 0x4b}, {'E', 0x4c},       {'F', EXT | 0x4f},
                {'H', EXT | 0x47}, {'P', 0x3b},       {'Q', 0x3c},
                {'R', 0x3d},       {'S', 0x3e},       {'M', EXT | 0x1c}};

    for (unsigned n = 0; n < ARRAY_SIZE(keys); n++)
        if (keys[n].c == c)
            return keys[n].code;
    return 0;
}

/* By the number in one that ends with a ~. */
static unsigned key_of_number(unsigned n) {
    static const uint8_t keys[] = {
        [1] = EXT | 0x47, [2] = EXT | 0x52, [3] = EXT | 0x53, [4] = EXT | 0x4f,
        [5] = EXT | 0x49, [6] = EXT | 0x51, [7] = EXT | 0x47, [8] = EXT | 0x4f,
        [11] = 0x3b,      [12] = 0x3c,      [13] = 0x3d,      [14] = 0x3e,
        [15] = 0x3f,      [17] = 0x40,      [18] = 0x41,      [19] = 0x42,
        [20] = 0x43,      [21] = 0x44,      [23] = 0x57,      [24] = 0x58,
    };

    return n < ARRAY_SIZE(keys) ? keys[n] : 0;
}

/* ESC [ NUMBER ; 1 + MODIFIERS FINAL: xterm's. */
static void take_control(struct typed *t, const char *text, unsigned len) {
    unsigned number[2] = {0, 1}, at = 0, code, with;
    char final = text[len - 1];

    number[0] = 0;
    for (unsigned n = 0; n + 1 < len; n++) {
        if (text[n] == ';')
            number[++at > 1 ? 1 : at] = 0;
        else if (text[n] >= '0' && text[n] <= '9' && at < 2)
            number[at] = (number[at] * 10 + (unsigned)(text[n] - '0')) % 1000;
    }
    with = number[1] ? (number[1] - 1) & (SHIFT | ALT | CONTROL) : 0;
    if (final == 'Z') {
        press(t, KEYS_TAB, SHIFT);
        return;
    }
    code = final == '~' ? key_of_number(number[0]) : key_of_final(final);
    if (code)
        press(t, code, with);
}

/* What is held is no sequence: keys, with alt where an ESC was before. */
static void give_up(struct typed *t) {
    unsigned len = t->held_len;

    t->held_len = 0;
    if (len == 1) {
        press(t, KEYS_ESCAPE, 0);
        return;
    }
    press_char(t, (uint8_t)t->held[1], ALT);
    for (unsigned n = 2; n < len; n++)
        press_char(t, (uint8_t)t->held[n], 0);
}

/* The sequence is whole, or not: false. */
static bool take_sequence(struct typed *t) {
    const char *s = t->held;
    unsigned len = t->held_len, code;
    char last = s[len - 1];

    if (len < 3)
        return false;
    if (s[1] == 'O') {
        code = key_of_final(last);
        if (code)
            press(t, code, 0);
        return true;
    }
    if (s[2] == '[') { /* the Linux console's F1 to F5: ESC [ [ A */
        if (len == 4 && last >= 'A' && last <= 'E')
            press(t, 0x3bu + (unsigned)(last - 'A'), 0);
        return len == 4;
    }
    if (last < 0x40 || last > 0x7e)
        return false;
    take_control(t, s + 2, len - 2);
    return true;
}

static void hold(struct typed *t, uint8_t byte) {
    t->held[t->held_len++] = (char)byte;
    if (t->held_len == 1)
        return;
    if (t->held_len == 2 && byte == ESC) { /* of two the first was a key */
        press(t, KEYS_ESCAPE, 0);
        t->held_len = 1;
    } else if (t->held[1] != '[' && t->held[1] != 'O') {
        give_up(t);
    } else if (take_sequence(t)) {
        t->held_len = 0;
    } else if (t->held_len == sizeof(t->held)) {
        t->held_len--; /* too long for any key: its end is waited for */
    }
}

void typed_byte(struct typed *t, uint8_t byte) {
    if (byte >= 0x80)
        return;
    if (t->held_len || byte == ESC)
        hold(t, byte);
    else
        press_char(t, byte, 0);
}

void typed_pause(struct typed *t) {
    if (t->held_len)
        give_up(t);
}
