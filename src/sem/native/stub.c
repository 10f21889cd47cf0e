/*
 * x87, MMX, SSE, AVX and AVX-512 by running the same instruction on the host.
 *
 * Each distinct re-encoded instruction (encode.c) has a stub in an arena that is
 * mapped twice, writable and executable. A stub is one slot of 64 bytes:
 *
 *   0..7   header: enum native_kind bits
 *   8..    light: insn; xor eax,eax; ret
 *          full:  load rax, rcx, rdx (and flags, if the instruction uses them) from
 *                 [rsi] (struct native_regs); insn; store them back; xor eax,eax; ret
 *
 * with the memory operand at [rdi]. Slot 0 is the fault exit, a bare `ret`: when the
 * host CPU faults in the arena, the signal handler puts 0x100 + vector in rax and goes on
 * there. Pushes and pops in a stub are balanced around the instruction, so the return
 * address is on top of the stack at any point that can fault. The instruction has changed
 * nothing then, and the guest gets the fault.
 *
 * A hash table of slot numbers finds a stub by its contents, so equal instructions share
 * one; vCPUs make them one at a time. When the arena is full a slot of the vCPU's own is
 * rewritten at each use and nothing points to it; earlier stubs stay valid for ever,
 * since decoded code keeps pointers to them.
 *
 * Invariants: popfq in a stub sees status flags only, never TF, AC or DF. No GPR of the
 * guest is live in the host here. Guest memory is touched only through a pointer that
 * came from mmu_hit() or a window. Windows keep the address modulo 64, so the host's
 * alignment checks are the guest's. The one exception is a masked load, which may run on
 * guard pages: whether it touches them is for the host's CPU to say (evex.c).
 *
 * The arena is a static: it is host code that belongs to no VM, and the signal handler
 * has no other way to it. docs/native.md has the rest.
 */
#include <errno.h>

#include "base/os.h"
#include "cpu/cpuid.h"
#include "cpu/smp.h"
#include "sem/native/native_int.h"

#define SLOT 64u
#define ARENA_SIZE (4u << 20)
#define SLOTS (ARENA_SIZE / SLOT)
#define SCRATCH (SLOTS - VCPU_GROUP_MAX) /* the first; one for each vCPU of a group */
#define HASH_SIZE (SLOTS * 2)
#define STUB_FAULT 0x100 /* + vector: what a stub returns after a host fault */

static struct {
    struct os_code code;
    uint8_t *guarded;       /* a page between guard pages */
    uint64_t fault_addr;    /* where a stub touched one */
    uint32_t used;          /* slots; 0: not set up */
    struct os_mutex making; /* who looks for a slot, or takes one */
    uint32_t hash[HASH_SIZE];
} arena;

/* --- host faults --- */

static bool on_guard(uint64_t addr) {
    return addr - (uint64_t)(uintptr_t)(arena.guarded - 4096) < 4 * 4096;
}

static bool on_fault(void *arg, struct os_fault *f) {
    switch (f->trapno) {
    case X86_PF:
        if (!on_guard(f->addr))
            return false;
        arena.fault_addr = f->addr;
        /* fallthrough */
    case X86_UD:
    case X86_GP:
    case X86_MF:
    case X86_XM:
        f->regs.gpr[REG_RAX] = STUB_FAULT + f->trapno;
        f->regs.rip = (uint64_t)(uintptr_t)arena.code.rx;
        return true;
    default:
        return false;
    }
}

int sem_init(void) {
    int rc;

    if (arena.used)
        return 0;
    if (!arena.guarded && (rc = os_guarded_page(&arena.guarded)))
        return rc;
    rc = os_code_map(ARENA_SIZE, &arena.code);
    if (rc)
        return rc;
    arena.code.rw[0] = 0xc3;
    os_code_seal(&arena.code); /* where there is such a thing */
    rc = os_fault_range(arena.code.rx, arena.code.rx + ARENA_SIZE, on_fault, NULL);
    if (rc) {
        os_code_unmap(&arena.code);
        return rc;
    }
    arena.used = 1;
    return 0;
}

uint8_t *native_guarded_page(void) {
    return arena.guarded;
}

int native_stub_fault(struct vcpu *v, int rc) {
    switch (rc - STUB_FAULT) {
    case X86_GP:
        return sem_fault_err(v, X86_GP, 0);
    case X86_MF:
        return sem_fault(v, X86_MF);
    case X86_XM:
        /* AMD64 APM volume 2, "SIMD Floating-Point Exception": #UD without OSXMMEXCPT */
        return sem_fault(v, v->cr4 & X86_CR4_OSXMMEXCPT ? X86_XM : X86_UD);
    default:
        return sem_fault(v, X86_UD);
    }
}

/* --- building stubs --- */

static unsigned put(uint8_t *slot, unsigned at, const void *bytes, unsigned len) {
    native_copy(slot + at, bytes, len);
    return at + len;
}

/* SLOT is 64 zero bytes. */
static void assemble(uint8_t *slot, uint32_t kind, const uint8_t *insn, unsigned len) {
    static const uint8_t load[] = {
        0x48, 0x8b, 0x06,       /* mov rax, [rsi] */
        0x48, 0x8b, 0x4e, 0x08, /* mov rcx, [rsi+8] */
        0x48, 0x8b, 0x56, 0x10, /* mov rdx, [rsi+16] */
    };
    static const uint8_t load_flags[] = {
        0xff, 0x76, 0x18, 0x9d, /* push qword [rsi+24]; popfq */
    };
    static const uint8_t store_flags[] = {
        0x9c, 0x8f, 0x46, 0x18, /* pushfq; pop qword [rsi+24] */
    };
    static const uint8_t store[] = {
        0x48, 0x89, 0x06,       /* mov [rsi], rax */
        0x48, 0x89, 0x4e, 0x08, /* mov [rsi+8], rcx */
        0x48, 0x89, 0x56, 0x10, /* mov [rsi+16], rdx */
    };
    static const uint8_t leave[] = {0x31, 0xc0, 0xc3}; /* xor eax, eax; ret */
    bool full =
        kind & (NATIVE_GPR_READ | NATIVE_GPR_WRITE | NATIVE_IMPLICIT | NATIVE_FLAGS);
    unsigned n = NATIVE_STUB_CODE;

    _Static_assert(NATIVE_STUB_CODE + sizeof(load) + sizeof(load_flags) +
                           NATIVE_CODE_MAX + sizeof(store_flags) + sizeof(store) +
                           sizeof(leave) <=
                       SLOT,
                   "a full stub fits a slot");
    __builtin_memcpy(slot, &kind, sizeof(kind));
    if (full)
        n = put(slot, n, load, sizeof(load));
    if (kind & NATIVE_FLAGS)
        n = put(slot, n, load_flags, sizeof(load_flags));
    n = put(slot, n, insn, len);
    if (kind & NATIVE_FLAGS)
        n = put(slot, n, store_flags, sizeof(store_flags));
    if (full)
        n = put(slot, n, store, sizeof(store));
    put(slot, n, leave, sizeof(leave));
}

static uint32_t hash_slot(const uint8_t *slot) {
    uint64_t h = 0, x;

    for (unsigned k = 0; k < SLOT; k += 8) {
        __builtin_memcpy(&x, slot + k, 8);
        h = (h ^ x) * 0x9e3779b97f4a7c15ull;
        h ^= h >> 29;
    }
    return (uint32_t)(h >> 32) & (HASH_SIZE - 1);
}

static bool same_slot(const uint8_t *a, const uint8_t *b) {
    uint64_t x, y;

    for (unsigned k = 0; k < SLOT; k += 8) {
        __builtin_memcpy(&x, a + k, 8);
        __builtin_memcpy(&y, b + k, 8);
        if (x != y)
            return false;
    }
    return true;
}

/* Code was written through another mapping: the CPU must not run what it prefetched.
 * AMD64 APM volume 2, "Cross-Modifying Code": execute a serializing instruction. */
static void serialize(void) {
    uint32_t a = 0, b, c = 0, d;

    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d) : : "memory");
}

/* The slot with these contents, which may be a new one. *KEEP: it stays for ever. */
static uint32_t slot_with(struct vcpu *v, const uint8_t *slot, bool *keep) {
    uint32_t h, n;

    *keep = true;
    for (h = hash_slot(slot); (n = arena.hash[h]); h = (h + 1) & (HASH_SIZE - 1))
        if (same_slot(arena.code.rw + n * SLOT, slot))
            return n;
    if (arena.used < SCRATCH) {
        n = arena.used++;
        arena.hash[h] = n;
        v->cnt->native_stubs++;
    } else {
        n = SCRATCH + (v->member ? v->member->index : 0);
        *keep = false;
    }
    os_code_open(arena.code.rw + n * SLOT, SLOT);
    __builtin_memcpy(arena.code.rw + n * SLOT, slot, SLOT);
    os_code_close(arena.code.rw + n * SLOT, SLOT);
    return n;
}

/* Finds or makes the stub. *KEEP: the address stays valid for ever. */
static native_stub *intern(struct vcpu *v, uint32_t kind, const uint8_t *insn,
                           unsigned len, bool *keep) {
    _Alignas(8) uint8_t slot[SLOT] = {0};
    uint32_t n;

    assemble(slot, kind, insn, len);
    if (!os_mutex_try(&arena.making))
        os_mutex_wait(&arena.making);
    n = slot_with(v, slot, keep);
    if (os_mutex_give(&arena.making))
        os_mutex_wake(&arena.making);
    serialize(); /* another may have written it just now */
    return (native_stub *)(arena.code.rx + n * SLOT + NATIVE_STUB_CODE);
}

/* VZEROUPPER and VZEROALL outside 64-bit mode leave registers 8 to 15 alone (Intel SDM
 * volume 2, their pages), and stubs run in 64-bit mode: one instruction for each of the
 * others. */
#define ZERO_LOW_LEN 32u
static unsigned zero_low(bool all, uint8_t *code) {
    for (unsigned r = 0; r < 8; r++) {
        uint8_t *b = code + 4 * r;

        b[0] = 0xc5;
        b[1] = (uint8_t)(all ? 0xf8 - 8 * r : 0xf8); /* vvvv, inverted */
        b[2] = all ? 0x57 : 0x28;                    /* vxorps, vmovaps */
        b[3] = (uint8_t)(0xc0 | r << 3 | r);
    }
    return ZERO_LOW_LEN;
}

native_stub *native_make_stub(struct vcpu *v, const struct insn *i) {
    struct encoding f;
    uint8_t code[NATIVE_CODE_MAX > ZERO_LOW_LEN ? NATIVE_CODE_MAX : ZERO_LOW_LEN];
    native_stub *stub;
    unsigned len;
    bool keep;

    if (!native_parse(i, &f))
        return NULL;
    if (i->mode != MODE_64 && f.vex && f.map == 1 && f.opcode == 0x77)
        len = zero_low(f.l, code);
    else
        len = native_encode(&f, i->mode, code);
    stub = intern(v, native_classify(&f), code, len, &keep);
    if (keep) /* the decoded instruction's own cache of the lookup */
        ((struct insn *)i)->native = (void *)stub;
    return stub;
}

int native_run_bytes(struct vcpu *v, const uint8_t *code, unsigned len) {
    bool keep;
    native_stub *stub = intern(v, 0, code, len, &keep);
    int rc;

    vec_load(v);
    rc = stub(NULL, NULL);
    return rc ? native_stub_fault(v, rc) : 0;
}

/* What the instruction's stub returns for P; for bytes that we do not run, #UD. */
static int run_stub(struct vcpu *v, const struct insn *i, void *p) {
    native_stub *stub = native_stub_of(v, i);

    if (!stub)
        return STUB_FAULT + X86_UD;
    vec_load(v);
    return stub(p, NULL);
}

int native_run_at(struct vcpu *v, const struct insn *i, void *p) {
    int rc = run_stub(v, i, p);

    return rc ? native_stub_fault(v, rc) : 0;
}

int native_run_guarded(struct vcpu *v, const struct insn *i, void *p, uint64_t *addr) {
    int rc = run_stub(v, i, p);

    if (rc == STUB_FAULT + X86_PF) {
        *addr = arena.fault_addr;
        return NATIVE_TOUCHED;
    }
    if (rc)
        return native_stub_fault(v, rc);
    v->cnt->native_runs++;
    return 0;
}
