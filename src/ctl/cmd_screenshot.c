/* `bivisor screenshot`: asks a running machine at its control socket for the picture on
 * the guest's screen, and writes it as a PNG file (api/png.h). */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/png.h"
#include "base/log.h"
#include "ctl/ask.h"
#include "ctl/ctl.h"

static void print_help(void) {
    printf("usage: bivisor screenshot NAME FILE.png\n"
           "\n"
           "Writes what is on the screen of a guest to FILE.png. The machine is NAME, "
           "which its\n"
           "`bivisor run` has by --name, or --control PATH, the socket that it listens "
           "at.\n"
           "\n"
           "exit status: 0; 1 when the machine could not be asked, or the file could not "
           "be\nwritten; 2 bad usage\n");
}

static bool write_file(const char *path, const uint8_t *bytes, size_t len) {
    FILE *f = fopen(path, "we");
    bool good = f && fwrite(bytes, len, 1, f) == 1;

    if (f && fclose(f))
        good = false;
    if (!good)
        log_error("cannot write '%s': %s", path, strerror(errno));
    return good;
}

int ctl_cmd_screenshot(int argc, char **argv) {
    struct ask_machine m;
    cJSON *answer;
    uint8_t *file = NULL;
    size_t len;
    int words;
    bool good;

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        print_help();
        return CTL_OK;
    }
    words = ask_take_machine("screenshot", argc - 1, argv + 1, &m);
    if (words < 0)
        return CTL_USAGE;
    if (argc - 1 != words + 1) {
        log_error("screenshot wants a machine and FILE.png; `bivisor screenshot --help` "
                  "tells more");
        return CTL_USAGE;
    }
    answer = ask_once(&m, "{\"command\":\"picture\"}\n");
    if (answer && !(file = png_of_picture(answer, &len)))
        log_error("the machine's answer is no picture");
    good = file && write_file(argv[1 + words], file, len);
    cJSON_Delete(answer);
    free(file);
    return good ? CTL_OK : CTL_HOST_FAILURE;
}
