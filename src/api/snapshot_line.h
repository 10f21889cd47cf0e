/* What is asked of /snapshot/create, as a command of the control socket. */
#ifndef API_SNAPSHOT_LINE_H
#define API_SNAPSHOT_LINE_H

#include "base/types.h"

struct cJSON;

/* DIR is where snapshots are put, or NULL: not known here. The caller's to free; NULL
 * with one sentence in WHY. */
char *snapshot_line(const struct cJSON *body, const char *dir, char *why,
                    size_t why_size);

#endif
