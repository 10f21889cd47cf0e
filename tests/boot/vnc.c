/*
 * A VNC client that does what it is told, by libvncclient.
 *
 *   vnc HOST PORT [password WORD] ACTION...
 *   vnc PATH 0 ...            a unix socket
 *
 *   type TEXT       each character as a key of its name; \n is Enter. No shift is sent
 *   key SYMBOL      a key goes down and up (0x...)
 *   down SYMBOL     it goes down; up SYMBOL
 *   point X Y MASK  the pointer is there, with these buttons
 *   save FILE       the picture, after a while, as a PNG of lines without filters
 *
 * Ends with 1 when the server is not there or says no, 2 when it has gone.
 */
#include <rfb/rfbclient.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#define LOOKS 10

static const char *password = "";
static unsigned updates;

static char *get_password(rfbClient *c) {
    return strdup(password);
}

static void on_update(rfbClient *c, int x, int y, int w, int h) {
    updates++;
}

/* What comes within MS. */
static void listen_for(rfbClient *c, unsigned ms) {
    int n = WaitForMessage(c, ms * 1000);

    if (n < 0 || (n > 0 && !HandleRFBServerMessage(c)))
        exit(2);
}

static void pause_ms(long ms) {
    const struct timespec t = {.tv_nsec = ms * 1000000};

    nanosleep(&t, NULL);
}

static void type(rfbClient *c, const char *text) {
    for (; *text; text++) {
        uint32_t symbol = (uint8_t)*text;

        if (text[0] == '\\' && text[1] == 'n') {
            symbol = 0xff0d;
            text++;
        }
        SendKeyEvent(c, symbol, TRUE);
        SendKeyEvent(c, symbol, FALSE);
        pause_ms(20);
        listen_for(c, 1);
    }
}

/* --- a picture --- */

static void put32(uint8_t *at, uint32_t v) {
    for (unsigned n = 0; n < 4; n++)
        at[n] = (uint8_t)(v >> (24 - 8 * n));
}

static void chunk(FILE *f, const char *name, const uint8_t *data, uint32_t len) {
    uint8_t word[4];

    put32(word, len);
    fwrite(word, 4, 1, f);
    fwrite(name, 4, 1, f);
    fwrite(data, len, 1, f);
    put32(word, (uint32_t)crc32(crc32(0, (const uint8_t *)name, 4), data, len));
    fwrite(word, 4, 1, f);
}

static void write_png(const rfbClient *c, const char *path) {
    static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    size_t line = 1 + (size_t)c->width * 3, len = line * (size_t)c->height;
    uint8_t *lines = calloc(1, len), header[13] = {[8] = 8, [9] = 2};
    uLongf packed_len = compressBound(len);
    uint8_t *packed = malloc(packed_len);
    FILE *f = fopen(path, "wb");

    if (!lines || !packed || !f)
        exit(1);
    for (int y = 0; y < c->height; y++)
        for (int x = 0; x < c->width; x++)
            memcpy(lines + (size_t)y * line + 1 + x * 3,
                   c->frameBuffer + ((size_t)y * (size_t)c->width + (size_t)x) * 4, 3);
    compress(packed, &packed_len, lines, len);
    put32(header, (uint32_t)c->width);
    put32(header + 4, (uint32_t)c->height);
    fwrite(signature, sizeof(signature), 1, f);
    chunk(f, "IHDR", header, sizeof(header));
    chunk(f, "IDAT", packed, (uint32_t)packed_len);
    chunk(f, "IEND", header, 0);
    if (fclose(f))
        exit(1);
    free(lines);
    free(packed);
}

static void save(rfbClient *c, const char *path) {
    SendFramebufferUpdateRequest(c, 0, 0, c->width, c->height, FALSE);
    for (unsigned looks = 0; looks < LOOKS; looks++)
        listen_for(c, 100);
    write_png(c, path);
}

/* --- actions --- */

static uint32_t number(const char *text) {
    return (uint32_t)strtoul(text, NULL, 0);
}

/* How many words it took; 0: it is none. */
static int act(rfbClient *c, char **argv, int left) {
    if (left >= 2 && !strcmp(argv[0], "type")) {
        type(c, argv[1]);
    } else if (left >= 2 && !strcmp(argv[0], "save")) {
        save(c, argv[1]);
    } else if (left >= 2 && !strcmp(argv[0], "key")) {
        SendKeyEvent(c, number(argv[1]), TRUE);
        SendKeyEvent(c, number(argv[1]), FALSE);
    } else if (left >= 2 && (!strcmp(argv[0], "down") || !strcmp(argv[0], "up"))) {
        SendKeyEvent(c, number(argv[1]), argv[0][0] == 'd');
    } else if (left >= 4 && !strcmp(argv[0], "point")) {
        SendPointerEvent(c, (int)number(argv[1]), (int)number(argv[2]),
                         (int)number(argv[3]));
        pause_ms(50);
        return 4;
    } else {
        return 0;
    }
    return 2;
}

int main(int argc, char **argv) {
    rfbClient *c = rfbGetClient(8, 3, 4);
    int at = 3, none = 1;

    rfbEnableClientLogging = FALSE;
    if (!c || argc < 3)
        return 1;
    if (argc >= 5 && !strcmp(argv[3], "password")) {
        password = argv[4];
        at = 5;
    }
    c->serverHost = strdup(argv[1]);
    c->serverPort = (int)number(argv[2]);
    c->GetPassword = get_password;
    c->GotFrameBufferUpdate = on_update;
    c->canHandleNewFBSize = TRUE;
    if (!rfbInitClient(c, &none, argv)) /* which has freed it */
        return 1;
    while (at < argc) {
        int n = act(c, argv + at, argc - at);

        if (!n) {
            fprintf(stderr, "vnc: '%s' is no action\n", argv[at]);
            return 1;
        }
        at += n;
    }
    /* What was sent has been taken when an answer comes. */
    SendFramebufferUpdateRequest(c, 0, 0, 1, 1, FALSE);
    for (unsigned before = updates, n = 0; updates == before && n < 100; n++)
        listen_for(c, 100);
    rfbClientCleanup(c);
    return 0;
}
