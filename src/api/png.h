/* A picture as a file: PNG, ISO/IEC 15948. */
#ifndef API_PNG_H
#define API_PNG_H

#include "base/types.h"

struct cJSON;

/* ANSWER is what a machine said to `picture`. A file of *LEN bytes, the caller's; NULL:
 * that is no picture, or memory is short. */
uint8_t *png_of_picture(const struct cJSON *answer, size_t *len);

#endif
