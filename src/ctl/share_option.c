/* --share; see share_option.h. */
#include "ctl/share_option.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

bool share_option_help(const char *value) {
    if (strcmp(value, "help") != 0)
        return false;
    printf(
        "--share TAG=DIR[,readonly][,type=9p|fs][,valid=SECONDS]\n"
        "\n"
        "A directory that the guest can mount, as a Linux guest does by\n"
        "\n"
        "  mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 TAG /mnt\n"
        "\n"
        "  readonly  nothing in it can be changed\n"
        "  type=fs   by virtio-fs instead of 9P: mount -t virtiofs TAG /mnt\n"
        "  valid=N   with type=fs: what it has seen of names and attributes the guest\n"
        "            believes for N seconds (default: 1), and does not ask again\n"
        "\n"
        "Files are opened, made and changed as the user who runs bivisor: the guest\n"
        "can do with them what you can, and nothing outside of DIR. A comma in DIR is\n"
        "written twice. docs/share.md tells more.\n");
    return true;
}

/* Ends the word at TEXT at a comma that is not doubled; those that are, are halved. What
 * follows, or NULL. */
static char *cut(char *text) {
    char *to = text;

    for (; *text; text++) {
        if (*text == ',' && *++text != ',') {
            *to = 0;
            return text;
        }
        *to++ = *text;
    }
    *to = 0;
    return NULL;
}

static bool parse_valid(const char *word, unsigned *valid) {
    char *end;
    unsigned long n;

    if (strncmp(word, "valid=", 6) != 0 || word[6] < '0' || word[6] > '9')
        return false;
    n = strtoul(word + 6, &end, 10);
    *valid = (unsigned)n;
    return !*end && n && n <= SHARE_VALID_MAX;
}

static bool parse(struct share_option *s) {
    char *dir = strchr(s->text, '='), *word, *rest;

    if (!dir || dir == s->text || !dir[1] || dir - s->text > (long)SHARE_TAG)
        return false;
    *dir++ = 0;
    s->tag = s->text;
    s->dir = dir;
    for (rest = cut(dir); (word = rest);) {
        rest = cut(word);
        if (!strcmp(word, "readonly"))
            s->readonly = true;
        else if (!strcmp(word, "type=9p"))
            s->protocol = SHARE_9P;
        else if (!strcmp(word, "type=fs"))
            s->protocol = SHARE_FUSE;
        else if (!parse_valid(word, &s->valid))
            return false;
    }
    if (s->valid && s->protocol != SHARE_FUSE)
        return false;
    return *s->dir && !strchr(s->tag, ',');
}

bool share_option_take(struct share_options *o, const char *value) {
    struct share_option *s = &o->share[o->count];

    if (o->count == MACHINE_SHARES) {
        log_error("--share is possible %u times at most", MACHINE_SHARES);
        return false;
    }
    *s = (struct share_option){.text = strdup(value)};
    if (!s->text) {
        log_error("out of memory");
        return false;
    }
    o->count++;
    if (!parse(s)) {
        log_error(
            "--share wants TAG=DIR[,readonly][,type=9p|fs][,valid=SECONDS], TAG of %u "
            "bytes at most, valid= with type=fs alone, not '%s'",
            SHARE_TAG, value);
        return false;
    }
    for (unsigned n = 0; n + 1 < o->count; n++)
        if (!strcmp(o->share[n].tag, s->tag)) {
            log_error("--share: there is a share '%s' already", s->tag);
            return false;
        }
    return true;
}

void share_options_free(struct share_options *o) {
    for (unsigned n = 0; n < o->count; n++)
        free(o->share[n].text);
    o->count = 0;
}

int share_options_open(const struct share_options *o, enum jail_want jail,
                       struct machine_config *cfg) {
    char why[512];

    for (unsigned n = 0; n < o->count; n++) {
        const struct share_option *s = &o->share[n];
        const struct share_config share = {.tag = s->tag,
                                           .dir = s->dir,
                                           .readonly = s->readonly,
                                           .protocol = s->protocol,
                                           .valid = s->valid,
                                           .jail = jail};
        int rc = share_open(&share, &cfg->shares[n], why, sizeof(why));

        if (rc) {
            log_error("--share: %s", why);
            return rc;
        }
        cfg->share_count++;
    }
    return 0;
}

void share_options_close(struct machine_config *cfg) {
    for (unsigned n = 0; n < cfg->share_count; n++)
        share_close(cfg->shares[n]);
    cfg->share_count = 0;
}
