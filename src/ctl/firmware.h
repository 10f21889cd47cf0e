/* Firmware files: where the distribution keeps them, and the user's file of variables. */
#ifndef CTL_FIRMWARE_H
#define CTL_FIRMWARE_H

#include "machine/machine.h"

/* The file that "bios" or "uefi" stands for, else NAME itself, or NULL with one sentence
 * in WHY. What is returned is NAME's or constant. */
const char *firmware_find(const char *name, char *why, size_t why_size);

/* The VGA's BIOS, which is the caller's to free; NULL: there is none, or no memory. */
uint8_t *firmware_vga_bios(uint32_t *size);
/* The ROM by which firmware boots from a network card, which is the caller's to free;
 * NULL with one sentence in WHY. */
uint8_t *firmware_net_rom(enum machine_net_model model, uint32_t *size, char *why,
                          size_t why_size);
/*
 * The variables of the firmware NAME: those of FILE, which is made if it is not there, of
 * the template that lies beside the firmware; or, if FILE is NULL, that template's, to be
 * forgotten, or none if there is no template. 0, or -errno with one sentence in WHY.
 */
int firmware_vars_open(const char *name, const char *file, struct machine_vars *out,
                       char *why, size_t why_size);
/* Makes them durable. False: that failed, and has been told. */
bool firmware_vars_close(struct machine_vars *vars);

#endif
