/*
 * A flash chip that firmware keeps its variables in: byte-wide, with the command set that
 * JEDEC publishes as 0001 ("Intel/Sharp Extended"), in blocks of 4 KiB. Intel "Common
 * Flash Interface (CFI) and Command Sets", AP-646; as far as firmware for virtual
 * machines uses it.
 *
 * All of it is MMIO. Bytes change at once, first the device's own, then, in the order of
 * the guest's writes, the host's.
 */
#ifndef DEV_FLASH_H
#define DEV_FLASH_H

#include "bus/bus.h"

#define FLASH_BLOCK 0x1000u
#define FLASH_MAX 0x1000000u

struct flash;
struct snapshot;

struct flash_host {
    /* LEN bytes at AT are these now. */
    void (*store)(void *arg, uint32_t at, const uint8_t *bytes, uint32_t len);
    /* The guest reads again: it is done with a change, which should be made durable. */
    void (*settle)(void *arg);
    void *arg;
};

/* SIZE bytes, whole blocks, at START: a copy of BYTES. HOST's functions may be NULL. NULL
 * when out of memory or of places on the bus. */
struct flash *flash_new(struct bus *bus, struct gpa start, const uint8_t *bytes,
                        uint32_t size, const struct flash_host *host);
void flash_free(struct flash *f);
/* Reads its bytes again. What is in it stays. */
void flash_reset(struct flash *f);

/* Its record of a snapshot (snapshot/snapshot.h). */
void flash_state(struct flash *f, struct snapshot *s);

#endif
