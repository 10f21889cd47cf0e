/* Code that is written down as hexadecimal digits. */
#ifndef LIB_HEX_H
#define LIB_HEX_H

#include <stddef.h>
#include <stdint.h>

#include "decode/insn.h"

/* The bytes of TEXT, in which there may be white space and comments from # to the end of
 * a line: how many. Anything else ends the program. */
size_t hex_bytes(const char *text, uint8_t *out);
/* The instruction that they begin with in MODE; what does not decode ends the program. */
struct insn hex_decode(enum cpu_mode mode, const char *text);

#endif
