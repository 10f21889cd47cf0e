/*
 * A run that goes on where a snapshot of another was made; see thaw.h. The snapshot says
 * what the machine is, by the options of its run; those of the command line take their
 * place. Its files are opened, and its records checked, before anything is made.
 */
#include "ctl/thaw.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "base/log.h"
#include "base/types.h"
#include "ctl/chain.h"
#include "ctl/ctl.h"
#include "ctl/freeze.h"
#include "snapshot/snapshot.h"

#define WORDS_MAX (2 * RUN_GIVEN)
#define WORDS_SIZE 65536u

struct restore {
    const char *path, *memory; /* MEMORY NULL: where the state says */
    char *api;                 /* what it said of the machine; NULL: nothing */
    char **overrides;          /* its words in the place of the snapshot's */
    uint8_t *bytes;
    size_t len;
    struct ctl_frozen frozen;
    struct chain *chain;
    char text[WORDS_SIZE];
    const char *word[WORDS_MAX];
    size_t words;
    char *argv[2 * WORDS_MAX];
};

/* --- the files --- */

static int open_files(struct restore *r) {
    char why[256];
    int rc = chain_read(r->path, &r->bytes, &r->len);

    if (rc)
        return rc;
    r->frozen.path = r->path;
    r->frozen.state = snapshot_open(r->bytes, r->len, why, sizeof(why));
    if (!r->frozen.state) {
        log_error("cannot restore '%s': %s", r->path, why);
        return -EINVAL;
    }
    if (!freeze_options(r->frozen.state, r->text, sizeof(r->text), r->word, WORDS_MAX,
                        &r->words)) {
        log_error("cannot restore '%s': it does not say what its machine is", r->path);
        return -EINVAL;
    }
    r->frozen.bytes = r->bytes;
    r->frozen.len = r->len;
    r->frozen.counted = freeze_counted(r->frozen.state, &r->frozen.start_ns);
    freeze_host(r->frozen.state);
    r->frozen.api = r->api = freeze_api(r->frozen.state);
    return chain_open(r->chain, r->path, r->memory, r->frozen.state);
}

/* What the machine is is known, and its memory is in one file: nothing is opened because
 * a snapshot, which may be the guest's work, names it. */
static int be_of(struct restore *r, const struct run_options *of) {
    r->words = freeze_given(of, r->text, sizeof(r->text), r->word, WORDS_MAX);
    if (r->words && r->chain->count == 1)
        return 0;
    log_error("cannot copy the machine: its snapshot is not a whole one");
    return -EINVAL;
}

/* --- the command line --- */

/* The word W, an option, is one that the command line gives, too. */
static bool is_given(const char *w, int argc, char **argv) {
    size_t len = strlen(w);

    for (int n = 0; n < argc; n++)
        if (!strncmp(argv[n], w, len) && (!argv[n][len] || argv[n][len] == '='))
            return true;
    return false;
}

/* A kernel or firmware that is given stands for all that goes with the snapshot's. */
static bool is_replaced(const char *w, int argc, char **argv) {
    static const char *const boots[] = {"--kernel",      "--initrd",   "--module",
                                        "--module-args", "--firmware", "--append"};

    if (is_given(w, argc, argv))
        return true;
    for (unsigned n = 0; n < ARRAY_SIZE(boots); n++)
        if (!strcmp(w, boots[n]))
            return is_given("--kernel", argc, argv) || is_given("--firmware", argc, argv);
    return false;
}

/* The snapshot's words that a run of KIND takes, and behind them the user's; how many. */
static int merge(struct restore *r, enum run_kind kind, int argc, char **argv) {
    bool skips = false;
    int n = 0;

    r->argv[n++] = (char *)(uintptr_t) "bivisor restore";
    for (size_t k = 0; k < r->words; k++) {
        const char *w = r->word[k];

        if (!strncmp(w, "--", 2))
            skips = is_replaced(w, argc, argv) || !run_options_takes(kind, w + 2);
        if (!skips)
            r->argv[n++] = (char *)(uintptr_t)w;
    }
    for (int k = 0; k < argc && n < (int)ARRAY_SIZE(r->argv) - 1; k++)
        r->argv[n++] = argv[k];
    r->argv[n] = NULL;
    return n;
}

static int check_disks(struct restore *r, int argc, char **argv) {
    char why[4400];
    bool good = freeze_disks(r->frozen.state, why, sizeof(why));

    if (good || is_given("--disk", argc, argv))
        return 0;
    log_error("cannot restore '%s': %s", r->path, why);
    return -EINVAL;
}

/* The words of who loads it by the API, and behind them what that puts in the place of
 * the snapshot's; how many, or -errno after a message. */
static int override(struct restore *r, struct api *api, int argc, char **argv,
                    char **words) {
    char why[512];
    int rc = api_restored(api, r->api, why, sizeof(why)), count = 0;

    if (rc) {
        log_error("cannot restore '%s': %s", r->path, why);
        return rc;
    }
    r->overrides = api_overrides(api, &count);
    if (!r->overrides || argc + count > WORDS_MAX) {
        log_error("cannot restore '%s': there are too many options", r->path);
        return -ENOMEM;
    }
    memcpy(words, argv, (size_t)argc * sizeof(*words));
    memcpy(words + argc, r->overrides, (size_t)count * sizeof(*words));
    return argc + count;
}

static int go_on(struct restore *r, int argc, char **argv,
                 const struct ctl_front *given) {
    struct ctl_front front = *given;
    char *words[WORDS_MAX];
    char beside[4096 + 8];
    int rc, status;

    if (given->of) { /* a hostile snapshot names no file */
        snprintf(beside, sizeof(beside), "%s.ram", r->path);
        r->memory = beside;
    }
    rc = open_files(r);
    front.frozen = &r->frozen;
    if (!rc && given->of)
        rc = be_of(r, given->of);
    if (!rc && given->api) {
        argc = override(r, given->api, argc, argv, words);
        argv = words;
        rc = argc < 0 ? argc : 0;
    }
    if (!rc)
        rc = check_disks(r, argc, argv);
    if (rc)
        status = ctl_status_of(rc);
    else if (front.lockstep)
        status = front.lockstep(merge(r, RUN_LOCKSTEP, argc, argv), r->argv, &front);
    else
        status = ctl_run(merge(r, RUN_PLAIN, argc, argv), r->argv, &front);
    api_words_free(r->overrides);
    free(r->api);
    chain_close(r->chain);
    snapshot_free(r->frozen.state);
    free(r->bytes);
    return status;
}

int thaw(const char *path, const char *memory, int copy, int argc, char **argv,
         const struct ctl_front *front) {
    static const struct ctl_front plain;
    struct restore *r = calloc(1, sizeof(*r));
    int status;

    if (r)
        r->frozen.chain = r->chain = calloc(1, sizeof(*r->chain));
    if (!r || !r->chain) {
        log_error("out of memory");
        free(r);
        return CTL_HOST_FAILURE;
    }
    r->path = path;
    r->memory = memory;
    r->frozen.copy = copy;
    status = go_on(r, argc, argv, front ? front : &plain);
    free(r->chain);
    free(r);
    return status;
}
