/* Names and descriptions of the exit reasons, from cpu/exit.def. */
#include "cpu/exit.h"

static const struct {
    const char *name, *what;
} reasons[EXIT_COUNT] = {
#define EXIT(name, what) [EXIT_##name] = {#name, what},
#include "cpu/exit.def"
#undef EXIT
};

const char *exit_name(enum exit_reason reason) {
    return (unsigned)reason < EXIT_COUNT ? reasons[reason].name : "?";
}

const char *exit_what(enum exit_reason reason) {
    return (unsigned)reason < EXIT_COUNT ? reasons[reason].what : "unknown reason";
}
