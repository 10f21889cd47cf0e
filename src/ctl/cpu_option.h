/* --cpu: which CPU the guest sees. */
#ifndef CTL_CPU_OPTION_H
#define CTL_CPU_OPTION_H

/* -1 to go on with the model NAME, or the exit status after a list ("help") or a
 * message. */
int cpu_option_check(const char *name);

#endif
