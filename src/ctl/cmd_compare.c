/* `bivisor compare`: every engine of this host, and QEMU's TCG, at the same work. */
#include <cpuid.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "compare/compare.h"
#include "compare/spawn.h"
#include "ctl/ctl.h"
#include "direct/direct.h"
#include "kvm/kvm.h"
#include "machine/machine.h"

struct options {
    struct compare_setup setup;
    const char *engines;
    const char *html; /* file, or NULL */
    bool json, shadow;
    bool widths[2];
};

static void print_help(void) {
    printf(
        "usage: bivisor compare [OPTION...]\n"
        "\n"
        "Runs frob, a benchmark kernel that bivisor carries, on every engine of this "
        "host\n"
        "and on QEMU's TCG if qemu-system-x86_64 is installed, and prints what single\n"
        "operations cost in cycles, and what each engine counted meanwhile.\n"
        "\n"
        "  --engines LIST   columns: names of engines, bt-direct (bt translates all, "
        "this\n"
        "                   runs user code as it is), tcg, svm-nested,\n"
        "                   svm-shadow (default: these), svm-shadow-flush, "
        "svm-shadow-trace\n"
        "  --bits N         frob's width: 32, 64 or both (default: both)\n"
        "  --only LIST      only these benchmarks\n"
        "  --brief          few samples: quick, and noisy\n"
        "  --shadow         instead: the retention policies of the shadow MMU side by "
        "side\n"
        "  --svm FILE       also bivisor.elf (make svm makes it) with both kinds of "
        "paging, on\n"
        "                   the CPU with SVM that QEMU emulates: its exits count, not "
        "its times\n"
        "  --linux DIR      also programs under Linux; bench/macro/make makes DIR. bt "
        "translates\n"
        "                   all of it there, bt-direct runs user code as it is\n"
        "  --json           print JSON\n"
        "  --html FILE      also write one page with bar charts\n"
        "  --verbose        tell on stderr what is being done\n"
        "  --help           this text\n"
        "\n"
        "example: bivisor compare --html compare.html\n");
}

enum {
    OPT_ENGINES = 256,
    OPT_BITS,
    OPT_ONLY,
    OPT_BRIEF,
    OPT_SHADOW,
    OPT_LINUX,
    OPT_SVM,
    OPT_JSON,
    OPT_HTML,
    OPT_VERBOSE,
    OPT_HELP
};

static const struct option long_options[] = {
    {"engines", required_argument, NULL, OPT_ENGINES},
    {"bits", required_argument, NULL, OPT_BITS},
    {"only", required_argument, NULL, OPT_ONLY},
    {"brief", no_argument, NULL, OPT_BRIEF},
    {"shadow", no_argument, NULL, OPT_SHADOW},
    {"linux", required_argument, NULL, OPT_LINUX},
    {"svm", required_argument, NULL, OPT_SVM},
    {"json", no_argument, NULL, OPT_JSON},
    {"html", required_argument, NULL, OPT_HTML},
    {"verbose", no_argument, NULL, OPT_VERBOSE},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

/* Every name of the comma-separated LIST must be known to HAS. */
static bool check_list(const char *option, const char *list, bool (*has)(const char *)) {
    char name[64];

    for (const char *at = list; at; at = strchr(at, ',')) {
        size_t len;

        at += *at == ',';
        len = strcspn(at, ",");
        snprintf(name, sizeof(name), "%.*s", (int)len, at);
        if (!has(name)) {
            log_error("%s: there is no '%s'; `bivisor compare --help` and "
                      "`bivisor check` list what there is",
                      option, name);
            return false;
        }
    }
    return true;
}

static bool is_bench(const char *name) {
    return compare_index(name) >= 0;
}

#define BT_DIRECT "bt-direct"

/* Columns that are bivisor.elf, with its words. Those behind the first two only when
 * asked for: the retention policies of one kind of paging. */
static const struct {
    const char *name, *words;
    bool asked;
} bare_kinds[] = {
    {"svm-nested", "engine=svm paging=nested", false},
    {"svm-shadow", "engine=svm paging=shadow", false},
    {"svm-shadow-flush", "engine=svm paging=shadow policy=flush", true},
    {"svm-shadow-trace", "engine=svm paging=shadow policy=trace", true},
};

static int bare_kind(const char *name) {
    for (unsigned n = 0; n < ARRAY_SIZE(bare_kinds); n++)
        if (!strcmp(name, bare_kinds[n].name))
            return (int)n;
    return -1;
}

static bool is_column(const char *name) {
    size_t count;
    const struct engine_ops *const *engines = machine_engines(&count);

    for (size_t n = 0; n < count; n++)
        if (!strcmp(name, engines[n]->name))
            return true;
    return !strcmp(name, "tcg") || !strcmp(name, BT_DIRECT) || bare_kind(name) >= 0;
}

static bool take_image(struct options *o, const char *path) {
    o->setup.bare = path;
    if (!access(path, R_OK))
        return true;
    log_error("--svm: '%s' cannot be read: %s; `make svm` makes build/bivisor.elf", path,
              strerror(errno));
    return false;
}

static bool take_bits(struct options *o, const char *text) {
    o->widths[0] = !strcmp(text, "32") || !strcmp(text, "both");
    o->widths[1] = !strcmp(text, "64") || !strcmp(text, "both");
    if (o->widths[0] || o->widths[1])
        return true;
    log_error("--bits wants 32, 64 or both, not '%s'", text);
    return false;
}

static bool take_option(struct options *o, int opt) {
    switch (opt) {
    case OPT_ENGINES:
        o->engines = optarg;
        return check_list("--engines", optarg, is_column);
    case OPT_BITS:
        return take_bits(o, optarg);
    case OPT_ONLY:
        o->setup.only = optarg;
        return check_list("--only", optarg, is_bench);
    case OPT_BRIEF:
        o->setup.brief = true;
        return true;
    case OPT_SHADOW:
        o->shadow = true;
        return true;
    case OPT_LINUX:
        o->setup.linux_dir = optarg;
        return true;
    case OPT_SVM:
        return take_image(o, optarg);
    case OPT_JSON:
        o->json = true;
        return true;
    case OPT_HTML:
        o->html = optarg;
        return true;
    case OPT_VERBOSE:
        log_set_level(LOG_INFO);
        return true;
    default:
        return false; /* getopt_long() has complained */
    }
}

/* -1 to go on, or the exit status. */
static int parse(struct options *o, int argc, char **argv) {
    int opt;

    *o = (struct options){.widths = {true, true}};
    argv[0] = (char *)"bivisor compare";
    while ((opt = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
        if (opt == OPT_HELP) {
            print_help();
            return CTL_OK;
        }
        if (!take_option(o, opt))
            return CTL_USAGE;
    }
    if (!o->setup.bare && o->engines && strstr(o->engines, "svm-")) {
        log_error("the columns svm-* want --svm FILE; `make svm` makes "
                  "build/bivisor.elf");
        return CTL_USAGE;
    }
    if (optind == argc)
        return -1;
    log_error("'%s' is not an option; `bivisor compare --help` lists them", argv[optind]);
    return CTL_USAGE;
}

static bool has_qemu(void) {
    const char *const argv[] = {"qemu-system-x86_64", "--version", NULL};
    struct spawn_result r;
    bool ok = !spawn_run(argv, 20, &r) && r.status == 0;

    free(r.out);
    return ok;
}

static bool hardware_is_emulated(void) {
    struct kvm_probe p;

    kvm_probe(&p);
    return p.verdict == KVM_SLOW;
}

static void add_bare(struct compare_report *r, const char *engines) {
    for (unsigned n = 0; n < ARRAY_SIZE(bare_kinds) && r->columns < COMPARE_COLUMNS;
         n++) {
        struct compare_column *c = &r->column[r->columns];

        if ((bare_kinds[n].asked && !engines) ||
            !compare_in_list(engines, bare_kinds[n].name))
            continue;
        snprintf(c->name, sizeof(c->name), "%s", bare_kinds[n].name);
        c->words = bare_kinds[n].words;
        c->ours = c->hardware = c->emulated = true;
        r->columns++;
    }
}

/* User code as it is: where the host cannot, it is left out, unless it was asked for. */
static bool add_direct(struct compare_report *r, const char *engines) {
    struct compare_column *c = &r->column[r->columns];
    const char *lacks;

    if (!compare_in_list(engines, BT_DIRECT))
        return true;
    lacks = direct_host_lacks();
    if (lacks && engines)
        log_error("there is no " BT_DIRECT ": %s", lacks);
    if (lacks)
        return !engines;
    snprintf(c->name, sizeof(c->name), BT_DIRECT);
    c->ours = true;
    c->direct = "auto";
    r->columns++;
    return true;
}

bool compare_columns(struct compare_report *r, const char *engines, bool bare) {
    size_t count;
    const struct engine_ops *const *all = machine_engines(&count);

    for (size_t n = 0; n < count && r->columns < COMPARE_COLUMNS - 6; n++) {
        struct compare_column *c = &r->column[r->columns];

        if (!compare_in_list(engines, all[n]->name))
            continue;
        snprintf(c->name, sizeof(c->name), "%s", all[n]->name);
        c->ours = true;
        c->hardware = !strcmp(c->name, "kvm");
        c->emulated = c->hardware && hardware_is_emulated();
        c->direct = strcmp(c->name, "bt") ? NULL : "off";
        r->columns++;
    }
    if (!add_direct(r, engines))
        return false;
    if (compare_in_list(engines, "tcg")) {
        struct compare_column *c = &r->column[r->columns];

        if (has_qemu()) {
            snprintf(c->name, sizeof(c->name), "tcg");
            r->columns++;
        } else if (engines) {
            log_error("qemu-system-x86_64 is not installed: there is no tcg");
            return false;
        }
    }
    if (bare && !has_qemu()) {
        log_error("qemu-system-x86_64 is not installed, and --svm needs it");
        return false;
    }
    if (bare)
        add_bare(r, engines);
    return true;
}

static void describe_host(struct compare_report *r) {
    char brand[49] = "";
    time_t now = time(NULL);
    struct tm tm;

    for (unsigned i = 0; i < 3; i++) {
        uint32_t w[4];

        __cpuid(0x80000002 + i, w[0], w[1], w[2], w[3]);
        memcpy(brand + i * 16, w, 16);
    }
    snprintf(r->host, sizeof(r->host), "%s", brand + strspn(brand, " "));
    r->tsc_mhz = (double)os_tsc_hz() / 1e6;
    if (localtime_r(&now, &tm))
        strftime(r->date, sizeof(r->date), "%Y-%m-%d", &tm);
}

/* A directory of ours, and the path of this program. */
static bool prepare(struct compare_setup *s) {
    const char *tmp = getenv("TMPDIR");
    ssize_t n = readlink("/proc/self/exe", s->self, sizeof(s->self) - 1);

    if (n <= 0) {
        log_error("cannot find this program's own file: %s", strerror(errno));
        return false;
    }
    s->self[n] = 0;
    if (!tmp || strlen(tmp) > 32)
        tmp = "/tmp";
    snprintf(s->dir, sizeof(s->dir), "%s/bivisor-XXXXXX", tmp);
    if (!mkdtemp(s->dir)) {
        log_error("cannot make a directory in %s: %s", tmp, strerror(errno));
        return false;
    }
    return frob_install(s);
}

static void clean_up(const struct compare_setup *s) {
    static const char *const files[] = {"frob32", "frob64", "stats"};
    char path[96];

    for (unsigned n = 0; n < ARRAY_SIZE(files); n++) {
        snprintf(path, sizeof(path), "%s/%s", s->dir, files[n]);
        remove(path);
    }
    rmdir(s->dir);
}

static bool write_html(const struct compare_report *r, const char *path) {
    FILE *f = fopen(path, "we");
    bool bad = !f;

    if (f) {
        compare_html(r, f);
        bad = ferror(f);
        bad |= fclose(f) != 0;
    }
    if (bad)
        log_error("cannot write '%s': %s", path, strerror(errno));
    return !bad;
}

/* 0 when every engine did what it was asked and every check of frob held. */
static int show(const struct compare_report *r, const struct options *o) {
    int status = CTL_OK;

    if (o->json) {
        char *text = compare_json(r);

        if (!text) {
            log_error("out of memory");
            return CTL_HOST_FAILURE;
        }
        printf("%s\n", text);
        free(text);
    } else {
        compare_text(r, stdout);
    }
    if (o->html && !write_html(r, o->html))
        status = CTL_HOST_FAILURE;
    return status;
}

static int compare(struct compare_report *r, const struct options *o) {
    memcpy(r->widths, o->widths, sizeof(r->widths));
    r->brief = o->setup.brief;
    describe_host(r);
    if (!compare_columns(r, o->engines, o->setup.bare))
        return CTL_USAGE;
    compare_native(r, r->brief);
    if (o->shadow) {
        compare_shadow(r, &o->setup);
    } else {
        compare_frob(r, &o->setup);
        if (o->setup.linux_dir && !compare_linux(r, &o->setup))
            return CTL_USAGE;
    }
    return show(r, o);
}

int ctl_cmd_compare(int argc, char **argv) {
    struct options o;
    struct compare_report *r;
    int status = parse(&o, argc, argv);

    if (status >= 0)
        return status;
    r = calloc(1, sizeof(*r));
    status = CTL_HOST_FAILURE;
    if (!r)
        log_error("out of memory");
    else if (prepare(&o.setup))
        status = compare(r, &o);
    if (o.setup.dir[0])
        clean_up(&o.setup);
    free(r);
    return status;
}
