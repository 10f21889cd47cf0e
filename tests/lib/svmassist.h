/*
 * What a CPU with SVM may do besides (svmcpu.h), by its features: NRIP save, decode
 * assists and the PAUSE filter. What a CPU without them leaves in the control block is
 * not what was there: a VMM that reads it unasked is found. AMD64 APM volume 2,
 * "Decode Assists", "State Saved on Exit" and "Pause Intercept Filtering".
 */
#ifndef LIB_SVMASSIST_H
#define LIB_SVMASSIST_H

#include "decode/insn.h"
#include "lib/svmcpu.h"

/* Behind an exit that I has caused, or that came amid it. */
void svmassist_tell(struct svmcpu *c, const struct insn *i);

/* Does this PAUSE leave? */
bool svmassist_pause(struct svmcpu *c);

/* What the block asks for that nobody here has: NULL, or what it is. */
const char *svmassist_unknown(const struct x86_vmcb *b);

#endif
