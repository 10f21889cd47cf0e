/* What of a machine's description goes into its snapshots: what its devices are called
 * here, who of them is served and limited. Not where it boots from, nor metadata. */
#ifndef API_CONFIG_KEPT_H
#define API_CONFIG_KEPT_H

#include "api/config.h"

/* As JSON, the caller's to cJSON_free(); NULL: nothing has been said, or no memory. */
char *config_kept(const struct config *c);
/* The same, from a snapshot, which may be anybody's: 0, or -EINVAL with one sentence, and
 * nothing of it is there. */
int config_take_kept(struct config *c, const char *text, char *why, size_t why_size);
void config_forget_kept(struct config *c);

/* Interfaces of NETS, an array as `network_overrides`, have other TAP interfaces, and the
 * socket to the guest is where VSOCK, as `vsock_override`, says; either may be NULL. 0,
 * or -EINVAL with one sentence. */
int config_override(struct config *c, const struct cJSON *nets, const struct cJSON *vsock,
                    char *why, size_t why_size);

#endif
