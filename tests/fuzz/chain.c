/*
 * An incremental snapshot's state as it was not written, and that of its base: a good
 * pair of files, of which the input changes bytes. Checksums are put right, unless the
 * input says not to. What is taken is followed to the memory of a machine, whose pages
 * come from the files that it leads to; what is refused does no harm, and says why.
 *
 * The input: a byte (bit 0: the sums stay wrong; bit 1: it is the base that is changed),
 * then patches: two bytes say where, one how many bytes follow.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/chain.h"
#include "fuzz/fuzz.h"
#include "fuzz/records.h"
#include "mem/mem.h"
#include "snapshot/snapshot.h"

static char dir[] = "/tmp/fuzz-chain-XXXXXX";
static char path[2][64]; /* the incremental one, and its base */
static struct mem *mem;
static char said[1024]; /* the last message */
static struct good {
    uint8_t bytes[1024];
    size_t len;
} good[2];

static void write_file(const char *name, const uint8_t *bytes, size_t len) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    HOLDS(fd >= 0 && write(fd, bytes, len) == (ssize_t)len && !close(fd));
}

static void make_state(unsigned n) {
    struct freeze_run run[] = {{0, 1}, {3, 9}, {100, 101}};
    struct freeze_increment i = {.there = true, .count = 3, .run = run};
    uint8_t id[FREEZE_ID] = {(uint8_t)(n + 1)};
    struct snapshot *s = snapshot_new();
    bool signed_ram = true;
    const uint8_t *bytes;

    freeze_ram(s, id, &signed_ram);
    i.base_id[0] = 2;
    snprintf(i.base, sizeof(i.base), "base");
    if (!n)
        HOLDS(freeze_increment(s, &i));
    bytes = snapshot_finish(s, &good[n].len);
    HOLDS(bytes && good[n].len <= sizeof(good[n].bytes));
    memcpy(good[n].bytes, bytes, good[n].len);
    snapshot_free(s);
}

static void create(void) {
    static const char *const name[] = {"part", "base"};

    log_keep_error(said, sizeof(said));
    HOLDS(!mem_create(MEM_MIN_RAM, &mem) && mkdtemp(dir));
    for (unsigned n = 0; n < 2; n++) {
        char ram[80];

        snprintf(path[n], sizeof(path[n]), "%s/%s", dir, name[n]);
        snprintf(ram, sizeof(ram), "%s.ram", path[n]);
        make_state(n);
        write_file(path[n], good[n].bytes, good[n].len);
        write_file(ram, NULL, 0);
        HOLDS(!truncate(ram, (off_t)mem_host_size(mem)));
    }
}

/* As a run does it (ctl/run.c). */
static void show(const struct chain *c) {
    for (unsigned n = c->count - 1; n--;)
        for (uint32_t k = 0; k < c->link[n].increment.count; k++) {
            const struct freeze_run *r = &c->link[n].increment.run[k];

            if (mem_load_pages(mem, c->link[n].ram, r->from, r->end))
                return;
        }
}

static void restore(void) {
    struct chain *c = calloc(1, sizeof(*c));
    char why[256] = "";
    struct snapshot *s;
    uint8_t *bytes;
    size_t len;

    HOLDS(!chain_read(path[0], &bytes, &len));
    s = snapshot_open(bytes, len, why, sizeof(why));
    HOLDS(s || (*why && !strchr(why, '\n')));
    *said = 0;
    if (s && !chain_open(c, path[0], NULL, s))
        show(c);
    else if (s)
        HOLDS(*said && !strchr(said, '\n'));
    if (s)
        chain_close(c);
    snapshot_free(s);
    free(bytes);
    free(c);
}

/* A sentence for each input is too much; what a check says is said without. */
static void hush(bool on) {
    static int loud = -1, quiet;

    if (loud < 0) {
        loud = dup(STDERR_FILENO);
        quiet = open("/dev/null", O_WRONLY);
    }
    dup2(on ? quiet : loud, STDERR_FILENO);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};
    struct good changed;
    unsigned how, n;

    if (!mem)
        create();
    how = (unsigned)fuzz_get(&in, 1);
    n = how >> 1 & 1;
    changed = good[n];
    records_patch(changed.bytes, changed.len, &in, 2);
    if (!(how & 1))
        records_repair(changed.bytes, changed.len);
    write_file(path[n], changed.bytes, changed.len);
    hush(true);
    restore();
    hush(false);
    write_file(path[n], good[n].bytes, good[n].len);
    return 0;
}
