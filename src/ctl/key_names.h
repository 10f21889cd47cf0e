/*
 * Keys of the keyboard by the names that QEMU's monitor and protocol have for them
 * (`sendkey`, "QKeyCode"): letters, digits, and words such as ctrl, ret, f1, kp_enter.
 */
#ifndef CTL_KEY_NAMES_H
#define CTL_KEY_NAMES_H

#include "base/types.h"

/* The key's code as keyboard_key() has it (dev/pc/keyboard.h), or 0: there is none. */
unsigned key_names_find(const char *name);

#endif
