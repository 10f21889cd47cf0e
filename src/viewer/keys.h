/*
 * Keys of the keyboard (dev/pc/keyboard.h) by what a viewer says was typed: X's names of
 * symbols, as the RFB protocol has them (RFC 6143, "KeyEvent"), and characters. The
 * keyboard is an American one, as a guest takes it to be that was told nothing.
 */
#ifndef VIEWER_KEYS_H
#define VIEWER_KEYS_H

#include "base/types.h"

#define KEYS_LEFT_SHIFT 0x2au
#define KEYS_RIGHT_SHIFT 0x36u
#define KEYS_LEFT_CONTROL 0x1du
#define KEYS_LEFT_ALT 0x38u
#define KEYS_CAPS_LOCK 0x3au
#define KEYS_ESCAPE 0x01u
#define KEYS_ENTER 0x1cu
#define KEYS_TAB 0x0fu
#define KEYS_BACKSPACE 0x0eu

/* Does a character need the shift key? */
enum keys_shift { KEYS_ANY, KEYS_PLAIN, KEYS_SHIFTED };

struct keys_key {
    uint8_t code; /* as keyboard_key() has them; 0: there is no such key */
    enum keys_shift shift;
    bool letter; /* caps lock changes what it is */
};

/* Of a character of ASCII. */
struct keys_key keys_of_char(uint8_t c);
/* Of a symbol. */
struct keys_key keys_of_symbol(uint32_t symbol);

#endif
