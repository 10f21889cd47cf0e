#include "lib/scratch.h"

#include <stdio.h>
#include <unistd.h>

#include "lib/unit.h"

static char dirs[2][40] = {"/dev/shm/bivisor-test-XXXXXX", "/tmp/bivisor-test-XXXXXX"};
static const char *dir;

int scratch_enter(void **state) {
    dir = mkdtemp(dirs[0]) ? dirs[0] : mkdtemp(dirs[1]);
    return dir ? chdir(dir) : -1;
}

int scratch_leave(void **state) {
    char command[64];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

int scratch_clear(void **state) {
    return system("rm -rf ./*");
}

const char *scratch_path(void) {
    return dir;
}
