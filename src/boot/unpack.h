/* What a Linux bzImage has packed: the formats that a kernel's build offers. */
#ifndef BOOT_UNPACK_H
#define BOOT_UNPACK_H

#include "base/types.h"

/*
 * Unpacks LEN bytes of gzip, xz, lzma, zstd or lz4 (as kernels use it: its legacy
 * format); what follows the stream is left alone. LIMIT: bytes that the result may have
 * at most. NULL if the format is another one (bzip2, lzo), the data is corrupt or too
 * large, or memory is short; else *SIZE bytes, to be freed by the caller.
 */
uint8_t *boot_unpack(const uint8_t *data, uint64_t len, uint64_t limit, uint64_t *size);

#endif
