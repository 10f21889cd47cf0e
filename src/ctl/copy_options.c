/* What is to differ between copies counts up from one to the next; see copy_options.h.
 * What is wrong in an option is left to whoever takes it. */
#include "ctl/copy_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* WORD, with what WITH says in the place of LEN bytes from AT on. NULL: no memory. */
static char *replace(const char *word, const char *at, size_t len, const char *with) {
    char *out;

    if (asprintf(&out, "%.*s%s%s", (int)(at - word), word, with, at + len) < 0)
        return NULL;
    return out;
}

/* The value of OPTION that is WORD, or in it; BEFORE is the word before it. Or NULL. */
static char *value_of(const char *option, const char *before, char *word) {
    size_t len = strlen(option);

    if (!strcmp(before, option))
        return word;
    return !strncmp(word, option, len) && word[len] == '=' ? word + len + 1 : NULL;
}

static char *mac_in(char *value) {
    char *at = value ? strstr(value, ",mac=") : NULL;

    return at ? at + strlen(",mac=") : NULL;
}

/* The maker's half of it stays. */
static char *next_mac(char *word, const char *mac, unsigned more) {
    unsigned byte[6], low;
    char next[32];
    int len = 0;

    if (sscanf(mac, "%2x:%2x:%2x:%2x:%2x:%2x%n", &byte[0], &byte[1], &byte[2], &byte[3],
               &byte[4], &byte[5], &len) != 6)
        return word;
    low = ((byte[3] << 16 | byte[4] << 8 | byte[5]) + more) & 0xffffff;
    snprintf(next, sizeof(next), "%02x:%02x:%02x:%02x:%02x:%02x", byte[0], byte[1],
             byte[2], low >> 16, low >> 8 & 0xff, low & 0xff);
    return replace(word, mac, (size_t)len, next);
}

static char *next_cid(char *word, const char *value, unsigned more) {
    const char *digits = value + strlen("CID=");
    char next[32], *end;

    if (strncmp(value, "CID=", 4) != 0 && strncmp(value, "cid=", 4) != 0)
        return word;
    snprintf(next, sizeof(next), "%llu", strtoull(digits, &end, 10) + more);
    return end == digits ? word : replace(word, digits, (size_t)(end - digits), next);
}

static unsigned count_macs(char **word, int count) {
    const char *before = "";
    unsigned macs = 0;

    for (int k = 0; k < count; before = word[k++])
        macs += mac_in(value_of("--net", before, word[k])) != NULL;
    return macs;
}

bool copy_options_count(char **word, int count, unsigned n) {
    const unsigned macs = count_macs(word, count);
    const char *before = "";

    for (int k = 0; k < count && n; k++) {
        char *old = word[k], *mac = mac_in(value_of("--net", before, old)),
             *vsock = value_of("--vsock", before, old);

        if (mac)
            word[k] = next_mac(old, mac, n * macs);
        else if (vsock)
            word[k] = next_cid(old, vsock, n);
        if (!word[k])
            return false;
        before = old;
    }
    return true;
}
