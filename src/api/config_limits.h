/* Rate limiters in what a machine is made of: members of drives, interfaces and others.
 */
#ifndef API_CONFIG_LIMITS_H
#define API_CONFIG_LIMITS_H

#include "api/config.h"

/* Those of VALUE, a part. 0, or -EINVAL with one sentence in WHY. */
int config_limits_check(enum config_part part, const struct cJSON *value, char *why,
                        size_t why_size);
/* Buckets of VALUE's limiters in the place of TO's; VALUE has been checked. 0 or -ENOMEM.
 */
int config_limits_patch(enum config_part part, struct cJSON *to,
                        const struct cJSON *value);
/* Of a device, whose number is the machine's: lines of the control socket. */
void config_limits_tell(enum config_part part, unsigned number, const struct cJSON *value,
                        const struct config_teller *t);

#endif
