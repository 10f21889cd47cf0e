/* --direct; see direct_option.h. */
#include "ctl/direct_option.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "ctl/options.h"

static const char *const modes[] = {"off", "auto", "on"}; /* enum direct_mode */

bool direct_option_help(const char *value) {
    const struct engine_options *set = &direct_option_set;

    if (strcmp(value, "help") != 0)
        return false;
    fputs(
        "--direct MODE[,SWITCH,...]  off; auto, the default: what computes; on: all that "
        "can be\n",
        stdout);
    for (size_t n = 0; n < set->count; n++)
        printf("  [no-]%-10s %s\n", set->table[n].name, set->table[n].what);
    return true;
}

bool direct_option_parse(const char *value, struct machine_config *cfg) {
    size_t len = strcspn(value, ","), choice;
    char mode[16], why[256];

    snprintf(mode, sizeof(mode), "%.*s", (int)(len < sizeof(mode) ? len : sizeof(mode)),
             value);
    if (!options_choice("--direct", mode, modes, ARRAY_SIZE(modes), &choice))
        return false;
    cfg->direct = (enum direct_mode)choice;
    if (!value[len] || !engine_options_parse(&direct_option_set, &cfg->direct_options,
                                             NULL, value + len + 1, why, sizeof(why)))
        return true;
    log_error("%s", why);
    return false;
}
