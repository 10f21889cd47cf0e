/*
 * `bivisor screenshot`: asks a running machine at its control socket for the picture on
 * the guest's screen, and writes it as a PNG file. ISO/IEC 15948, "Chunk layout".
 *
 * The machine's answer is checked before it is believed: a guest may have got at it.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/log.h"
#include "ctl/ask.h"
#include "ctl/ctl.h"
#include "dev/pc/vga.h"

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

/* --- the picture --- */

struct picture {
    unsigned width, height;
    uint8_t *data;
    size_t len;
};

static int digit(char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

/* False: it is no base64. */
static bool decode(const char *text, struct picture *p) {
    size_t len = strlen(text);
    uint32_t v = 0;

    p->data = malloc(len / 4 * 3 + 3);
    for (size_t n = 0; p->data && n < len; n++) {
        int d = digit(text[n]);

        if (d < 0)
            return text[n] == '=' && len - n <= 2 && len % 4 == 0;
        v = v << 6 | (uint32_t)d;
        if (n % 4)
            p->data[p->len++] = (uint8_t)(v >> (6 - n % 4 * 2) % 8);
    }
    return p->data && len % 4 == 0;
}

/* The data are the lines of a picture of that size. */
static bool is_whole(const struct picture *p) {
    size_t want = ((size_t)p->width * 3 + 1) * p->height;
    uLongf len = want;
    uint8_t *lines = malloc(want);
    bool good = lines && uncompress(lines, &len, p->data, p->len) == Z_OK && len == want;

    free(lines);
    return good;
}

static bool take_picture(const cJSON *answer, struct picture *p) {
    const cJSON *width = cJSON_GetObjectItem(answer, "width");
    const cJSON *height = cJSON_GetObjectItem(answer, "height");
    const cJSON *data = cJSON_GetObjectItem(answer, "data");

    if (cJSON_IsNumber(width) && cJSON_IsNumber(height) && cJSON_IsString(data) &&
        width->valuedouble >= 1 && width->valuedouble <= VGA_WIDTH &&
        height->valuedouble >= 1 && height->valuedouble <= VGA_HEIGHT) {
        p->width = (unsigned)width->valuedouble;
        p->height = (unsigned)height->valuedouble;
        if (decode(data->valuestring, p) && is_whole(p))
            return true;
    }
    log_error("the machine's answer is no picture");
    return false;
}

/* --- the file --- */

static void put32(uint8_t *at, uint32_t v) {
    for (unsigned n = 0; n < 4; n++)
        at[n] = (uint8_t)(v >> (24 - 8 * n));
}

static bool write_chunk(FILE *f, const char *type, const uint8_t *data, size_t len) {
    uLong crc = crc32(crc32(0, (const Bytef *)type, 4), data ? data : (const Bytef *)"",
                      (uInt)len);
    uint8_t word[4];

    put32(word, (uint32_t)len);
    if (fwrite(word, 4, 1, f) != 1 || fwrite(type, 4, 1, f) != 1)
        return false;
    if (len && fwrite(data, len, 1, f) != 1)
        return false;
    put32(word, (uint32_t)crc);
    return fwrite(word, 4, 1, f) == 1;
}

static bool write_png(const char *path, const struct picture *p) {
    static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    uint8_t header[13] = {[8] = 8 /* bits */, [9] = 2 /* red, green, blue */};
    FILE *f = fopen(path, "we");
    bool good = f;

    put32(header, p->width);
    put32(header + 4, p->height);
    good = good && fwrite(signature, sizeof(signature), 1, f) == 1 &&
           write_chunk(f, "IHDR", header, sizeof(header)) &&
           write_chunk(f, "IDAT", p->data, p->len) && write_chunk(f, "IEND", NULL, 0);
    if (f && fclose(f))
        good = false;
    if (!good)
        log_error("cannot write '%s': %s", path, strerror(errno));
    return good;
}

int ctl_cmd_screenshot(int argc, char **argv) {
    struct picture p = {0};
    struct ask_machine m;
    cJSON *answer;
    int words, fd;
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
    fd = ask_connect(&m, 0);
    answer = fd < 0 ? NULL : ask(fd, "{\"command\":\"picture\"}\n");
    if (fd >= 0)
        close(fd);
    good = answer && take_picture(answer, &p) && write_png(argv[1 + words], &p);
    cJSON_Delete(answer);
    free(p.data);
    return good ? CTL_OK : CTL_HOST_FAILURE;
}
