/* FNV-1a, by words. */
#include "guest.h"

static uint64_t digest = 0xcbf29ce484222325;

void digest_add(uint64_t v) {
    digest = (digest ^ v) * 0x100000001b3;
    digest ^= digest >> 29;
}

void digest_bytes(const void *at, size_t n) {
    for (const uint8_t *p = at; n--; p++)
        digest_add(*p);
}

void digest_print(void) {
    printf("DIGEST %x%08x\n", (uint32_t)(digest >> 32), (uint32_t)digest);
}
