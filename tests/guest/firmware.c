/*
 * What the machine tells of itself in the F segment against what it is: SMBIOS against
 * the CPU, the MP configuration table against the APICs.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

static uint32_t get(const uint8_t *p, unsigned len) {
    uint32_t v = 0;

    for (unsigned i = len; i--;)
        v = v << 8 | p[i];
    return v;
}

static bool same(const uint8_t *p, const char *text) {
    while (*text) {
        if (*p++ != (uint8_t)*text++)
            return false;
    }
    return true;
}

static unsigned sum(const uint8_t *p, unsigned len) {
    unsigned s = 0;

    while (len--)
        s += *p++;
    return s & 0xff;
}

static const uint8_t *find(const char *anchor) {
    for (uint32_t at = 0xf0000; at < 0x100000; at += 16) {
        if (same((const uint8_t *)(ulong)at, anchor))
            return (const uint8_t *)(ulong)at;
    }
    check(false, "no %s in the F segment", anchor);
    return NULL;
}

/* What hardware shows on the kvm engine may be more than our model has. */
static void identify(uint32_t leaf, uint32_t *eax, uint32_t *edx) {
    uint32_t ebx, ecx = 0;

    __asm__ volatile("cpuid" : "=a"(*eax), "=b"(ebx), "+c"(ecx), "=d"(*edx) : "a"(leaf));
}

static void smbios(void) {
    const uint8_t *e = find("_SM_"), *s;
    uint32_t eax, edx;
    unsigned seen = 0;

    if (!e)
        return;
    check_eq("entry point's sum", sum(e, e[5]), 0);
    check_eq("its second sum", sum(e + 0x10, 15), 0);
    s = (const uint8_t *)(ulong)get(e + 0x18, 4);
    for (unsigned n = get(e + 0x1c, 2); n; n--) {
        if (s[0] == 4) {
            identify(1, &eax, &edx);
            check_eq("signature", get(s + 8, 4), eax);
            check_eq("features", get(s + 12, 4) & edx, get(s + 12, 4));
        }
        if (s[0] == 17)
            check_eq("MiB", get(s + 12, 2), 64); /* the runner's */
        if (s[0] < 32)
            seen |= 1u << s[0];
        for (s += s[1]; s[0] || s[1]; s++)
            ;
        s += 2;
    }
    check_eq("types", seen, 1u << 0 | 1u << 1 | 1u << 3 | 1u << 4 | 3u << 16 | 1u << 19);
}

static void mp(void) {
    const uint8_t *p = find("_MP_"), *t, *e;
    volatile uint32_t *ioapic, *lapic;
    uint32_t eax, edx;

    if (!p)
        return;
    check_eq("pointer's sum", sum(p, 16), 0);
    t = (const uint8_t *)(ulong)get(p + 4, 4);
    check(same(t, "PCMP"), "the pointer leads nowhere");
    check_eq("table's sum", sum(t, get(t + 4, 2)), 0);
    lapic = (volatile uint32_t *)(ulong)get(t + 36, 4);
    e = t + 44;
    for (unsigned n = get(t + 34, 2); n; n--, e += e[0] ? 8 : 20) {
        if (e[0] == 0) {
            identify(1, &eax, &edx);
            check_eq("APIC ID", e[1], lapic[0x20 / 4] >> 24);
            check_eq("APIC version", e[2], lapic[0x30 / 4] & 0xff);
            check_eq("signature", get(e + 4, 4), eax);
            check_eq("features", get(e + 8, 4) & edx, get(e + 8, 4));
        } else if (e[0] == 2) {
            ioapic = (volatile uint32_t *)(ulong)get(e + 4, 4);
            ioapic[0] = 0;
            check_eq("I/O APIC ID", e[1], ioapic[4] >> 24);
            ioapic[0] = 1;
            check_eq("I/O APIC version", e[2], ioapic[4] & 0xff);
        }
    }
    check_eq("length", (ulong)(e - t), get(t + 4, 2));
}

void guest_main(void) {
    smbios();
    mp();
}
