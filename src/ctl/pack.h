/* Files of memory that are packed: one frame of zstd's (RFC 8878, "Zstandard Frames"),
 * with its length and a checksum, so that zstd(1) unpacks them as well. */
#ifndef CTL_PACK_H
#define CTL_PACK_H

#include "base/types.h"

/* All of the file FROM becomes all of TO, which is empty. 0 or -errno. */
int pack_file(int from, int to);
/* What is packed in FROM, at most MOST bytes of it, becomes all of TO, which is empty;
 * pages of zeros are holes. TOLD (or NULL) is called now and then: so many bytes of FROM
 * have been read. 0, or -errno: -EINVAL if FROM is no such file, or a damaged
 * one, or has more in it. */
int unpack_file(int from, int to, uint64_t most,
                void (*told)(uint64_t done, uint64_t total));

#endif
