/*
 * The end: nobody is there to return to. Who runs us in an emulator may want a status.
 */
#include <stdlib.h>

#include "bare/bare_int.h"

#define DEBUG_EXIT 0xf4

static bool tells;

void bare_end_tells(void) {
    tells = true;
}

_Noreturn void bare_end(int status) {
    if (tells)
        bare_out(DEBUG_EXIT, (uint8_t)status);
    for (;;)
        __asm__ volatile("cli; hlt");
}

_Noreturn void abort(void) {
    bare_end(255);
}

/* The decompressors' archives are compiled with stack protection. */
_Noreturn void __stack_chk_fail(void);
_Noreturn void __stack_chk_fail(void) {
    abort();
}
