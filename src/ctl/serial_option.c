/* --serial; see serial_option.h. */
#include "ctl/serial_option.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "stream/stream.h"

bool serial_option_take(struct serial_options *o, const char *value) {
    if (o->count == MACHINE_SERIALS) {
        log_error("--serial is possible %u times at most", MACHINE_SERIALS);
        return false;
    }
    o->how[o->count++] = value;
    return true;
}

/* A port at standard input and output is the machine's console: it has no stream. */
static int open_port(struct machine_config *cfg, const char *how) {
    struct stream **s = &cfg->serials[cfg->serial_count].stream;
    char why[512];
    int rc = 0;

    *s = NULL;
    if (strcmp(how, "stdio") != 0)
        rc = stream_open(how, s, why, sizeof(why));
    if (rc) {
        log_error("--serial: %s", why);
        return rc;
    }
    cfg->serial_count++;
    if (*s && stream_terminal(*s))
        fprintf(stderr, "bivisor: serial port %u is at %s\n", cfg->serial_count - 1,
                stream_terminal(*s));
    return 0;
}

struct stream *serial_options_lent(const struct machine_config *cfg) {
    for (unsigned n = 0; n < cfg->console_count; n++)
        if (stream_is_lent(cfg->consoles[n].stream))
            return cfg->consoles[n].stream;
    return NULL;
}

static unsigned at_stdio(const struct machine_config *cfg) {
    unsigned count = !cfg->serial_count; /* without --serial there is COM1 */

    for (unsigned n = 0; n < cfg->serial_count; n++)
        count += !cfg->serials[n].stream;
    for (unsigned n = 0; n < cfg->console_count; n++)
        count += stream_is_lent(cfg->consoles[n].stream);
    return count;
}

int serial_options_open(const struct serial_options *o, enum console_monitor monitor,
                        bool screen, struct machine_config *cfg) {
    unsigned count;
    int rc = 0;

    for (unsigned n = 0; n < o->count && !rc; n++)
        rc = open_port(cfg, o->how[n]);
    if (!rc && !o->count && screen)
        rc = open_port(cfg, "null");
    if (rc)
        return rc;
    count = at_stdio(cfg) + (monitor == CONSOLE_ONLY_MONITOR) + screen;
    if (count < 2)
        return 0;
    log_error(
        "%u ports want standard input and output, which one can have; --serial null "
        "takes it from COM1, and --console help tells where else a port can be",
        count);
    return -EINVAL;
}

void serial_options_close(struct machine_config *cfg) {
    for (unsigned n = 0; n < cfg->serial_count; n++)
        stream_close(cfg->serials[n].stream);
    cfg->serial_count = 0;
}
