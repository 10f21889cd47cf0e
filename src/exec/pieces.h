/* What is said to the agent in a guest (exec/agent.h), as bytes for whoever sends them.
 */
#ifndef EXEC_PIECES_H
#define EXEC_PIECES_H

#include "exec/exec.h"

#define PIECE_HEAD 5u /* what it is, and its length */

struct pieces {
    void (*put)(void *arg, const void *bytes, size_t len);
    void *arg;
};

/* LEN is at most AGENT_PIECE. */
void pieces_put(const struct pieces *p, char what, const void *bytes, size_t len);
/* Two numbers, of which LEN bytes count: 4 or 8. */
void pieces_numbers(const struct pieces *p, char what, uint32_t a, uint32_t b,
                    size_t len);
/* KEY=VALUE, whose parts are as long as they like. */
void pieces_word(const struct pieces *p, const char *key, const char *value);
void pieces_number(const struct pieces *p, const char *key, unsigned value);
/* All of C that counts, and that it begins. */
void pieces_command(const struct pieces *p, const struct exec_command *c, unsigned uid,
                    unsigned gid);

/* Four bytes, low ones first. */
uint32_t pieces_get32(const uint8_t *p);

#endif
