/*
 * Tells what is in a PNG file of eight bits for each of red, green and blue, whose lines
 * have no filter: what `bivisor screenshot` writes.
 *
 *   png FILE              width, height, and how many pixels are not black
 *   png FILE COLOUR ROW   how many pixels above ROW are of COLOUR (rrggbb)
 *
 * Any fault of the file is an end with status 1.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static uint8_t file[8 << 20], lines[32 << 20];

static int die(const char *why) {
    fprintf(stderr, "png: %s\n", why);
    return 1;
}

static uint32_t word(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* The data of the chunk at *AT, of which there is but one of its type; NULL: a fault. */
static const uint8_t *chunk(size_t *at, size_t size, const char *type, uint32_t *len) {
    const uint8_t *c = file + *at;

    if (size - *at < 12)
        return NULL;
    *len = word(c);
    if (*len > size - *at - 12 || memcmp(c + 4, type, 4) != 0 ||
        crc32(0, c + 4, *len + 4) != word(c + 8 + *len))
        return NULL;
    *at += *len + 12;
    return c + 8;
}

static uint32_t count(unsigned width, unsigned rows, long colour) {
    uint32_t n = 0;

    for (unsigned y = 0; y < rows; y++)
        for (unsigned x = 0; x < width; x++) {
            const uint8_t *p = lines + y * (1 + width * 3ul) + 1 + x * 3ul;
            long c = (long)p[0] << 16 | p[1] << 8 | p[2];

            n += colour < 0 ? c != 0 : c == colour;
        }
    return n;
}

int main(int argc, char **argv) {
    static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    FILE *f = argc == 2 || argc == 4 ? fopen(argv[1], "rb") : NULL;
    size_t size = f ? fread(file, 1, sizeof(file), f) : 0, at = sizeof(signature);
    const uint8_t *header, *data;
    uLongf len = sizeof(lines);
    uint32_t width, height, n;

    if (size < at || memcmp(file, signature, at) != 0)
        return die("no such file, or no PNG");
    if (!(header = chunk(&at, size, "IHDR", &n)) || n != 13 || header[8] != 8 ||
        header[9] != 2)
        return die("another header");
    width = word(header);
    height = word(header + 4);
    if (!(data = chunk(&at, size, "IDAT", &n)) ||
        uncompress(lines, &len, data, n) != Z_OK || len != (1 + width * 3ul) * height)
        return die("bad data");
    if (!chunk(&at, size, "IEND", &n) || at != size)
        return die("another end");
    if (argc == 2)
        printf("%u %u %u\n", width, height, count(width, height, -1));
    else
        printf("%u\n", count(width, (unsigned)atoi(argv[3]), strtol(argv[2], NULL, 16)));
    return 0;
}
