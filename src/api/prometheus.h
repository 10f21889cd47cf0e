/* Figures in Prometheus' text form ("Exposition formats", version 0.0.4). */
#ifndef API_PROMETHEUS_H
#define API_PROMETHEUS_H

#include "base/types.h"

struct cJSON;

/* STATS as --stats has them: numbers, and objects of numbers. Their names begin with
 * bivisor_. The text is the caller's; NULL: out of memory. */
char *prometheus_text(const struct cJSON *stats, size_t *len);

#endif
