/* The picture on the guest's screen, as the control socket's answer. */
#ifndef CTL_SCREEN_H
#define CTL_SCREEN_H

#include "control/control.h"
#include "machine/machine.h"

/* `width`, `height` and `data`: the scan lines of a PNG file with eight bits for each of
 * red, green and blue, each line with filter 0 before it, deflated (zlib), in base64. */
void screen_put_picture(struct machine *m, struct control_request *r);

#endif
