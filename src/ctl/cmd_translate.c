/*
 * `bivisor translate`: what the translator makes of a piece of code.
 *
 * Builds the smallest VM that can hold it: RAM with the code and page tables that map it
 * where it wants to be, a vCPU in the right mode with flat segments, and the translator
 * itself. Nothing runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "bt/bt.h"
#include "cpu/cpuid.h"
#include "cpu/vec.h"
#include "ctl/ctl.h"
#include "ctl/elf_symbol.h"
#include "ctl/options.h"
#include "interp/interp.h"
#include "mem/mem.h"
#include "mmu/mmu.h"
#include "sem/sem.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/pte.h"

#define CODE_MAX (16u << 20)
#define FILE_MAX (2ull << 30)
#define TABLES 0x1000u /* the root; more follow up to CODE */
#define CODE 0x100000u /* where the code is in RAM, at the offset in its page */
#define DEFAULT_BASE 0x1000u

struct job {
    const char *path, *symbol;
    uint64_t base;
    bool base_given;
    int mode; /* enum cpu_mode, or -1 */
    struct bt_options bt;
    uint8_t *file;
    uint64_t file_size;
    struct elf_code code;
};

static void print_help(void) {
    const struct engine_option *o = bt_option_set.table;

    printf(
        "usage: bivisor translate [OPTION...] FILE\n"
        "\n"
        "Shows what the translator makes of guest code: the code, its IR, and the host\n"
        "code, for everything that direct branches reach from its first byte. Nothing "
        "is\n"
        "executed.\n"
        "\n"
        "FILE is a flat binary, or an ELF file of which --symbol names a function.\n"
        "\n"
        "  --mode 16|32|64      how the code is decoded (default: as an ELF file says, "
        "or 64)\n"
        "  --base ADDR          guest address of the first byte (default: the symbol's, "
        "or 0x1000)\n"
        "  --symbol NAME        a function of an ELF file\n"
        "  --bt OPTION,...      switches of the translator:\n");
    for (size_t i = 0; i < bt_option_set.count; i++) {
        char name[40];

        if (o[i].max)
            snprintf(name, sizeof(name), "%s=%u..%u", o[i].name, o[i].min, o[i].max);
        else
            snprintf(name, sizeof(name), "[no-]%s", o[i].name);
        printf("      %-15s %s\n", name, o[i].what);
    }
    printf("  --help               this text\n"
           "\n"
           "In the host code, * marks an entry point, > a place where a slow path or a "
           "callout\n"
           "comes back, = an exit, ! a callout. See docs/bt.md.\n"
           "\n"
           "example: bivisor translate --symbol main program\n");
}

enum { OPT_MODE = 256, OPT_BASE, OPT_SYMBOL, OPT_BT, OPT_HELP };

static const struct option long_options[] = {
    {"mode", required_argument, NULL, OPT_MODE},
    {"base", required_argument, NULL, OPT_BASE},
    {"symbol", required_argument, NULL, OPT_SYMBOL},
    {"bt", required_argument, NULL, OPT_BT},
    {"help", no_argument, NULL, OPT_HELP},
    {0},
};

static bool take_base(struct job *j, const char *text) {
    char *end;

    errno = 0;
    j->base = strtoull(text, &end, 0);
    j->base_given = true;
    if (errno || *end || end == text || strchr(text, '-')) {
        log_error("--base wants an address such as 0x401000, not '%s'", text);
        return false;
    }
    return true;
}

static bool take_bt(struct job *j, const char *text) {
    char why[256];
    int rc = bt_options_parse(&j->bt, text, why, sizeof(why));

    if (rc)
        log_error("--bt: %s", why);
    return !rc;
}

static bool take_option(struct job *j, int opt) {
    static const char *const modes[] = {"16", "32", "64"};
    size_t choice;

    switch (opt) {
    case OPT_MODE:
        if (!options_choice("--mode", optarg, modes, ARRAY_SIZE(modes), &choice))
            return false;
        j->mode = (int)choice;
        return true;
    case OPT_BASE:
        return take_base(j, optarg);
    case OPT_SYMBOL:
        j->symbol = optarg;
        return true;
    case OPT_BT:
        return take_bt(j, optarg);
    default:
        return false; /* getopt_long() has complained */
    }
}

/* -1 to go on, or the exit status. */
static int parse(struct job *j, int argc, char **argv) {
    int opt;

    *j = (struct job){.mode = -1, .bt = bt_defaults()};
    j->bt.tr.hot = 0; /* counting would be in the way of reading */
    argv[0] = (char *)"bivisor translate";
    while ((opt = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
        if (opt == OPT_HELP) {
            print_help();
            return CTL_OK;
        }
        if (!take_option(j, opt))
            return CTL_USAGE;
    }
    if (argc - optind != 1) {
        log_error(
            "name one FILE with the code; `bivisor translate --help` shows an example");
        return CTL_USAGE;
    }
    j->path = argv[optind];
    return -1;
}

/* --- the code --- */

static int read_all(struct job *j, int fd, uint64_t size) {
    j->file = malloc(size);
    if (!j->file)
        return -ENOMEM;
    while (j->file_size < size) {
        ssize_t n = read(fd, j->file + j->file_size, size - j->file_size);

        if (n < 0 && errno != EINTR)
            return -errno;
        if (!n)
            break; /* it shrank meanwhile */
        if (n > 0)
            j->file_size += (uint64_t)n;
    }
    return 0;
}

/* 0, or -errno after a message. */
static int read_file(struct job *j) {
    int fd = open(j->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    int rc = 0;

    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = -errno;
        log_error("cannot read %s: %s", j->path, strerror(-rc));
        if (fd >= 0)
            close(fd);
        return rc;
    }
    if (!S_ISREG(st.st_mode) || !st.st_size || (uint64_t)st.st_size > FILE_MAX) {
        log_error("%s is %s; name a file with x86 code", j->path,
                  !S_ISREG(st.st_mode) ? "not a regular file"
                  : st.st_size         ? "larger than 2 GiB"
                                       : "empty");
        close(fd);
        return -EINVAL;
    }
    rc = read_all(j, fd, (uint64_t)st.st_size);
    close(fd);
    if (rc)
        log_error("cannot read %s: %s", j->path, strerror(-rc));
    return rc;
}

/* The last address that code of MODE can have. */
static uint64_t last_address(enum cpu_mode mode) {
    return mode == MODE_64 ? UINT64_MAX : mode == MODE_32 ? UINT32_MAX : 0xfffff;
}

static bool check_place(const struct elf_code *c) {
    uint64_t last = c->va + c->size - 1;
    bool high = c->mode == MODE_64 && (int64_t)(c->va << 16) >> 16 != (int64_t)c->va;

    if (c->size > CODE_MAX) {
        log_error("%llu bytes of code are too much for a listing; %u MiB is the limit",
                  (unsigned long long)c->size, CODE_MAX >> 20);
        return false;
    }
    if (high || last < c->va || last > last_address(c->mode) ||
        (c->mode == MODE_64 && (int64_t)(last << 16) >> 16 != (int64_t)last)) {
        log_error("--base 0x%llx: %llu bytes of %d-bit code do not fit there",
                  (unsigned long long)c->va, (unsigned long long)c->size, 16 << c->mode);
        return false;
    }
    return true;
}

static bool find_code(struct job *j) {
    char why[256];

    if (j->symbol) {
        if (elf_symbol_find(j->file, j->file_size, j->symbol, &j->code, why,
                            sizeof(why))) {
            log_error("%s: %s", j->path, why);
            return false;
        }
    } else {
        if (elf_probe(j->file, j->file_size)) {
            log_error("%s is an ELF file; name a function with --symbol", j->path);
            return false;
        }
        j->code = (struct elf_code){
            .bytes = j->file, .size = j->file_size, .va = DEFAULT_BASE, .mode = MODE_64};
    }
    if (j->mode >= 0)
        j->code.mode = (enum cpu_mode)j->mode;
    if (j->base_given)
        j->code.va = j->base;
    return check_place(&j->code);
}

/* --- the VM --- */

struct small_vm {
    struct vcpu *v;
    struct counters counters;
    struct interp *interp;
    struct bt *bt;
    uint32_t next_table;
};

static void segments(struct vcpu *v, enum cpu_mode mode) {
    unsigned code = X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_WRITE | X86_AR_ACCESSED;
    unsigned data =
        X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_DB | X86_AR_G;

    code |= X86_AR_G | (mode == MODE_64 ? X86_AR_L : X86_AR_DB);
    for (unsigned s = 0; s < SEG_COUNT; s++)
        v->seg[s] = (struct segment){.sel = s == SEG_CS ? 8 : 16,
                                     .ar = (uint16_t)(s == SEG_CS ? code : data),
                                     .limit = UINT32_MAX};
}

/* Maps one page. Tables of 64-bit mode have four levels of 512 entries, those of plain
 * 32-bit paging two of 1024. AMD64 APM volume 2, "Page Translation and Protection". */
static void map_page(struct small_vm *vm, enum cpu_mode mode, uint64_t va, uint64_t at) {
    unsigned bits = mode == MODE_64 ? 9 : 10, size = mode == MODE_64 ? 8 : 4;
    uint32_t table = TABLES;

    for (unsigned level = mode == MODE_64 ? 3 : 1;; level--) {
        uint64_t index = va >> (12 + bits * level) & ((1u << bits) - 1), entry = 0;
        struct gpa slot = gpa(table + index * size);

        mem_read(vm->v->mem, slot, &entry, size);
        if (!level)
            entry = at | X86_PTE_P | X86_PTE_W | X86_PTE_A | X86_PTE_D;
        else if (!entry) {
            entry = vm->next_table | X86_PTE_P | X86_PTE_W | X86_PTE_A;
            vm->next_table += 4096;
        }
        mem_write(vm->v->mem, slot, &entry, size);
        if (!level)
            return;
        table = (uint32_t)entry & ~4095u;
    }
}

/* Behind the code comes int3, which ends what might run into it. */
static void place_code(struct small_vm *vm, const struct elf_code *c) {
    uint64_t first = c->va & ~4095ull;
    uint32_t pages = (uint32_t)((c->va - first + c->size + 4095) >> 12);

    if (c->mode == MODE_16) {
        mem_write(vm->v->mem, gpa(c->va), c->bytes, c->size);
        return;
    }
    mem_fill(mem_host(vm->v->mem, gpa(CODE), (uint64_t)pages << 12), 0xcc,
             (uint64_t)pages << 12);
    mem_write(vm->v->mem, gpa(CODE + (c->va & 4095)), c->bytes, c->size);
    vm->next_table = TABLES + 4096;
    for (uint32_t n = 0; n < pages; n++)
        map_page(vm, c->mode, first + ((uint64_t)n << 12), CODE + (n << 12));
}

static void set_mode(struct vcpu *v, const struct elf_code *c) {
    v->rip = c->va;
    v->tsc_host = true; /* as in a machine on most hosts */
    if (c->mode == MODE_16) {
        v->seg[SEG_CS] =
            (struct segment){.sel = 0, .ar = v->seg[SEG_CS].ar, .limit = 0xffff};
    } else {
        segments(v, c->mode);
        v->cr0 =
            X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_PG;
        v->cr3 = TABLES;
        v->cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
        v->xcr0 = vec_supported();
    }
    if (c->mode == MODE_64) {
        v->cr4 |= X86_CR4_PAE;
        v->efer = X86_EFER_LME | X86_EFER_LMA;
    }
    vcpu_update_mode(v);
    mmu_mode_changed(v);
    mmu_cr3_loaded(v, v->cr3);
    mmu_context_changed(v);
}

static int vm_create(struct small_vm *vm, const struct job *j) {
    struct cpuid_config cfg = {.model = "host", .tsc_hz = 1000000000};
    int rc;

    vec_init();
    rc = sem_init();
    vm->v = vcpu_new();
    if (!vm->v)
        return -ENOMEM;
    vm->v->cnt = &vm->counters;
    vm->v->cpuid = cpuid_model_new(&cfg);
    if (!rc)
        rc = vm->v->cpuid
                 ? mem_create((j->code.size + CODE + MEM_MIN_RAM) & ~4095ull, &vm->v->mem)
                 : -ENOMEM;
    if (!rc)
        rc = mmu_create(vm->v, MMU_FLUSH);
    if (rc)
        return rc;
    mmu_hook(vm->v);
    vcpu_reset(vm->v);
    vm->interp = interp_new(vm->v);
    return vm->interp ? bt_new(vm->v, vm->interp, &j->bt, &vm->bt) : -ENOMEM;
}

static void vm_destroy(struct small_vm *vm) {
    if (!vm->v)
        return;
    bt_free(vm->bt);
    interp_free(vm->interp);
    if (vm->v->mmu)
        mmu_destroy(vm->v);
    if (vm->v->mem)
        mem_destroy(vm->v->mem);
    cpuid_model_free((struct cpuid_model *)(uintptr_t)vm->v->cpuid);
    vcpu_free(vm->v);
}

static void put_line(void *arg, const char *text) {
    puts(text);
}

static int show(const struct job *j) {
    const struct bt_listing out = {.line = put_line};
    struct small_vm vm = {0};
    int rc = vm_create(&vm, j);

    if (!rc) {
        place_code(&vm, &j->code);
        set_mode(vm.v, &j->code);
        rc = bt_list(vm.bt, j->code.va, (uint32_t)j->code.size, &out);
    }
    if (rc)
        log_error("cannot translate: %s",
                  rc == -ENOSPC    ? "the translation cache is full"
                  : rc == -EBADMSG ? "the verifier does not accept what comes out"
                                   : strerror(-rc));
    vm_destroy(&vm);
    return rc ? CTL_HOST_FAILURE : CTL_OK;
}

int ctl_cmd_translate(int argc, char **argv) {
    struct job j;
    int status = parse(&j, argc, argv), rc;

    if (status >= 0)
        return status;
    rc = read_file(&j);
    if (rc)
        status = ctl_status_of(rc);
    else
        status = find_code(&j) ? show(&j) : CTL_USAGE;
    free(j.file);
    return status;
}
