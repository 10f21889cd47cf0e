/*
 * A guest that means harm: random bytes as code, descriptor tables, page tables and task
 * state, in every mode, under every retention policy. Nothing is expected of the guest;
 * of the VMM, that it neither crashes nor touches what is not the guest's (the sanitizers
 * see to that in a sanitizer build), that its own invariants hold, and that each run is
 * repeatable.
 *
 * With arguments: SEED COUNT runs other guests than the standing ones.
 */
#include <stdio.h>

#include "cpu/state.h"
#include "cpu/vec.h"
#include "lib/guest.h"
#include "lib/rnd.h"
#include "lib/unit.h"
#include "sem/sem.h"
#include "x86/cr.h"
#include "x86/desc.h"
#include "x86/pte.h"

enum { RAM = 4 << 20, USED = 1 << 20, STEPS = 300 };

/* --- making guests --- */

/* Encodings that random bytes rarely make: what leads somewhere else. */
static const char *const bits[] = {
    "\x0f\x22\xc0",
    "\x0f\x22\xd8",
    "\x0f\x22\xe0",
    "\x0f\x23\xf8",
    "\x0f\x01\x10",
    "\x0f\x01\x18",
    "\x0f\x00\xd8",
    "\x0f\x00\xd0",
    "\x8e\xd0",
    "\x8e\xd8",
    "\x8e\xe0",
    "\xcf",
    "\x48\xcf",
    "\xcb",
    "\xca\x08\x10",
    "\x0f\x05",
    "\x0f\x07",
    "\x0f\x34",
    "\x0f\x35",
    "\xcd\x30",
    "\xcc",
    "\xf1",
    "\xff\x18",
    "\xff\x28",
    "\xf3\xa4",
    "\xf3\xab",
    "\xf3\x6c",
    "\xf3\xa6",
    "\x0f\x30",
    "\x0f\x32",
    "\x9d",
    "\xfb",
    "\x0f\x01\x3b",
    "\x66\x0f\x38\x82\x03",
    "\x0f\xae\x03",
    "\x0f\xae\x0b",
    "\x0f\xae\x23",
    "\x0f\xae\x2b",
    "\xc8\x10\x00\x1f",
    "\x62\x03",
    "\x48\x0f\xc7\x0e",
    "\x0f\x01\xf8",
    "\xc5\x03",
    "\x0f\xb2\x23",
    "\xdd\x33",
    "\xd9\x23",
    "\x0f\xc7\x23",
    "\x0f\x01\xd1",
};

static void random_code(uint8_t *p, unsigned len) {
    for (unsigned k = 0; k < len;) {
        const char *b = bits[rnd() % ARRAY_SIZE(bits)];
        unsigned n = (unsigned)strlen(b);
        if (one_in(3) && k + n <= len) {
            memcpy(p + k, b, n);
            k += n;
        } else {
            p[k++] = (uint8_t)rnd();
        }
    }
}

/* A descriptor that is likely to be present and to have an ordinary type. */
static uint64_t random_desc(void) {
    uint64_t d = rnd();
    if (one_in(4))
        return d;
    d = (d & ~(0xffull << 40)) | (0x80 | (rnd() & 0x7f)) << 40;
    if (one_in(2)) /* low base, wide limit */
        d = (d & 0x0000ff00000fffffull) | 0x00c000000000ffffull | (rnd() & 3) << 53;
    return d;
}

static uint64_t random_pte(void) {
    uint64_t e = rnd() % (USED >> 12) << 12 | (rnd() & 0x1ff) | X86_PTE_P;
    if (one_in(8))
        e = rnd();
    return one_in(16) ? e & ~(uint64_t)X86_PTE_P : e;
}

static uint64_t random_address(void) {
    switch (rnd() % 6) {
    case 0:
        return rnd();
    case 1:
        return (rnd() & 0xfffff000) - rnd() % 16;
    case 2:
        return 0x7fffffffffff - rnd() % 32;
    default:
        return rnd() % USED;
    }
}

static void random_memory(struct guest *g) {
    uint64_t *q = (uint64_t *)(void *)g->ram;
    memset(g->ram, 0, USED);
    random_code(g->ram + 0x8000, 0x4000);
    for (unsigned k = 0x1000 / 8; k < 0x4000 / 8; k++)
        q[k] = random_desc();
    for (unsigned k = 0x4000 / 8; k < 0x8000 / 8; k++)
        q[k] = one_in(2) ? random_address() : rnd();
    for (unsigned k = 0x10000 / 8; k < 0x18000 / 8; k++)
        q[k] = random_pte();
    if (one_in(2)) /* the first entries lead somewhere: identity for 2 or 4 MiB */
        for (unsigned t = 0; t < 3; t++)
            q[(0x10000 + t * 0x1000) / 8] =
                (t == 2 ? X86_PTE_PS : 0x11000u + t * 0x1000) | 7;
}

static void random_state(struct guest *g) {
    struct vcpu *v = g->v;
    static const uint16_t code_ars[] = {0xc09b, 0x009b, 0xa09b, 0xc0fb, 0xa0fb, 0x409f};
    static const uint16_t data_ars[] = {0xc093, 0x0093, 0x4097, 0xc0f3, 0x00f3, 0};
    vcpu_reset(v);
    for (unsigned k = 0; k < 16; k++)
        v->gpr[k] = random_address();
    v->cr4 = rnd() & cpuid_cr4_valid(v->cpuid) & ~(uint64_t)X86_CR4_PCIDE;
    v->cr3 = 0x10000 + (rnd() & 7) * 0x1000;
    if (!one_in(4))
        v->cr0 = X86_CR0_ET | X86_CR0_PE | (rnd() & (X86_CR0_WP | X86_CR0_AM));
    if ((v->cr0 & X86_CR0_PE) && one_in(2))
        v->cr0 |= X86_CR0_PG;
    v->efer = rnd() & (X86_EFER_SCE | X86_EFER_NXE);
    if ((v->cr0 & X86_CR0_PG) && one_in(2)) {
        v->cr4 |= X86_CR4_PAE;
        v->efer |= X86_EFER_LME | X86_EFER_LMA;
    }
    v->rflags = X86_FL_ONE | (rnd() & 0x3f7fd5 & ~(uint64_t)X86_FL_VM);
    bool pe = v->cr0 & X86_CR0_PE, lma = v->efer & X86_EFER_LMA;
    if (pe && !lma && one_in(4))
        v->rflags |= X86_FL_VM;
    for (unsigned s = 0; s < SEG_COUNT; s++) {
        uint16_t ar = s == SEG_CS ? code_ars[rnd() % ARRAY_SIZE(code_ars)]
                                  : data_ars[rnd() % ARRAY_SIZE(data_ars)];
        if (!lma)
            ar &= (uint16_t)~X86_AR_L;
        v->seg[s] = (struct segment){.sel = (uint16_t)rnd(),
                                     .ar = ar,
                                     .limit = one_in(3) ? (uint32_t)rnd() : 0xffffffff,
                                     .base = one_in(3) ? rnd() % USED : 0};
        if (!pe || (v->rflags & X86_FL_VM))
            v->seg[s].limit = 0xffff;
    }
    v->cpl = !pe ? 0
             : v->rflags & X86_FL_VM
                 ? 3
                 : (v->seg[SEG_CS].ar & X86_AR_DPL) >> X86_AR_DPL_SHIFT;
    v->gdtr = (struct desc_table){0x1000, (uint16_t)(one_in(4) ? rnd() : 0x0fff)};
    v->idtr = (struct desc_table){0x2000, (uint16_t)(one_in(4) ? rnd() : 0x0fff)};
    v->ldtr = (struct segment){.ar = 0x82, .limit = 0xfff, .base = 0x3000};
    v->tr = (struct segment){.sel = 0x28,
                             .ar = one_in(3) ? 0x83 : 0x8b,
                             .limit = (uint32_t)(one_in(4) ? rnd() : 0x2000),
                             .base = 0x4000};
    v->star = rnd();
    v->lstar = v->cstar = v->sysenter_eip = 0x8000 + rnd() % 0x4000;
    v->sysenter_cs = rnd() & 0xff;
    v->sfmask = rnd();
    if (one_in(4))
        v->dr[7] |= rnd() & 0xffff23ff;
    for (unsigned k = 0; k < 4; k++)
        v->dr[k] = random_address();
    if (one_in(2))
        v->xcr0 = cpuid_xcr0_valid(v->cpuid);
    v->rip = 0x8000 + rnd() % 0x4000 - v->seg[SEG_CS].base;
    if (!(v->cr0 & X86_CR0_PE) || !(v->seg[SEG_CS].ar & X86_AR_L))
        v->rip = (uint32_t)v->rip;
    vcpu_update_mode(v);
    if ((v->cr0 & X86_CR0_PG) && (v->cr4 & X86_CR4_PAE) && !lma)
        mmu_load_pdptrs(v, v->cr3);
    mmu_flush_all(v);
    mmu_breakpoints_changed(v);
}

static uint64_t digest(const struct guest *g) {
    uint64_t h = 0, x;
    for (unsigned k = 0; k < USED; k += 8) {
        memcpy(&x, g->ram + k, 8);
        h = (h ^ x) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
    }
    return vcpu_digest(h, g->v) ^ g->cnt.insns_retired << 32;
}

/* One guest, from its seed. */
static uint64_t one_guest(struct guest *g, uint64_t seed) {
    enum exit_reason why = EXIT_kick;
    rnd_seed(seed * 2654435761u + 1);
    for (unsigned k = 0; k < 8; k++)
        rnd();
    memset(&g->cnt, 0, sizeof(g->cnt));
    guest_reset(g);
    random_memory(g);
    random_state(g);
    for (unsigned k = 0; k < 4 && why == EXIT_kick; k++) {
        why = interp_step(g->ip, STEPS / 4);
        guest_check(g);
        vcpu_raise(g->v, k & 1 ? VCPU_EVENT_NMI : VCPU_EVENT_IRQ);
    }
    return digest(g);
}

static struct guest guests[2];
static uint64_t first_seed = 1, count = 400;

static void test_guests(void **state) {
    assert_int_equal(sem_init(), 0); /* here: cmocka puts its own handlers in before */
    for (uint64_t k = 0; k < count; k++) {
        uint64_t a = one_guest(&guests[0], first_seed + k);
        uint64_t b = one_guest(&guests[0], first_seed + k);
        if (a != b)
            fail_msg("guest %llu is not repeatable",
                     (unsigned long long)(first_seed + k));
        one_guest(&guests[1], first_seed + k);
    }
}

static int setup(void **state) {
    struct guest_config cfg = {.ram = RAM,
                               .cpuid = {.model = "host", .paravirt = true},
                               .hooks = &guest_fickle_hooks,
                               .interp = true};

    for (unsigned k = 0; k < 2; k++) {
        cfg.policy = k ? MMU_TRACE : MMU_PCID;
        guest_new(&guests[k], &cfg);
    }
    return 0;
}

static int teardown(void **state) {
    guest_free(&guests[0]);
    guest_free(&guests[1]);
    return 0;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_guests)};
    if (argc > 2) {
        first_seed = strtoull(argv[1], NULL, 0);
        count = strtoull(argv[2], NULL, 0);
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
