/*
 * `bivisor run`, and `bivisor firecracker`: with --api and nothing to start, a machine is
 * built by requests (api/) first. A start that fails is told to who asked for it, and can
 * be tried again, until one machine runs: that is the process's only one.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/api.h"
#include "base/log.h"
#include "ctl/copying.h"
#include "ctl/ctl.h"
#include "ctl/options.h"
#include "ctl/thaw.h"

#define CONFIG_MAX (1 << 20) /* bytes of a file */
#define MMDS_LIMIT_MAX (1u << 30)
#define BODY_LIMIT_MAX (16u << 20)

struct build {
    struct api *api;
    char **base; /* words that are before what is built */
    int base_count;
    bool api_asks; /* or the configuration stands already */
    bool runs;
};

static bool on_ready(void *arg) {
    struct build *b = arg;

    b->runs = true;
    return true;
}

/* A machine's whole life, or an attempt. */
static int run_built(struct build *b) {
    const struct ctl_front front = {
        .ready = on_ready, .arg = b, .api = b->api, .copies = copying_for_api};
    int count = 0, status = CTL_HOST_FAILURE;
    const char *snapshot = api_snapshot(b->api);
    char **built = api_words(b->api, &count);
    char **all = calloc((size_t)(b->base_count + count) + 1, sizeof(char *));

    if (built && all) {
        memcpy(all, b->base, (size_t)b->base_count * sizeof(char *));
        memcpy(all + b->base_count, built, (size_t)count * sizeof(char *));
        optind = 0; /* getopt(3) begins anew */
        status = snapshot ? thaw(snapshot, api_snapshot_memory(b->api), -1,
                                 b->base_count + count - 1, all + 1, &front)
                          : ctl_run(b->base_count + count, all, &front);
    } else {
        log_error("out of memory");
    }
    free(all);
    api_words_free(built);
    return status;
}

static int build(struct build *b) {
    char why[512];
    int status, rc;

    for (;;) {
        rc = b->api_asks ? api_build(b->api) : 0;
        if (rc) {
            log_error("--api: cannot wait for clients: %s", strerror(-rc));
            return CTL_HOST_FAILURE;
        }
        snprintf(why, sizeof(why), "the machine could not be made");
        log_keep_error(why, sizeof(why));
        status = run_built(b);
        log_keep_error(NULL, 0);
        api_failed(b->api, why); /* who waits still */
        if (b->runs || !b->api_asks)
            return status;
    }
}

/* --- bivisor run --- */

static bool names(const char *word, const char *option) {
    size_t len = strlen(option);

    return !strncmp(word, option, len) && (!word[len] || word[len] == '=');
}

/* The API's path, where nothing is named that could be started. */
static const char *api_alone(int argc, char **argv) {
    static const char *const sources[] = {"--kernel", "--firmware", "--disk",
                                          "--cdrom",  "--replay",   "--initrd",
                                          "--daemon", "--help",     "--module"};
    const char *path = NULL;

    for (int n = 1; n < argc; n++) {
        for (size_t k = 0; k < ARRAY_SIZE(sources); k++)
            if (names(argv[n], sources[k]))
                return NULL;
        if (!strcmp(argv[n], "--api") && n + 1 < argc)
            path = argv[++n];
        else if (!strncmp(argv[n], "--api=", 6))
            path = argv[n] + 6;
    }
    return path;
}

int ctl_cmd_run(int argc, char **argv) {
    const struct ctl_front front = {.copies = copying_for_api};
    const struct api_about about = {.id = "bivisor", .version = CTL_VERSION};
    const char *path = api_alone(argc, argv);
    struct build b = {.base = argv, .base_count = argc, .api_asks = true};
    char why[512];
    int status, rc;

    if (!path)
        return ctl_run(argc, argv, &front);
    rc = api_open(path, &about, &b.api, why, sizeof(why));
    if (rc) {
        log_error("--api: %s", why);
        return ctl_status_of(rc);
    }
    status = build(&b);
    api_close(b.api);
    return status;
}

/* --- bivisor firecracker --- */

struct options {
    const char *socket, *config;
    struct api_about about;
    bool no_api, no_jail;
    struct api_log log;
    const char *metrics, *metadata;
};

static void print_help(void) {
    printf(
        "usage: bivisor firecracker --api-sock PATH [OPTION...]\n"
        "\n"
        "Does what Firecracker's program does with these options: waits for requests of\n"
        "its API at a unix socket, and runs the machine that they describe.\n"
        "\n"
        "  --api-sock PATH     the socket (default: /run/firecracker.socket)\n"
        "  --config-file FILE  the machine, which is started at once\n"
        "  --no-api            nobody comes; goes with --config-file\n"
        "  --id ID             what the instance is called\n"
        "  --enable-pci        virtio is on PCI, instead of MMIO\n"
        "  --log-path FILE, --level LEVEL, --module PATH, --show-level, "
        "--show-log-origin\n"
        "                      as PUT /logger\n"
        "  --metrics-path FILE as PUT /metrics\n"
        "  --metadata FILE     as PUT /mmds, with what is in FILE\n"
        "  --http-api-max-payload-size N, --mmds-size-limit N\n"
        "                      bytes of a request, and of metadata (default: 51200, and "
        "the same)\n"
        "  --no-seccomp        without a jail\n"
        "\n"
        "Others of its options are taken and mean nothing here: --seccomp-filter,\n"
        "--boot-timer, --start-time-us, --start-time-cpu-us, --parent-cpu-time-us.\n"
        "\n"
        "exit status: as for `bivisor run`\n"
        "\n"
        "example: bivisor firecracker --api-sock /tmp/vm.socket\n");
}

enum {
    OPT_SOCKET = 256,
    OPT_CONFIG,
    OPT_NO_API,
    OPT_ID,
    OPT_PCI,
    OPT_LOG,
    OPT_LEVEL,
    OPT_METRICS,
    OPT_MODULE,
    OPT_SHOW_LEVEL,
    OPT_SHOW_ORIGIN,
    OPT_METADATA,
    OPT_MMDS_LIMIT,
    OPT_BODY_LIMIT,
    OPT_NO_SECCOMP,
    OPT_NOTHING,
    OPT_VERSION,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"api-sock", required_argument, NULL, OPT_SOCKET},
    {"config-file", required_argument, NULL, OPT_CONFIG},
    {"no-api", no_argument, NULL, OPT_NO_API},
    {"id", required_argument, NULL, OPT_ID},
    {"enable-pci", no_argument, NULL, OPT_PCI},
    {"log-path", required_argument, NULL, OPT_LOG},
    {"level", required_argument, NULL, OPT_LEVEL},
    {"metrics-path", required_argument, NULL, OPT_METRICS},
    {"no-seccomp", no_argument, NULL, OPT_NO_SECCOMP},
    {"seccomp-filter", required_argument, NULL, OPT_NOTHING},
    {"boot-timer", no_argument, NULL, OPT_NOTHING},
    {"start-time-us", required_argument, NULL, OPT_NOTHING},
    {"start-time-cpu-us", required_argument, NULL, OPT_NOTHING},
    {"parent-cpu-time-us", required_argument, NULL, OPT_NOTHING},
    {"show-level", no_argument, NULL, OPT_SHOW_LEVEL},
    {"show-log-origin", no_argument, NULL, OPT_SHOW_ORIGIN},
    {"module", required_argument, NULL, OPT_MODULE},
    {"metadata", required_argument, NULL, OPT_METADATA},
    {"http-api-max-payload-size", required_argument, NULL, OPT_BODY_LIMIT},
    {"mmds-size-limit", required_argument, NULL, OPT_MMDS_LIMIT},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

static bool take_limit(const char *option, const char *text, unsigned most, size_t *out) {
    unsigned n;

    if (!options_number(option, text, 1, most, &n))
        return false;
    *out = n;
    return true;
}

static bool take_option(struct options *o, int opt) {
    switch (opt) {
    case OPT_SOCKET:
        o->socket = optarg;
        return true;
    case OPT_CONFIG:
        o->config = optarg;
        return true;
    case OPT_NO_API:
        o->no_api = true;
        return true;
    case OPT_ID:
        o->about.id = optarg;
        return true;
    case OPT_PCI:
        o->about.pci = true;
        return true;
    case OPT_LOG:
        o->log.path = optarg;
        return true;
    case OPT_LEVEL:
        o->log.level = optarg;
        return true;
    case OPT_METRICS:
        o->metrics = optarg;
        return true;
    case OPT_MODULE:
        o->log.module = optarg;
        return true;
    case OPT_SHOW_LEVEL:
        o->log.show_level = true;
        return true;
    case OPT_SHOW_ORIGIN:
        o->log.show_origin = true;
        return true;
    case OPT_METADATA:
        o->metadata = optarg;
        return true;
    case OPT_MMDS_LIMIT:
        return take_limit("--mmds-size-limit", optarg, MMDS_LIMIT_MAX,
                          &o->about.mmds_limit);
    case OPT_BODY_LIMIT:
        return take_limit("--http-api-max-payload-size", optarg, BODY_LIMIT_MAX,
                          &o->about.body_limit);
    case OPT_NO_SECCOMP:
        o->no_jail = true;
        return true;
    default:
        return opt == OPT_NOTHING; /* getopt_long() has complained */
    }
}

/* -1 to go on, or the exit status. */
static int parse(struct options *o, int argc, char **argv) {
    int opt;

    argv[0] = (char *)(uintptr_t) "bivisor firecracker";
    while ((opt = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
        if (opt == OPT_HELP) {
            print_help();
            return CTL_OK;
        }
        if (opt == OPT_VERSION) {
            printf("bivisor %s\n", CTL_VERSION);
            return CTL_OK;
        }
        if (!take_option(o, opt))
            return CTL_USAGE;
    }
    if (optind < argc) {
        log_error("'%s' is not an option; `bivisor firecracker --help` lists them",
                  argv[optind]);
        return CTL_USAGE;
    }
    if (!o->no_api || o->config)
        return -1;
    log_error("--no-api leaves --config-file to say what is to be run");
    return CTL_USAGE;
}

/* A file of at most CONFIG_MAX bytes, as a text; NULL after a message. */
static char *read_text(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd < 0 ? NULL : malloc(CONFIG_MAX + 1);
    size_t len = 0;
    ssize_t n = text ? 1 : -1;

    while (n > 0 && len < CONFIG_MAX) {
        n = read(fd, text + len, CONFIG_MAX - len);
        len += n > 0 ? (size_t)n : 0;
    }
    if (n < 0 || len == CONFIG_MAX) {
        log_error("cannot read '%s': %s", path,
                  n < 0 ? strerror(errno) : "it is too long");
        free(text);
        text = NULL;
    } else {
        text[len] = 0;
    }
    if (fd >= 0)
        close(fd);
    return text;
}

/* TAKE gets what is in the file PATH. False after a message. */
static bool put_file(struct api *api, const char *path,
                     int (*take)(struct api *a, const char *text, char *why,
                                 size_t size)) {
    char *text = read_text(path);
    char why[512];
    int rc;

    if (!text)
        return false;
    rc = take(api, text, why, sizeof(why));
    free(text);
    if (rc)
        log_error("%s: %s", path, why);
    return !rc;
}

/* --log-path and others, as requests have them. False after a message. */
static bool put_sinks(struct api *api, const struct options *o) {
    const struct api_log *l = &o->log;
    char why[512];

    if ((l->path || l->level || l->module || l->show_level || l->show_origin) &&
        api_put_logger(api, l, why, sizeof(why))) {
        log_error("--log-path, --level: %s", why);
        return false;
    }
    if (o->metrics && api_put_metrics(api, o->metrics, why, sizeof(why))) {
        log_error("--metrics-path: %s", why);
        return false;
    }
    return !o->metadata || put_file(api, o->metadata, api_put_metadata);
}

int ctl_cmd_firecracker(int argc, char **argv) {
    struct options o = {.socket = "/run/firecracker.socket",
                        .about = {.id = "anonymous-instance", .version = CTL_VERSION}};
    char *base[] = {(char *)(uintptr_t) "run", (char *)(uintptr_t) "--jail", NULL};
    struct build b = {.base = base, .base_count = 3};
    char why[512];
    int status = parse(&o, argc, argv), rc;

    if (status >= 0)
        return status;
    base[2] = (char *)(uintptr_t)(o.no_jail ? "off" : "auto");
    rc = api_open(o.no_api ? NULL : o.socket, &o.about, &b.api, why, sizeof(why));
    if (rc) {
        log_error("--api-sock: %s", why);
        return ctl_status_of(rc);
    }
    b.api_asks = !o.config;
    if (!put_sinks(b.api, &o))
        status = CTL_USAGE;
    if (status < 0 && o.config && !put_file(b.api, o.config, api_configure))
        status = CTL_USAGE;
    if (status < 0)
        status = build(&b);
    api_close(b.api);
    return status;
}
