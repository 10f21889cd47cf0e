/* What a machine is to be made of, as a client of the API says it: checked, kept, shown,
 * and as arguments of `bivisor run`. */
#ifndef API_CONFIG_H
#define API_CONFIG_H

#include "base/types.h"

struct cJSON;

enum config_part {
    CONFIG_BOOT,
    CONFIG_MACHINE,
    CONFIG_BALLOON,
    CONFIG_VSOCK,
    CONFIG_ENTROPY,
    CONFIG_SERIAL,
    CONFIG_LOGGER,
    CONFIG_METRICS,
    CONFIG_SETTINGS,
    CONFIG_CPU,
    CONFIG_MMDS, /* behind the interfaces that it names */
    CONFIG_PARTS,
    /* Of these there are several, by their ids. */
    CONFIG_DRIVES = CONFIG_PARTS,
    CONFIG_NETS,
    CONFIG_ALL,
};

#define CONFIG_DEFAULT_MIB 128 /* of memory */
#define CONFIG_DRIVES_MAX 30u
#define CONFIG_NETS_MAX 8u

struct config {
    struct cJSON *part[CONFIG_ALL]; /* objects or NULL; arrays of the last two */
};

/* The part that VALUE, an object, is put in place of; ID is the path's, or NULL where
 * there are not several. VALUE stays the caller's. 0, or -errno with one sentence. */
int config_put(struct config *c, enum config_part part, const char *id,
               const struct cJSON *value, char *why, size_t why_size);
/* Members of VALUE in the place of those that are there: of the machine's part. */
int config_patch_machine(struct config *c, const struct cJSON *value, char *why,
                         size_t why_size);
/* What a machine that runs is to be told, a line of the control socket: false if it has
 * refused that. */
struct config_teller {
    bool (*tell)(void *arg, const char *line);
    void *arg;
};
/* The limits of a drive or an interface of a machine that runs, and a drive's file: the
 * machine is told, and what it has not refused is kept. 0 then, too. */
int config_patch(struct config *c, enum config_part part, const char *id,
                 const struct cJSON *value, const struct config_teller *t, char *why,
                 size_t why_size);
/* The same of all limits that there are. */
void config_limits(const struct config *c, const struct config_teller *t);
/* The machine's number of the drive or interface that is called ID; UINT_MAX: there is
 * none. */
unsigned config_number(const struct config *c, enum config_part part, const char *id);
/* All parts of TEXT's object, by the names that config_show() gives them. */
int config_load(struct config *c, const char *text, char *why, size_t why_size);
/* The machine's part with what was left out; the caller's, NULL: out of memory. */
struct cJSON *config_machine(const struct config *c);
/* All of it; the same. */
struct cJSON *config_show(const struct config *c);
/* 0, or -EINVAL with one sentence: something is missing. */
int config_complete(const struct config *c, char *why, size_t why_size);
/* As api_words(). */
char **config_words(const struct config *c, bool pci, int *count);
/* The same for a machine that goes on from a snapshot, which has the rest. */
char **config_words_restore(const struct config *c, int *count);
/* What takes the place of the snapshot's own: its interfaces if NETS, its socket to the
 * guest if VSOCK. */
char **config_words_override(const struct config *c, bool nets, bool vsock, int *count);
/* The options for copies, beside those; NULL: there are to be none, or no memory. */
char **config_words_copies(const struct config *c);
void config_words_free(char **words);
void config_free(struct config *c);

#endif
