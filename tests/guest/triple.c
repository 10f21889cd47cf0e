/* A triple fault ends the machine: the runner wants status 3 after READY. */
#include "guest.h"

const char guest_name[] = GUEST_NAME;

void guest_main(void) {
    printf("READY\n");
    idt_load(0);
    __asm__ volatile("ud2");
    check(false, "still running after a triple fault");
}
