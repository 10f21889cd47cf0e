/* decode_insn() with a memory of what it has decoded lately. */
#ifndef DECODE_MEMO_H
#define DECODE_MEMO_H

#include "decode/decode.h"

struct decode_memo;

/* NULL: no memory. M may be NULL for the second. */
struct decode_memo *decode_memo_new(void);
void decode_memo_free(struct decode_memo *m);
/* What decode_insn() gives. */
enum decode_result decode_memo_insn(struct decode_memo *m, enum cpu_mode mode,
                                    const uint8_t *bytes, size_t len, struct insn *i);

#endif
