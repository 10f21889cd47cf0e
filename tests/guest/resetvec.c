/*
 * What real mode finds at F000:FFF0 resets the machine (Linux's reboot=bios goes there).
 * The runner wants READY and status 0.
 */
#include "lib/realmode.h"

const char guest_name[] = GUEST_NAME;

void guest_main(void) {
    volatile uint8_t *rom = (volatile uint8_t *)0xffff0;
    uint8_t first = rom[0];

    real_init();
    rom[0] = (uint8_t)~first;
    check_eq("it is ROM", rom[0], first);
    check_eq("and the same as below 4 GiB", *(volatile uint8_t *)0xfffffff0, first);
    if (first != 0xea)
        return;
    printf("READY\n");
    regs_real();
    REAL(".byte 0xea\n.word 0xfff0, 0xf000");
    check(false, "still running after the reset vector: trap %u", trap.vector);
}
