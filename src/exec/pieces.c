/* Pieces for the agent; see pieces.h and exec/agent.h. */
#include "exec/pieces.h"

#include <stdio.h>
#include <string.h>

#include "exec/agent.h"

uint32_t pieces_get32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t v) {
    for (unsigned n = 0; n < 4; n++)
        p[n] = (uint8_t)(v >> 8 * n);
}

static void put_head(const struct pieces *p, char what, size_t len) {
    uint8_t head[PIECE_HEAD] = {(uint8_t)what};

    put32(head + 1, (uint32_t)len);
    p->put(p->arg, head, PIECE_HEAD);
}

void pieces_put(const struct pieces *p, char what, const void *bytes, size_t len) {
    put_head(p, what, len);
    if (len)
        p->put(p->arg, bytes, len);
}

void pieces_numbers(const struct pieces *p, char what, uint32_t a, uint32_t b,
                    size_t len) {
    uint8_t bytes[8];

    put32(bytes, a);
    put32(bytes + 4, b);
    pieces_put(p, what, bytes, len);
}

static void put_string(const struct pieces *p, const char *text, size_t len) {
    while (len) {
        size_t n = len < AGENT_PIECE ? len : AGENT_PIECE;

        pieces_put(p, 'k', text, n);
        text += n;
        len -= n;
    }
}

/* With the NUL of VALUE. */
void pieces_word(const struct pieces *p, const char *key, const char *value) {
    put_string(p, key, strlen(key));
    put_string(p, "=", 1);
    put_string(p, value, strlen(value) + 1);
}

void pieces_number(const struct pieces *p, const char *key, unsigned value) {
    char text[16];

    snprintf(text, sizeof(text), "%u", value);
    pieces_word(p, key, text);
}

void pieces_command(const struct pieces *p, const struct exec_command *c, unsigned uid,
                    unsigned gid) {
    pieces_word(p, "cwd", c->cwd);
    pieces_number(p, "uid", uid);
    pieces_number(p, "gid", gid);
    pieces_number(p, "tty", c->tty);
    pieces_number(p, "columns", c->columns);
    pieces_number(p, "rows", c->rows);
    for (char **e = c->envp; *e; e++)
        pieces_word(p, "env", *e);
    for (char **a = c->argv; *a; a++)
        pieces_word(p, "arg", *a);
    pieces_put(p, 'C', NULL, 0);
}
