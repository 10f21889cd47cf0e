/*
 * ACPI fixed hardware: PM1a event and control, PM timer, GPE0, SMI command port.
 * ACPI Specification 6, "ACPI Hardware Specification", section "Fixed Hardware".
 */
#ifndef DEV_PM_H
#define DEV_PM_H

#include "bus/bus.h"
#include "bus/clock.h"
#include "bus/irq.h"
#include "dev/host.h"

#define PM_BASE 0x600 /* where the ports are, always */
#define PM_EVT 0x00   /* status, enable */
#define PM_CNT 0x04
#define PM_TMR 0x08
#define PM_GPE0 0x20 /* 2 bytes status, 2 bytes enable */
#define PM_GPE0_LEN 4
#define PM_SMB_BASE 0x700 /* of the SMBus controller, where there is one */
#define PM_EVT_PORT (PM_BASE + PM_EVT)
#define PM_CNT_PORT (PM_BASE + PM_CNT)
#define PM_TMR_PORT (PM_BASE + PM_TMR)
#define PM_GPE0_PORT (PM_BASE + PM_GPE0)
#define PM_GPE_GENERATION 5u /* the generation ID has changed (dev/pc/vmgenid.h) */
#define PM_SMI_PORT 0xb2
#define PM_ACPI_ENABLE 0xf1  /* value for the SMI port */
#define PM_ACPI_DISABLE 0xf0 /* the same */
#define PM_SCI_IRQ 9         /* level, active high */
#define PM_S5_TYPE 5         /* SLP_TYP for soft off */
#define PM_PIIX4_S5_TYPE 0   /* that too */
#define PM_TMR_HZ 3579545u

struct pm;
struct snapshot;

/* NULL when out of memory or of places on the bus. */
struct pm *pm_new(struct bus *bus, struct vclock *clock, struct irq_line sci,
                  const struct dev_host *host);
void pm_free(struct pm *p);
void pm_reset(struct pm *p);
/* Its ports, but the SMI command port, begin at BASE as well from now on, or nowhere
 * else: what tables say of PM_BASE holds always, wherever firmware wants them. */
void pm_place(struct pm *p, uint16_t base, bool on);

/* Somebody pressed the power button: the guest may shut down in an orderly way. */
void pm_power_button(struct pm *p);
/* General-purpose event N, below 16, has happened. */
void pm_event(struct pm *p, unsigned n);

/* Its record of a snapshot (snapshot/snapshot.h). Where its registers are besides is the
 * bridge's to say. */
void pm_state(struct pm *p, struct snapshot *s);

#endif
