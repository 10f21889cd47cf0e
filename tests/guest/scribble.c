/*
 * Writes to `pages` pages, 50 if it is not said, far apart and one byte each, again and
 * again for some seconds, for who wants to know which pages those are (docs/svm.md,
 * "Dirty logging"): no more and no less.
 */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

#define FROM 0x800000ul
#define APART 0x3000ul
#define SECONDS 5u

static unsigned seconds(void) {
    outb(0x70, 0);
    return inb(0x71);
}

void guest_main(void) {
    unsigned pages = guest_option("pages", 50), was = seconds(), passed = 0, round = 0;

    printf("READY\n");
    while (passed < SECONDS) {
        unsigned now = seconds();

        passed += now != was;
        was = now;
        for (unsigned n = 0; n < pages; n++)
            *(volatile uint8_t *)(FROM + n * APART + n) = (uint8_t)round;
        round++;
    }
    check(round > SECONDS, "%u rounds", round);
    guest_exit();
}
