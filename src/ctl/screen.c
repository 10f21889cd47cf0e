/* Pictures; see screen.h. On the loop's thread; the guest goes on meanwhile. */
#include "ctl/screen.h"

#include <stdlib.h>
#include <zlib.h>

#include "base/log.h"
#include "dev/pc/vga.h"

/* What an answer has room for, in base64. */
#define PACKED_MAX (CONTROL_OUT_MAX / 4 * 3 - 4096)

/* PIXELS as scan lines, with a filter byte before each. */
static uint8_t *make_lines(const struct vga_picture *p, const uint32_t *pixels,
                           size_t *len) {
    size_t line = 1 + (size_t)p->width * 3;
    uint8_t *lines = malloc(line * p->height), *at = lines;

    *len = line * p->height;
    for (unsigned y = 0; lines && y < p->height; y++) {
        *at++ = 0;
        for (unsigned x = 0; x < p->width; x++) {
            uint32_t c = pixels[y * p->width + x];

            *at++ = (uint8_t)(c >> 16);
            *at++ = (uint8_t)(c >> 8);
            *at++ = (uint8_t)c;
        }
    }
    return lines;
}

static char *base64(const uint8_t *bytes, size_t len) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = malloc((len + 2) / 3 * 4 + 1), *at = text;

    for (size_t n = 0; text && n < len; n += 3) {
        uint32_t v = (uint32_t)bytes[n] << 16;

        v |= n + 1 < len ? (uint32_t)bytes[n + 1] << 8 : 0;
        v |= n + 2 < len ? bytes[n + 2] : 0;
        *at++ = digits[v >> 18];
        *at++ = digits[v >> 12 & 63];
        *at++ = n + 1 < len ? digits[v >> 6 & 63] : '=';
        *at++ = n + 2 < len ? digits[v & 63] : '=';
    }
    if (text)
        *at = 0;
    return text;
}

/* The lines, deflated and in base64; NULL after a refusal. */
static char *pack(const uint8_t *lines, size_t len, struct control_request *r) {
    uLongf size = compressBound(len);
    uint8_t *packed = malloc(size);
    char *text = NULL;
    bool fits = true;

    if (packed && compress2(packed, &size, lines, len, Z_BEST_SPEED) == Z_OK) {
        fits = size <= PACKED_MAX;
        text = fits ? base64(packed, size) : NULL;
    }
    if (!text)
        control_refuse(r, fits ? "out of memory"
                               : "the picture is too large and too colourful to be sent");
    free(packed);
    return text;
}

static void put_pixels(const struct vga_picture *p, const uint32_t *pixels,
                       struct control_request *r) {
    size_t len;
    uint8_t *lines = make_lines(p, pixels, &len);
    char *text = lines ? pack(lines, len, r) : NULL;

    if (!lines)
        control_refuse(r, "out of memory");
    if (text) {
        control_put_number(r, "width", p->width);
        control_put_number(r, "height", p->height);
        control_put_text(r, "data", text);
    }
    free(text);
    free(lines);
}

void screen_put_picture(struct machine *m, struct control_request *r) {
    struct vga_picture *p = calloc(1, sizeof(*p));
    uint32_t *pixels = NULL;

    if (p) {
        machine_look(m, p);
        pixels = calloc((size_t)p->width * p->height, sizeof(*pixels));
    }
    if (pixels) {
        machine_draw(m, p, pixels);
        put_pixels(p, pixels, r);
    } else {
        control_refuse(r, "out of memory");
    }
    free(pixels);
    free(p);
}
