/* Files that are read as wholes. */
#ifndef CTL_WHOLE_FILE_H
#define CTL_WHOLE_FILE_H

#include "base/types.h"

/* All of the file at PATH, in a buffer of the caller's (of one byte more; NULL after an
 * error), and its size. 0 or -errno: -EINVAL when it is no regular file (a FIFO is not
 * waited for), -EFBIG when it has more than MOST bytes, -EIO when it became shorter. */
int whole_file_read(const char *path, uint32_t most, uint8_t **bytes, uint32_t *size);

#endif
