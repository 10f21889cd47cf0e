/* Bytes to struct insn. The only room that includes Zydis. */
#ifndef DECODE_DECODE_H
#define DECODE_DECODE_H

#include "decode/insn.h"

enum decode_result {
    DECODE_OK,        /* includes OP_invalid: bytes that raise #UD, with a length */
    DECODE_TRUNCATED, /* needs more bytes than given (and is not too long) */
    DECODE_TOO_LONG,  /* more than 15 bytes: #GP */
};

/*
 * Decodes one instruction of MODE from BYTES[0..LEN) (LEN 1..15 or more) into *I, whose
 * every field is set (exec and native to NULL). Never reads beyond LEN; any bytes are
 * allowed. Not for use while the guest's vector state is live (cpu/vec.h).
 */
enum decode_result decode_insn(enum cpu_mode mode, const uint8_t *bytes, size_t len,
                               struct insn *i);

/* I, decoded, for a CPU that does not have it: bytes that raise #UD. */
void decode_hide(struct insn *i);

/* I, a TZCNT or LZCNT, for a CPU that lacks these: the same bytes are BSF and BSR then.
 */
void decode_as_scan(struct insn *i);

/* "add", "native", ...; a static string. */
const char *decode_op_name(enum op op);

/* Intel-syntax text of the instruction at ADDR, for listings. Returns BUF. */
char *decode_format(const struct insn *i, uint64_t addr, char *buf, size_t size);

#endif
