/*
 * The reference interpreter: fetch, decode, execute through sem, retire.
 * Decoded instructions are kept in blocks, keyed by the RAM page they lie in; pages with
 * blocks carry MEM_TRACE_CODE.
 */
#ifndef INTERP_INTERP_H
#define INTERP_INTERP_H

#include "cpu/vcpu.h"

struct interp;

/* NULL when out of memory. V must outlive it. */
struct interp *interp_new(struct vcpu *v);
void interp_free(struct interp *ip);

/*
 * Runs until an exit of the second group (cpu/exit.def): KICK or STOP event -> EXIT_kick,
 * HLT with nothing deliverable -> EXIT_halt (v->halted set; call again once there is),
 * triple fault -> EXIT_shutdown. Vector state is parked on return.
 */
enum exit_reason interp_run(struct interp *ip);

/* Runs until COUNT instructions have been retired, or COUNT times none was (a fault, a
 * piece of a string operation), or until an exit: for tests and for the translator.
 * EXIT_kick when it was the count. */
enum exit_reason interp_step(struct interp *ip, uint64_t count);

/* As interp_step(), but a few instructions more if the last ones belong together, and
 * fewer if the CPU's mode (v->mode) has become another: for code of a mode that is not
 * translated. No look into code of the next mode leaves decoded blocks, and with them
 * traces, in its pages. */
enum exit_reason interp_in_mode(struct interp *ip, uint64_t count);

/* One instruction, or the delivery of its fault, for the translator: no event waits, and
 * nothing traps at every instruction. SEM_SHUTDOWN: triple fault; else what the next
 * instruction needs is in the vCPU. Vector state may be live on return. */
int interp_one(struct interp *ip);

/* Drops every decoded block; between instructions (a machine reset) also what the last
 * instruction has left for the next boundary. */
void interp_flush(struct interp *ip);

/* Drops every decoded block, between instructions, and gives their memory back. */
void interp_drop(struct interp *ip);

/* Are there blocks of the LEN bytes at HOST, which lie within a page of RAM? It may say
 * so of bytes next to theirs. */
bool interp_has_code(const struct interp *ip, const uint8_t *host, unsigned len);

/* Owner of MEM_TRACE_CODE; ARG is the struct interp. */
void interp_code_written(void *arg, struct gpa at, unsigned len);

#endif
