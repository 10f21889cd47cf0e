#include "lib/long.h"

#include "lib/need.h"
#include "lib/signals.h"
#include "x86/cr.h"

uint64_t long_device;

static int no_irq(void *arg) {
    return -1;
}

static void device_exit(void *arg, struct vcpu *vcpu, struct exit *e) {
    need(e->reason == EXIT_mmio, "an exit that is no device's");
    if (e->write)
        long_device = e->data;
    else
        e->data = long_device;
}

static const struct vcpu_hooks hooks = {.irq_ack = no_irq, .exit = device_exit};

int long_setup(void **state) {
    static const struct guest_config cfg = {
        .ram = RAM, .policy = MMU_PCID, .hooks = &hooks, .interp = true};

    guest_new(&G, &cfg);
    signals_remember();
    return 0;
}

int long_teardown(void **state) {
    guest_free(&G);
    return 0;
}

void long_use(const char *options) {
    struct bt_options opt = bt_defaults();
    char why[128];

    need(!bt_options_parse(&opt, options, why, sizeof(why)), options);
    opt.verify = true;
    signals_back();
    guest_use_bt(&G, &opt);
}

void long_start(void) {
    struct vcpu *v = G.v;

    for (unsigned n = 0; n < 32; n++) {
        guest_put64(&G, IDT + 16 * n, (HANDLER & 0xffff) | 8ull << 16 | 0x8e00ull << 32);
        guest_put64(&G, IDT + 16 * n + 8, 0);
    }
    guest_write(&G, HANDLER, "\xf4", 1);
    guest_put64(&G, GDT + 8, 0x00af9b000000ffff);
    guest_put64(&G, GDT + 16, 0x00cf93000000ffff);
    guest_put64(&G, PML4, PDPT | RWP);
    guest_put64(&G, PDPT, PD | RWP);
    guest_put64(&G, PD, PT | RWP);
    guest_put64(&G, PDPT + 8, 0x40000000 | RWP | X86_PTE_PS); /* nothing is there */
    for (unsigned k = 1; k < RAM >> 21; k++)
        guest_put64(&G, PD + 8 * k, (uint64_t)k << 21 | RWP | X86_PTE_PS);
    for (unsigned k = 0; k < 512; k++)
        guest_put64(&G, PT + 8 * k, k << 12 | RWP);
    guest_start_long(v, PML4, GDT, IDT);
    v->rip = CODE;
    v->gpr[REG_RSP] = STACK;
}
