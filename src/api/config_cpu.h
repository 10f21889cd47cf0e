/* PUT /cpu-config: a custom CPU template. */
#ifndef API_CONFIG_CPU_H
#define API_CONFIG_CPU_H

#include "base/types.h"

struct cJSON;

/* VALUE's fields have been checked; 0, or -EINVAL with one sentence in WHY. */
int config_cpu_check(const struct cJSON *value, char *why, size_t why_size);
/* The value of --cpu: the CPU NAME, or the default if it is NULL, changed as the template
 * VALUE, which may be NULL, says; the caller's to free(). NULL: out of memory. */
char *config_cpu_word(const char *name, const struct cJSON *value);

#endif
