/*
 * A case as text: what a difference is printed as, and what cases/ keeps. Lines of a word
 * and hexadecimal values; what is not said is zero, or as FNINIT and LDMXCSR 0x1f80 leave
 * it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "decode/decode.h"
#include "fidelity.h"

static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                      "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                      "r12", "r13", "r14", "r15"};

static void put_state(FILE *f, const struct state *s) {
    uint8_t clean[FID_IMAGE];

    fprintf(f, "flags %" PRIx64 "\n", s->rflags);
    for (unsigned r = 0; r < 16; r++)
        if (s->gpr[r])
            fprintf(f, "%s %" PRIx64 "\n", names[r], s->gpr[r]);
    if (s->fs_base)
        fprintf(f, "fs %" PRIx64 "\n", s->fs_base);
    if (s->gs_base)
        fprintf(f, "gs %" PRIx64 "\n", s->gs_base);
    fid_image_clean(clean);
    for (unsigned k = 0; k < FID_IMAGE; k += 16)
        if (memcmp(s->image + k, clean + k, 16)) {
            fprintf(f, "image %x ", k);
            for (unsigned j = 0; j < 16; j++)
                fprintf(f, "%02x", s->image[k + j]);
            fprintf(f, "\n");
        }
}

void fid_text_write(FILE *f, const struct program *p) {
    char text[128];

    for (unsigned k = 0; k < p->n; k++) {
        uint8_t b[16] = {0};
        struct insn i;

        memcpy(b, p->code + p->at[k], p->len - p->at[k] < 15 ? p->len - p->at[k] : 15);
        if (decode_insn(p->mode, b, 15, &i) == DECODE_OK)
            fprintf(f, "# %s\n",
                    decode_format(&i, p->base + p->at[k], text, sizeof(text)));
    }
    fprintf(f, "mode %x\nat %" PRIx64 "\ncode ", p->mode == MODE_64 ? 0x64 : 0x32,
            p->base);
    for (unsigned k = 0; k < p->len; k++)
        fprintf(f, "%02x", p->code[k]);
    fprintf(f, "\n");
    if (p->memory)
        fprintf(f, "memory %" PRIx64 "\n", p->memory);
    for (unsigned k = 0; k < p->nstates; k++) {
        if (k)
            fprintf(f, "state\n");
        put_state(f, &p->state[k]);
    }
    fprintf(f, "end\n");
}

static bool get_bytes(const char *hex, uint8_t *to, unsigned max, unsigned *len) {
    unsigned n = 0;

    for (; hex[0] && hex[1] && hex[0] != '\n'; hex += 2) {
        unsigned b;

        if (n == max || sscanf(hex, "%2x", &b) != 1)
            return false;
        to[n++] = (uint8_t)b;
    }
    if (len)
        *len = n;
    return n > 0;
}

static void clean_state(struct state *s) {
    memset(s, 0, sizeof(*s));
    s->rflags = X86_FL_ONE;
    fid_image_clean(s->image);
}

static bool get_line(struct program *p, const char *word, const char *rest) {
    struct state *s = &p->state[p->nstates - 1];
    uint64_t val = strtoull(rest, NULL, 16);
    int n = 0;
    unsigned at;

    for (unsigned r = 0; r < 16; r++)
        if (!strcmp(word, names[r]))
            return s->gpr[r] = val, true;
    if (!strcmp(word, "mode"))
        p->mode = val == 0x64 ? MODE_64 : MODE_32;
    else if (!strcmp(word, "at"))
        p->base = val;
    else if (!strcmp(word, "code"))
        return get_bytes(rest, p->code, FID_CODE_MAX, &p->len);
    else if (!strcmp(word, "memory"))
        p->memory = val;
    else if (!strcmp(word, "flags"))
        s->rflags = val;
    else if (!strcmp(word, "fs"))
        s->fs_base = val;
    else if (!strcmp(word, "gs"))
        s->gs_base = val;
    else if (!strcmp(word, "image"))
        return sscanf(rest, "%x %n", &at, &n) == 1 && at <= FID_IMAGE - 16 &&
               get_bytes(rest + n, s->image + at, 16, NULL);
    else
        return false;
    return true;
}

static bool good(struct program *p) {
    return p->len && p->base >= FID_CODE &&
           p->base + p->len <= FID_CODE + FID_CODE_SIZE && fid_program_scan(p);
}

int fid_text_read(FILE *f, struct program *p, char *name, unsigned *line) {
    char buf[2048], word[16];

    memset(p, 0, sizeof(*p));
    *name = 0;
    while (fgets(buf, sizeof(buf), f)) {
        int n = 0;

        ++*line;
        if (buf[0] == '#' || buf[0] == '\n')
            continue;
        if (sscanf(buf, "%15s %n", word, &n) != 1)
            return -EINVAL;
        if (!strcmp(word, "case")) {
            snprintf(name, 64, "%.*s", (int)strcspn(buf + n, "\n"), buf + n);
            p->nstates = 1;
            clean_state(&p->state[0]);
        } else if (!strcmp(word, "state") && p->nstates < FID_STATES) {
            clean_state(&p->state[p->nstates++]);
        } else if (!strcmp(word, "end")) {
            return good(p) ? 1 : -EINVAL;
        } else if (!p->nstates || !get_line(p, word, buf + n)) {
            return -EINVAL;
        }
    }
    return *name ? -EINVAL : 0;
}

static void report_fields(FILE *f, const struct outcome *a, const struct outcome *b) {
    for (unsigned r = 0; r < 16; r++)
        if (a->gpr[r] != b->gpr[r])
            fprintf(f, "#   %s %" PRIx64 ", got %" PRIx64 "\n", names[r], a->gpr[r],
                    b->gpr[r]);
    fprintf(f, "#   vector %u, got %u; rip %" PRIx64 ", got %" PRIx64 "\n", a->vector,
            b->vector, a->rip, b->rip);
    fprintf(f,
            "#   error %" PRIx64 ", got %" PRIx64 "; cr2 %" PRIx64 ", got %" PRIx64 "\n",
            a->error, b->error, a->cr2, b->cr2);
    fprintf(f,
            "#   flags %" PRIx64 ", got %" PRIx64 "; fs %" PRIx64 ", got %" PRIx64
            "; gs %" PRIx64 ", got %" PRIx64 "\n",
            a->rflags, b->rflags, a->fs_base, b->fs_base, a->gs_base, b->gs_base);
    for (unsigned n = 0; n < SEG_COUNT; n++)
        if (a->sel[n] != b->sel[n])
            fprintf(f, "#   selector %u: %x, got %x\n", n, a->sel[n], b->sel[n]);
    for (unsigned k = 0; k < FID_IMAGE; k += 8)
        if (memcmp(a->image + k, b->image + k, 8) && (k < 24 || k >= 32) &&
            (k < 416 || k >= 576)) {
            uint64_t x, y;

            memcpy(&x, a->image + k, 8);
            memcpy(&y, b->image + k, 8);
            fprintf(f, "#   image %x: %" PRIx64 ", got %" PRIx64 "\n", k, x, y);
        }
}

static void report_memory(FILE *f, const struct batch *batch, const uint8_t *got) {
    unsigned shown = 0;

    for (unsigned at = 0; at < FID_PAGES * 4096 && shown < 8; at++)
        if (batch->memory[at] != got[at] && ++shown)
            fprintf(f, "#   memory at %" PRIx64 ": %02x, got %02x\n",
                    fid_pages[at / 4096].at + at % 4096, batch->memory[at], got[at]);
}

/* The host's outcome of a case, now and before, but for what it does not define. */
static bool steady(const struct outcome *a, const struct outcome *b) {
    return a->end == b->end && a->vector == b->vector && a->rip == b->rip &&
           a->rflags == b->rflags && a->cr2 == b->cr2 && a->error == b->error &&
           !memcmp(a->gpr, b->gpr, sizeof(a->gpr)) && a->memory == b->memory &&
           !memcmp(a->sel, b->sel, sizeof(a->sel)) && a->fs_base == b->fs_base &&
           a->gs_base == b->gs_base && !memcmp(a->image, b->image, 416);
}

/* It does not differ when it is run by itself. */
static bool report_passing(FILE *f, struct bench *b, const struct program *p,
                           const struct outcome *host, const struct outcome *got,
                           unsigned state) {
    bool same = !host || steady(&fid_host_batch(b->host, 0)->outcome[0][state], host);

    fprintf(f, "case ?: differs only with what ran before it\n");
    if (!same)
        fprintf(f, "# the host's own outcome is another one now\n");
    if (host)
        report_fields(f, host, got);
    fid_text_write(f, p);
    return same;
}

bool fid_report(FILE *f, struct bench *b, struct program *p, const struct outcome *host,
                const struct outcome *got, unsigned state) {
    struct batch *batch = fid_host_batch(b->host, 0);
    const struct difference *d = fid_bench_run(b, p, -1);

    if (!d)
        return report_passing(f, b, p, host, got, state);
    if (host)
        fid_shrink(b, p);
    batch->keep_memory = true;
    d = fid_bench_run(b, p, -1);
    batch->keep_memory = false;
    if (!d)
        return report_passing(f, b, p, host, got, state);
    fprintf(f, "case %s%s%s: %s\n", b->options[d->guest] ? "bt" : "interp",
            b->options[d->guest] && *b->options[d->guest] ? " " : "",
            b->options[d->guest] ? b->options[d->guest] : "", d->why);
    if (!p->hidden && d->got_outcome)
        report_fields(f, &batch->outcome[0][d->state], &d->got);
    if (p->nstates == 1 && !p->hidden && d->got_outcome)
        report_memory(f, batch, d->memory);
    fid_text_write(f, p);
    return true;
}
