/*
 * A triple fault by page faults alone: the IDT is not mapped, so that #UD becomes #PF,
 * that #DF, and that a shutdown. The runner wants status 3 after READY.
 * AMD64 APM volume 2, "#DF--Double-Fault Exception (Vector 8)".
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

void guest_main(void) {
    static struct space s;
    struct {
        uint16_t limit;
        ulong base;
    } __attribute__((packed)) r = {4095, 0x38000000};

    space_new(&s, BITS(SPACE_PAE, SPACE_LONG), RW);
    space_load(&s);
    printf("READY\n");
    __asm__ volatile("lidt %0" ::"m"(r));
    __asm__ volatile("ud2");
    check(false, "still running after a triple fault");
}
