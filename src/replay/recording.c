/* A recording's file; see recording.h. */
#include "replay/recording.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/counted.h"

#define MAGIC "bivisor recording"
#define FILE_LIMIT (256u << 20)

uint64_t recording_digest(uint64_t hash, const void *bytes, size_t len) {
    const uint8_t *p = bytes;

    hash ^= 0xcbf29ce484222325ull;
    while (len--)
        hash = (hash ^ *p++) * 0x100000001b3ull;
    return hash ^ 0xcbf29ce484222325ull;
}

/* The numbers of the key, as lines. */
static const struct {
    const char *name;
    size_t off;
    const char *what; /* that is not the same, in words; NULL: need not be */
} lines[] = {
    {"start-ns", offsetof(struct recording_key, start_ns), NULL},
    {"begin-ns", offsetof(struct recording_key, begin_ns),
     "another snapshot to go on from, or without one"},
    {"memory", offsetof(struct recording_key, memory), "another --memory"},
    {"protocol", offsetof(struct recording_key, protocol), "another --boot-protocol"},
    {"paravirt", offsetof(struct recording_key, paravirt), "another --no-paravirt"},
    {"no-pci", offsetof(struct recording_key, no_pci), "another --no-pci"},
    {"virtio", offsetof(struct recording_key, virtio), "another --virtio"},
    {"rng", offsetof(struct recording_key, rng), "another --no-rng"},
    {"no-reboot", offsetof(struct recording_key, no_reboot), "another --no-reboot"},
    {"append", offsetof(struct recording_key, append), "another --append"},
    {"disks", offsetof(struct recording_key, disks),
     "another --disk or --cdrom, or one of another size"},
    {"content", offsetof(struct recording_key, content),
     "a --disk or --cdrom that has something else on it"},
    {"cpu", offsetof(struct recording_key, cpu),
     "another --cpu, or another default for it"},
    {"state", offsetof(struct recording_key, state),
     "another kernel, initial RAM disk or version of bivisor"},
};

static uint64_t *number(const struct recording_key *key, size_t line) {
    return (uint64_t *)(void *)((char *)(uintptr_t)key + lines[line].off);
}

/* --- writing --- */

struct recording_writer {
    FILE *f;
    uint64_t sum;
    int error;
};

static void put(struct recording_writer *w, const char *text) {
    w->sum = recording_digest(w->sum, text, strlen(text));
    if (fputs(text, w->f) == EOF && !w->error)
        w->error = errno;
}

/* Ends a line, so that it is in the file whatever becomes of us. */
static void end_line(struct recording_writer *w) {
    if ((fprintf(w->f, " #%08x\n", (unsigned)w->sum) < 0 || fflush(w->f)) && !w->error)
        w->error = errno;
}

static void put_number(struct recording_writer *w, const char *name, uint64_t n) {
    char text[64];

    snprintf(text, sizeof(text), "%s %llu", name, (unsigned long long)n);
    put(w, text);
}

int recording_begin(FILE *f, const struct recording_key *key,
                    struct recording_writer **out) {
    struct recording_writer *w = calloc(1, sizeof(*w));

    if (!w)
        return -ENOMEM;
    w->f = f;
    put_number(w, MAGIC, RECORDING_VERSION);
    end_line(w);
    for (size_t n = 0; n < ARRAY_SIZE(lines); n++) {
        put_number(w, lines[n].name, *number(key, n));
        end_line(w);
    }
    *out = w;
    return 0;
}

void recording_write_input(struct recording_writer *w, uint64_t ns, const uint8_t *bytes,
                           size_t len) {
    char hex[3];

    put_number(w, "input", ns);
    put(w, " ");
    for (size_t n = 0; n < len; n++) {
        snprintf(hex, sizeof(hex), "%02x", bytes[n]);
        put(w, hex);
    }
    end_line(w);
}

void recording_write_end(struct recording_writer *w, const struct recording_event *end) {
    static const char *const how[] = {"guest", "quit", "signal"};

    put_number(w, "end", end->ns);
    put(w, " ");
    put_number(w, how[end->how], end->signal);
    put_number(w, "", end->out_len);
    put_number(w, "", end->out_digest);
    put_number(w, "", end->state);
    end_line(w);
}

int recording_end(struct recording_writer *w) {
    int error = w->error;

    free(w);
    return -error;
}

/* --- reading --- */

struct reader {
    char *text; /* the file, with each line ended by 0 once it is read */
    char *at, *end;
    uint64_t sum;
    unsigned line;
    bool cut; /* the file ends within a line */
};

/* The next line without its checksum; NULL at the end, or where the file is damaged,
 * which *BAD tells. */
static char *next_line(struct reader *r, bool *bad) {
    char *line = r->at, *nl = memchr(line, '\n', (size_t)(r->end - line)), *mark;
    unsigned sum;
    int used = 0;

    *bad = false;
    if (line == r->end)
        return NULL;
    r->line++;
    *bad = true;
    r->cut = !nl;
    if (!nl || memchr(line, 0, (size_t)(nl - line)))
        return NULL;
    *nl = 0;
    mark = strrchr(line, '#');
    if (!mark || mark == line || mark[-1] != ' ' ||
        sscanf(mark + 1, "%8x%n", &sum, &used) != 1 || mark[1 + used])
        return NULL;
    mark[-1] = 0;
    r->sum = recording_digest(r->sum, line, strlen(line));
    if ((unsigned)r->sum != sum)
        return NULL;
    r->at = nl + 1;
    *bad = false;
    return line;
}

/* "NAME N", and nothing else. */
static bool take_number(const char *line, const char *name, uint64_t *n) {
    size_t len = strlen(name);
    char *rest;

    if (!line || strncmp(line, name, len) || line[len] != ' ')
        return false;
    errno = 0;
    *n = strtoull(line + len + 1, &rest, 10);
    return !errno && rest != line + len + 1 && !*rest;
}

/* Of "0123456789abcdef". */
static uint8_t digit(char c) {
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* 0, -EINVAL or -ENOMEM. */
static int hex_bytes(const char *text, struct recording_event *e) {
    size_t digits = strlen(text);

    if (!digits || digits % 2 || strspn(text, "0123456789abcdef") != digits)
        return -EINVAL;
    e->len = digits / 2;
    e->bytes = malloc(e->len);
    for (size_t n = 0; e->bytes && n < e->len; n++)
        e->bytes[n] = (uint8_t)(digit(text[2 * n]) << 4 | digit(text[2 * n + 1]));
    return e->bytes ? 0 : -ENOMEM;
}

/* 0, -EINVAL or -ENOMEM. */
static int take_event(const char *line, struct recording_event *e) {
    unsigned long long ns, sig, len, digest, state;
    char how[8];
    int used = 0;

    *e = (struct recording_event){0};
    if (sscanf(line, "input %llu %n", &ns, &used) == 1 && used) {
        e->ns = ns;
        return ns < COUNTED_END ? hex_bytes(line + used, e) : -EINVAL;
    }
    if (sscanf(line, "end %llu %7s %llu %llu %llu %llu%n", &ns, how, &sig, &len, &digest,
               &state, &used) != 6 ||
        line[used])
        return -EINVAL;
    e->kind = RECORDING_END;
    e->how = !strcmp(how, "guest")  ? RECORDING_GUEST
             : !strcmp(how, "quit") ? RECORDING_QUIT
                                    : RECORDING_SIGNAL;
    e->ns = ns;
    e->signal = sig;
    e->out_len = len;
    e->out_digest = digest;
    e->state = state;
    return ns < COUNTED_END && sig < 65 ? 0 : -EINVAL;
}

static bool add_event(struct recording *rec, const struct recording_event *e) {
    struct recording_event *more;

    /* The room doubles whenever it is full. */
    if (!(rec->count & (rec->count - 1))) {
        more = realloc(rec->events, (rec->count ? 2 * rec->count : 1) * sizeof(*more));
        if (!more)
            return false;
        rec->events = more;
    }
    rec->events[rec->count++] = *e;
    return true;
}

/* The whole file; NULL with errno. */
static char *read_all(const char *path, size_t *len) {
    FILE *f = fopen(path, "re");
    char *text = NULL, *more;
    size_t room = 0, n = 1;

    *len = 0;
    if (!f)
        return NULL;
    while (n && *len < FILE_LIMIT) {
        room += 65536;
        more = realloc(text, room);
        if (!more) {
            free(text);
            fclose(f);
            errno = ENOMEM;
            return NULL;
        }
        text = more;
        n = fread(text + *len, 1, room - *len, f);
        *len += n;
    }
    if (ferror(f) || n) {
        errno = ferror(f) ? errno : EFBIG;
        free(text);
        text = NULL;
    }
    fclose(f);
    return text;
}

static int complain(const char *path, const struct reader *r, const char *what, char *why,
                    size_t why_size) {
    snprintf(why, why_size, "'%s' is not a good recording: line %u %s", path, r->line,
             what);
    return -EINVAL;
}

static int read_header(struct reader *r, const char *path, struct recording *rec,
                       char *why, size_t why_size) {
    bool bad, magic = (size_t)(r->end - r->at) > strlen(MAGIC) &&
                      !memcmp(r->at, MAGIC, strlen(MAGIC));
    uint64_t version;
    char *line;

    if (!magic) {
        snprintf(why, why_size, "'%s' is not a recording of bivisor", path);
        return -EINVAL;
    }
    line = next_line(r, &bad);
    if (!line || !take_number(line, MAGIC, &version))
        return complain(path, r, "is damaged", why, why_size);
    if (version != RECORDING_VERSION) {
        snprintf(why, why_size,
                 "'%s' is a recording of version %llu; this bivisor reads version %u",
                 path, (unsigned long long)version, RECORDING_VERSION);
        return -EINVAL;
    }
    for (size_t n = 0; n < ARRAY_SIZE(lines); n++) {
        line = next_line(r, &bad);
        if (!line && !bad) {
            snprintf(why, why_size, "'%s' is not a good recording: it is cut short",
                     path);
            return -EINVAL;
        }
        if (!take_number(line, lines[n].name, number(&rec->key, n)))
            return complain(path, r, r->cut ? "is cut short" : "is damaged", why,
                            why_size);
    }
    return 0;
}

static int cannot_read(const char *path, int rc, char *why, size_t why_size) {
    snprintf(why, why_size, "cannot read the recording '%s': %s", path, strerror(-rc));
    return rc;
}

static int read_events(struct reader *r, const char *path, struct recording *rec,
                       char *why, size_t why_size) {
    struct recording_event e;
    uint64_t last = 0;
    char *line;
    bool bad;
    int rc;

    while ((line = next_line(r, &bad))) {
        rc = rec->ended ? -EINVAL : take_event(line, &e);
        if (rc == -ENOMEM)
            return cannot_read(path, rc, why, why_size);
        if (rc)
            return complain(path, r, "is damaged", why, why_size);
        if (e.ns < last) {
            free(e.bytes);
            return complain(path, r, "is out of order", why, why_size);
        }
        if (!add_event(rec, &e)) {
            free(e.bytes);
            return cannot_read(path, -ENOMEM, why, why_size);
        }
        last = e.ns;
        rec->ended = e.kind == RECORDING_END;
    }
    if (bad)
        return complain(path, r, r->cut ? "is cut short" : "is damaged", why, why_size);
    return 0;
}

int recording_open(const char *path, struct recording *rec, char *why, size_t why_size) {
    struct reader r = {0};
    size_t len;
    int rc;

    *rec = (struct recording){0};
    r.text = r.at = read_all(path, &len);
    if (!r.text)
        return cannot_read(path, -errno, why, why_size);
    r.end = r.text + len;
    rc = read_header(&r, path, rec, why, why_size);
    if (!rc)
        rc = read_events(&r, path, rec, why, why_size);
    free(r.text);
    if (rc)
        recording_free(rec);
    return rc;
}

void recording_free(struct recording *rec) {
    for (size_t n = 0; n < rec->count; n++)
        free(rec->events[n].bytes);
    free(rec->events);
    *rec = (struct recording){0};
}

bool recording_fits(const struct recording *rec, const char *path,
                    const struct recording_key *now, char *why, size_t why_size) {
    for (size_t n = 0; n < ARRAY_SIZE(lines); n++) {
        if (!lines[n].what || *number(&rec->key, n) == *number(now, n))
            continue;
        snprintf(why, why_size, "'%s' was recorded with %s", path, lines[n].what);
        return false;
    }
    return true;
}
