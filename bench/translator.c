/*
 * What the translator takes for code that is not hot: host cycles for each guest
 * instruction, decoding included, and bytes of host code for each of the guest's. The
 * code is the .text section of an x86-64 ELF file, from its beginning to its end.
 */
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/counters.h"
#include "base/os.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "tr/key.h"
#include "tr/tr.h"
#include "x86/cr.h"

/* Where the cache would be, and as large as a working set is. */
#define ROOM (64u << 20)
#define ROUNDS 5

static struct vcpu *v;
static struct counters counters;
static const struct vcpu_hooks hooks;

static bool is_hot(void *arg, uint64_t va, const uint8_t *ram, uint32_t key) {
    return false;
}

static bool traps(void *arg, const struct insn *i, uint64_t va, const uint8_t *ram) {
    return false;
}

static struct insn *trapping(void *arg, struct tr_span *span, const struct insn *i,
                             uint64_t va, uint8_t *ram) {
    return NULL;
}

static bool no_group(void *arg, uint64_t va, const uint8_t *ram) {
    return false;
}

static bool division_faults(void *arg, uint64_t va) {
    return false;
}

static bool breaks(void *arg, const uint8_t *code) {
    return false;
}

static bool no_anchor(void *arg, uint64_t va, const uint8_t *ram) {
    return false;
}

static void reads(void *arg, uint8_t *page) {
}

static const struct tr_advice advice = {.reads = reads,
                                        .no_anchor = no_anchor,
                                        .breaks = breaks,
                                        .is_hot = is_hot,
                                        .traps = traps,
                                        .trapping = trapping,
                                        .no_group = no_group,
                                        .division_faults = division_faults};

/* CPL 3 in 64-bit mode, as far as the translator looks. */
static void long_mode(void) {
    vcpu_reset(v);
    v->cr0 = X86_CR0_PE | X86_CR0_ET;
    v->cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXSAVE;
    v->xcr0 = 7;
    v->efer = X86_EFER_LMA | X86_EFER_LME;
    for (unsigned n = 0; n < SEG_COUNT; n++)
        v->seg[n] = (struct segment){.sel = (uint16_t)(8 * n + 11),
                                     .ar = n == SEG_CS ? 0xa0fb : 0xc0f3,
                                     .limit = UINT32_MAX};
    v->cpl = 3;
    vcpu_update_mode(v);
    mmu_mode_changed(v);
}

static bool create(struct tr_env *env) {
    static const struct cpuid_config cfg = {.model = "host", .tsc_hz = 1000000000};
    uint8_t *stub;

    vec_init();
    v = vcpu_new();
    if (!v || sem_init())
        return false;
    v->cnt = &counters;
    v->hooks = &hooks;
    v->cpuid = cpuid_model_new(&cfg);
    if (mem_create(512u << 20, &v->mem) || mmu_create(v, MMU_FLUSH) ||
        os_code_map(ROOM + 4096, &env->code))
        return false;
    stub = env->code.rx + ROOM;
    env->v = v;
    env->opt = (struct tr_options){.anchors = true,
                                   .groups = true,
                                   .held = true,
                                   .liveness = true,
                                   .hot = 25000,
                                   .path = TR_PATH_MAX,
                                   .tu_limit = 32};
    env->poll_page = env->code.rx;
    env->advice = &advice;
    env->stub.slow = stub;
    env->stub.anchor[0] = env->stub.anchor[1] = stub + 16;
    env->stub.check = env->stub.check_shared = stub + 32;
    env->stub.callout = env->stub.transfer = stub + 48;
    env->stub.indirect = stub + 64;
    env->stub.link = env->stub.link_regs = stub + 80;
    env->stub.hot = stub + 96;
    long_mode();
    return true;
}

/* The section into RAM, from 1 MiB on; its size, 0: there is none. */
static uint64_t load(const char *name) {
    FILE *f = fopen(name, "rb");
    Elf64_Ehdr eh;
    Elf64_Shdr sh[128], *names;
    char text[16384], *bytes;
    uint64_t size = 0;

    if (!f || fread(&eh, sizeof(eh), 1, f) != 1 || memcmp(eh.e_ident, ELFMAG, SELFMAG) ||
        eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_shnum > 128 ||
        fseek(f, (long)eh.e_shoff, SEEK_SET) ||
        fread(sh, sizeof(*sh), eh.e_shnum, f) != eh.e_shnum ||
        eh.e_shstrndx >= eh.e_shnum)
        return 0;
    names = &sh[eh.e_shstrndx];
    if (names->sh_size > sizeof(text) || fseek(f, (long)names->sh_offset, SEEK_SET) ||
        fread(text, names->sh_size, 1, f) != 1)
        return 0;
    for (unsigned n = 0; n < eh.e_shnum && !size; n++) {
        if (sh[n].sh_name >= names->sh_size || strcmp(text + sh[n].sh_name, ".text"))
            continue;
        bytes = malloc(sh[n].sh_size);
        if (bytes && !fseek(f, (long)sh[n].sh_offset, SEEK_SET) &&
            fread(bytes, sh[n].sh_size, 1, f) == 1 &&
            mem_write(v->mem, gpa(1 << 20), bytes, sh[n].sh_size))
            size = sh[n].sh_size;
        free(bytes);
    }
    fclose(f);
    return size;
}

struct sum {
    uint64_t fragments, insns, guest, host, records, ticks;
};

static struct sum translate_all(const struct tr_env *env, struct tr *tr, uint64_t size,
                                uint8_t *records) {
    struct sum s = {0};
    uint64_t at = 1 << 20, end = at + size;
    uint8_t *code = env->code.rw, *rec = records;

    while (at < end) {
        struct tr_code c = {.va = at,
                            .page = mem_host(v->mem, gpa(at & ~4095ull), 4096),
                            .key = tr_key(v)};
        struct tr_span span;
        uint64_t start;

        if (code + 65536 > env->code.rw + ROOM)
            code = env->code.rw;
        if (rec + 65536 > records + ROOM)
            rec = records;
        span = (struct tr_span){.code = code,
                                .code_end = env->code.rw + ROOM,
                                .records = rec,
                                .records_end = records + ROOM};
        v->rip = at;
        start = __builtin_ia32_rdtsc();
        if (tr_translate(tr, &span, &c) != TR_MADE) {
            at++; /* data, or something across a page */
            continue;
        }
        s.ticks += __builtin_ia32_rdtsc() - start;
        s.fragments++;
        s.insns += tr_made(tr).n;
        s.guest += c.guest_len;
        s.host += (uint64_t)(span.code - code);
        s.records += (uint64_t)(span.records - rec);
        at += c.guest_len;
        code = (uint8_t *)(((uintptr_t)span.code + 15) & ~15ul);
        rec = span.records;
    }
    return s;
}

int main(int argc, char **argv) {
    struct tr_env env = {0};
    uint8_t *records = malloc(ROOM);
    struct tr *tr;

    if (argc != 2) {
        fprintf(stderr, "usage: bench/translator FILE, an x86-64 ELF file\n");
        return 2;
    }
    if (!records || !create(&env))
        return 1;
    tr = tr_new(&env);
    uint64_t size = load(argv[1]);
    if (!tr || !size) {
        fprintf(stderr, "%s: no .text section that fits\n", argv[1]);
        return 1;
    }
    printf("%-10s %12s %12s %14s %14s %16s\n", "fragments", "insns each", "cycles/insn",
           "cycles each", "host/guest", "records each");
    for (unsigned n = 0; n < ROUNDS; n++) {
        struct sum s = translate_all(&env, tr, size, records);

        if (!s.fragments)
            return 1;
        printf("%-10llu %12.2f %12.0f %14.0f %14.2f %16.0f\n",
               (unsigned long long)s.fragments, (double)s.insns / (double)s.fragments,
               (double)s.ticks / (double)s.insns, (double)s.ticks / (double)s.fragments,
               (double)s.host / (double)s.guest, (double)s.records / (double)s.fragments);
    }
    return 0;
}
