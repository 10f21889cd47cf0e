/*
 * The local APIC by MSRs: each bit of APIC_BASE and each change between disabled, xAPIC
 * and x2APIC mode; each of the 256 MSRs, there or not, readable or not, writable or not;
 * each bit of each register. What is refused is #GP and changes nothing.
 *
 * Intel SDM volume 3, "Extended XAPIC (x2APIC)": "x2APIC Register Address Space",
 * "Reserved Bit Checking", "x2APIC States"; AMD64 APM volume 2, "x2APIC".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define BASE_BSP (1ull << 8)
#define BASE_X2APIC (1ull << 10)
#define BASE_ENABLE (1ull << 11)
#define FIRST X86_MSR_X2APIC_FIRST
#define READ 1
#define WRITE 2
#define HIGH (~0ull << 32)

static unsigned cases;

/* True: it went through. Anything but that or #GP(0) at the instruction fails. */
static bool access(uint32_t index, bool write, uint64_t value, uint64_t *got) {
    void *code = write ? CODE("wrmsr") : CODE("rdmsr");
    bool refused;

    regs_kernel();
    in.cx = index;
    in.ax = (uint32_t)value;
    in.dx = (uint32_t)(value >> 32);
    run(code);
    refused = trap.vector == X86_GP && trap.error == 0 && trap.r.ip == (ulong)code &&
              trap.r.ax == in.ax && trap.r.dx == in.dx;
    check(refused || trap.vector == DONE, "MSR 0x%x: vector %u error 0x%lx", index,
          trap.vector, trap.error);
    if (got)
        *got = (uint32_t)trap.r.ax | (uint64_t)trap.r.dx << 32;
    cases++;
    digest_add(trap.vector);
    return !refused;
}

/* --- APIC_BASE --- */

static void base_bits(void) {
    uint64_t old = rdmsr(X86_MSR_APIC_BASE), reserved;
    uint32_t r[4];

    cpuid(0x80000008, 0, r);
    reserved = ~0ull << (r[0] & 0xff) | 0x2ff; /* bit 8 is there but not to be changed */
    for (unsigned b = 0; b < 64; b++) {
        bool ok;

        if (1ull << b & (BASE_BSP | BASE_X2APIC | BASE_ENABLE))
            continue;
        ok = access(X86_MSR_APIC_BASE, true, old ^ 1ull << b, NULL);
        check(ok == !(reserved >> b & 1), "bit %u of APIC_BASE: %s", b,
              ok ? "taken" : "refused");
        check_eq("APIC_BASE", rdmsr(X86_MSR_APIC_BASE), ok ? old ^ 1ull << b : old);
        wrmsr(X86_MSR_APIC_BASE, old);
    }
}

enum state { DISABLED, INVALID, XAPIC, X2APIC, STATES };

/* Goes to a state by the way that is open from everywhere. */
static void state_set(enum state s) {
    uint64_t base = rdmsr(X86_MSR_APIC_BASE) & ~(BASE_ENABLE | BASE_X2APIC);

    wrmsr(X86_MSR_APIC_BASE, base);
    if (s != DISABLED)
        wrmsr(X86_MSR_APIC_BASE, base | BASE_ENABLE);
    if (s == X2APIC)
        wrmsr(X86_MSR_APIC_BASE, base | BASE_ENABLE | BASE_X2APIC);
}

static void transitions(void) {
    static const bool allowed[STATES][STATES] = {
        [DISABLED] = {[DISABLED] = true, [XAPIC] = true},
        [XAPIC] = {[DISABLED] = true, [XAPIC] = true, [X2APIC] = true},
        [X2APIC] = {[DISABLED] = true, [X2APIC] = true},
    };

    for (enum state from = 0; from < STATES; from++)
        for (enum state to = 0; to < STATES; to++) {
            uint64_t base, now;
            bool ok;

            if (from == INVALID)
                continue;
            state_set(from);
            now = rdmsr(X86_MSR_APIC_BASE);
            base = now & ~(BASE_ENABLE | BASE_X2APIC);
            base |= (to & 2 ? BASE_ENABLE : 0) | (to & 1 ? BASE_X2APIC : 0);
            ok = access(X86_MSR_APIC_BASE, true, base, NULL);
            check(ok == allowed[from][to], "from state %u to %u: %s", from, to,
                  ok ? "taken" : "refused");
            check_eq("APIC_BASE", rdmsr(X86_MSR_APIC_BASE), ok ? base : now);
            check(access(FIRST + 2, false, 0, NULL) ==
                      (ok ? to == X2APIC : from == X2APIC),
                  "the ID by MSR after %u to %u", from, to);
        }
    state_set(XAPIC);
}

/* --- registers --- */

/* What a register allows, and the bits that may not be written. */
static unsigned register_rights(unsigned r, uint64_t *reserved) {
    const uint64_t lvt = HIGH | 0xfffe0000; /* vector, mode, status, mask, pin's bits */

    *reserved = HIGH;
    switch (r) {
    case 0x02:          /* ID */
    case 0x03:          /* version */
    case 0x0a:          /* PPR */
    case 0x0d:          /* LDR */
    case 0x10 ... 0x27: /* ISR, TMR, IRR */
    case 0x39:          /* current count */
        return READ;
    case 0x08: /* TPR */
        *reserved = ~0xffull;
        return READ | WRITE;
    case 0x0b: /* EOI */
        *reserved = ~0ull;
        return WRITE;
    case 0x0f: /* spurious vector; focus checking and EOI suppression are options */
        *reserved = ~0x13ffull;
        return READ | WRITE;
    case 0x28: /* error status */
        *reserved = ~0ull;
        return READ | WRITE;
    case 0x30: /* ICR */
        *reserved = 0xfff33000 & ~0x1000ull;
        return READ | WRITE;
    case 0x32: /* timer */
        *reserved = HIGH | 0xfff8ef00;
        return READ | WRITE;
    case 0x33: /* thermal */
    case 0x34: /* performance */
        *reserved = lvt | 0xe800;
        return READ | WRITE;
    case 0x35: /* LINT0 */
    case 0x36: /* LINT1 */
        *reserved = lvt | 0x0800;
        return READ | WRITE;
    case 0x37: /* error */
        *reserved = lvt | 0xef00;
        return READ | WRITE;
    case 0x38: /* initial count */
        return READ | WRITE;
    case 0x3e: /* divide */
        *reserved = ~0xbull;
        return READ | WRITE;
    case 0x3f: /* self IPI */
        *reserved = ~0xffull;
        return WRITE;
    default:
        return 0;
    }
}

static void register_bits(unsigned r, unsigned rights, uint64_t reserved) {
    uint64_t old = rights & READ ? rdmsr(FIRST + r) : 0, got;

    for (unsigned b = 0; b < 64; b++) {
        bool bad = reserved >> b & 1, ok;

        /* These would be sent, counted or stopped. */
        if (!bad && (r == 0x30 || r == 0x38 || r == 0x3f))
            continue;
        /* Bits that a CPU may have or not. */
        if (!bad && r == 0x0f && (b == 9 || b == 12))
            continue;
        ok = access(FIRST + r, true, old ^ 1ull << b, NULL);
        check(ok == !bad, "bit %u of MSR 0x%x: %s", b, FIRST + r,
              ok ? "taken" : "refused");
        if (!(rights & READ))
            continue;
        access(FIRST + r, false, 0, &got);
        /* Status bits are read-only, and the ID's of a mode that is not there. */
        if (!ok || r == 0x08 || r == 0x3e)
            check_eq("register", got, ok ? old ^ 1ull << b : old);
        wrmsr(FIRST + r, old);
    }
}

static void registers(void) {
    bool cmci;

    state_set(XAPIC);
    for (unsigned r = 0; r < 256; r++)
        for (unsigned write = 0; write < 2; write++)
            check(!access(FIRST + r, write, 0, NULL), "MSR 0x%x in xAPIC mode",
                  FIRST + r);
    state_set(X2APIC);
    cmci = (rdmsr(FIRST + 3) >> 16 & 0xff) >= 6;
    for (unsigned r = 0; r < 256; r++) {
        uint64_t reserved;
        unsigned rights = register_rights(r, &reserved);
        bool ok;

        if (r == 0x2f && cmci)
            continue; /* or AMD's extended entries: an option */
        ok = access(FIRST + r, false, 0, NULL);
        check(ok == !!(rights & READ), "read of MSR 0x%x: %s", FIRST + r,
              ok ? "taken" : "refused");
        if (r == 0x30 || r == 0x3f)
            ok = rights & WRITE; /* a write of 0 is a message with a bad vector */
        else
            ok = access(FIRST + r, true, 0, NULL);
        check(ok == !!(rights & WRITE), "write of MSR 0x%x: %s", FIRST + r,
              ok ? "taken" : "refused");
        if (rights & WRITE)
            register_bits(r, rights, reserved);
    }
}

void guest_main(void) {
    if (!cpu_has(1, REG_ECX, 21)) {
        note("no x2APIC");
        return;
    }
    wrmsr(X86_MSR_APIC_BASE, rdmsr(X86_MSR_APIC_BASE) | BASE_ENABLE);
    base_bits();
    transitions();
    registers();
    state_set(XAPIC);
    printf("%u cases\n", cases);
    digest_print();
}
