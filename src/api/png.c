/*
 * The picture on a guest's screen, as the machine tells it (deflated lines in base64), as
 * a file. ISO/IEC 15948, "Chunk layout". The machine's answer is checked before it is
 * believed: a guest may have got at it.
 */
#include "api/png.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define SIDE_MAX 4096 /* of what any display shows */

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

static bool take(const cJSON *answer, struct picture *p) {
    const cJSON *width = cJSON_GetObjectItem(answer, "width");
    const cJSON *height = cJSON_GetObjectItem(answer, "height");
    const cJSON *data = cJSON_GetObjectItem(answer, "data");

    if (!cJSON_IsNumber(width) || !cJSON_IsNumber(height) || !cJSON_IsString(data) ||
        !(width->valuedouble >= 1 && width->valuedouble <= SIDE_MAX) ||
        !(height->valuedouble >= 1 && height->valuedouble <= SIDE_MAX))
        return false;
    p->width = (unsigned)width->valuedouble;
    p->height = (unsigned)height->valuedouble;
    return decode(data->valuestring, p) && is_whole(p);
}

static uint8_t *put32(uint8_t *at, uint32_t v) {
    for (unsigned n = 0; n < 4; n++)
        *at++ = (uint8_t)(v >> (24 - 8 * n));
    return at;
}

static uint8_t *put_chunk(uint8_t *at, const char *type, const uint8_t *data,
                          size_t len) {
    uint8_t *from = put32(at, (uint32_t)len);

    memcpy(from, type, 4);
    if (len)
        memcpy(from + 4, data, len);
    return put32(from + 4 + len, (uint32_t)crc32(0, from, (uInt)(len + 4)));
}

uint8_t *png_of_picture(const cJSON *answer, size_t *len) {
    static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    uint8_t header[13] = {[8] = 8 /* bits */, [9] = 2 /* red, green, blue */};
    struct picture p = {0};
    uint8_t *file = NULL, *at;

    if (take(answer, &p))
        file = malloc(sizeof(signature) + 3 * 12 + sizeof(header) + p.len);
    if (file) {
        put32(put32(header, p.width), p.height);
        memcpy(file, signature, sizeof(signature));
        at = put_chunk(file + sizeof(signature), "IHDR", header, sizeof(header));
        at = put_chunk(at, "IDAT", p.data, p.len);
        at = put_chunk(at, "IEND", NULL, 0);
        *len = (size_t)(at - file);
    }
    free(p.data);
    return file;
}
