/* --display: who looks at the guest's screen. */
#ifndef CTL_DISPLAY_OPTION_H
#define CTL_DISPLAY_OPTION_H

#include "base/jail.h"
#include "machine/machine.h"
#include "viewer/viewer.h"

struct display_option {
    enum display_kind { DISPLAY_NONE, DISPLAY_TEXT, DISPLAY_VNC } kind;
    char *text;                     /* the words below are of it */
    const char *address, *password; /* of vnc_config */
    bool tablet;                    /* the guest has one over virtio */
    struct vnc *vnc;
    struct terminal *terminal;
};

/* `--display help`: prints what there is to say, and returns true. */
bool display_option_help(const char *value);
/* Takes none, text or vnc=ADDR[,password=FILE][,tablet]. False after a message. */
bool display_option_take(struct display_option *o, const char *value);
void display_option_free(struct display_option *o);
/* The kernel's command line where nobody has said one. */
const char *display_option_append(const struct display_option *o);

/* Makes a process, and is therefore before there are threads. 0, or -errno after a
 * message. */
int display_option_open(struct display_option *o, enum jail_want jail,
                        struct machine_config *cfg);
/* M is seen from now on; QUIT(ARG): the user at the terminal wants the run to end. */
bool display_option_start(struct display_option *o, uint8_t escape, struct machine *m,
                          void (*quit)(void *arg), void *arg);
/* The terminal is as it was. */
void display_option_stop(struct display_option *o);
void display_option_close(struct display_option *o);

#endif
