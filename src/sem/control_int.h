/* control.c to system.c's table. */
#ifndef SEM_CONTROL_INT_H
#define SEM_CONTROL_INT_H

#include "sem/sem_int.h"

insn_exec_fn sem_exec_mov_from_cr, sem_exec_mov_to_cr;
insn_exec_fn sem_exec_mov_from_dr, sem_exec_mov_to_dr;
insn_exec_fn sem_exec_lmsw, sem_exec_smsw, sem_exec_clts;
insn_exec_fn sem_exec_invlpg, sem_exec_invpcid;

#endif
