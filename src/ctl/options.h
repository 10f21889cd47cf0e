/* Parsing of option values; each prints one clear sentence when the value is bad. */
#ifndef CTL_OPTIONS_H
#define CTL_OPTIONS_H

#include "base/types.h"

/* "512M", "1G", "65536K", plain bytes. False (and a message) when it is not a size. */
bool options_size(const char *option, const char *text, uint64_t *out);

struct rate_limit;

/* AMOUNT[:BURST] a second, sizes if BYTES, else numbers; without BURST it is a tenth of a
 * second's worth. False (and a message) when it is none. */
bool options_rate(const char *option, const char *text, bool bytes,
                  struct rate_limit *out);

/* A number from LEAST to MOST. False (and a message) when it is none. */
bool options_number(const char *option, const char *text, unsigned least, unsigned most,
                    unsigned *out);

/* One of NAMES[0..COUNT): its index. False (and a message that lists them) otherwise. */
bool options_choice(const char *option, const char *text, const char *const *names,
                    size_t count, size_t *out);

/* The end of the first part of TEXT, up to a comma: cuts it there, takes the second comma
 * out of each ",,", and returns the rest; NULL: there is none. */
char *options_cut(char *text);

/* A number from 1 to MOST, and a % behind it that may be missing. False after a message.
 */
bool options_percent(const char *option, const char *text, unsigned most, unsigned *out);

/* A level of the log's (base/log.h), which is set. False after a message. */
bool options_log_level(const char *text);

#endif
