/*
 * The host as the oracle of instructions that run natively, and the guest that is
 * compared with it: one page table in RAM, all of it mapped at its own address; random
 * states.
 */
#ifndef LIB_ORACLE_H
#define LIB_ORACLE_H

#include "base/os.h"
#include "decode/decode.h"
#include "lib/single.h"

#define RAM (8u << 20)
#define PT 0x4000u

/* --- the host as the oracle --- */

struct host_regs {
    uint64_t gpr[16];
    uint64_t rflags;
};

extern struct os_code host_code;
extern int host_trap; /* vector of the last host fault, or -1 */
extern uint64_t host_addr;
extern uint32_t host_components; /* of IMAGE below: XSAVE's mask */

/* Runs the LEN bytes from R and the XSAVE image, and stores both back: host_trap. */
int host_execute(struct host_regs *r, const uint8_t *bytes, unsigned len, void *image);

/* --- the guest --- */

/* In the setup of a group; in 64-bit mode at CPL 0. */
void oracle_start(void);
int oracle_teardown(void **state);
void oracle_set_pte(uint64_t at, uint64_t pte);
void oracle_set_mode(enum cpu_mode mode);

/* Random bytes, floats of moderate size, doubles, or few bits. */
void oracle_fill(uint8_t *p, unsigned len, unsigned pattern);
/* Registers and vector state of such a pattern, exceptions masked or not. */
void oracle_random_state(unsigned pattern, bool unmasked);
/* False when these bytes are nothing that runs natively here. */
bool oracle_bind(enum cpu_mode mode, const uint8_t *bytes, unsigned len, struct insn *i);

/* Fails the test, and says of which instruction WHAT is wrong. */
void oracle_expect(bool ok, const struct insn *i, const char *what);

#endif
