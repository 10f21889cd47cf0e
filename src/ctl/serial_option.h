/* --serial, where the serial ports lead to, and who has standard input and output. */
#ifndef CTL_SERIAL_OPTION_H
#define CTL_SERIAL_OPTION_H

#include "machine/machine.h"

/* --monitor */
enum console_monitor {
    CONSOLE_NO_MONITOR,
    CONSOLE_MUX_MONITOR,  /* Ctrl-A c */
    CONSOLE_ONLY_MONITOR, /* nobody else is there */
};

struct serial_options {
    const char *how[MACHINE_SERIALS];
    unsigned count;
};

/* Takes the value of --serial. False after a message. */
bool serial_option_take(struct serial_options *o, const char *value);
/* Opens their streams, into the configuration. 0, or -errno after a message; also when
 * more than one port, those of the virtio console among them, wants standard input, or
 * one does although somebody else, the monitor or the SCREEN, has it. COM1 that nobody
 * named leaves it to the screen. Before there are threads, and after
 * console_options_open(). */
int serial_options_open(const struct serial_options *o, enum console_monitor monitor,
                        bool screen, struct machine_config *cfg);
void serial_options_close(struct machine_config *cfg);
/* The stream that standard input and output are lent to; NULL: none. */
struct stream *serial_options_lent(const struct machine_config *cfg);

#endif
