/*
 * 8042 keyboard controller. IBM PC AT Technical Reference, "Keyboard Controller"; the
 * PS/2 commands for the second port as later controllers have them.
 *
 * The first port is empty unless a keyboard is plugged in, the second unless a mouse is.
 * What is written to an empty one gets the controller's answer for a device that does not
 * respond: 0xfe (resend) with the status bits "timeout". So drivers that probe give up at
 * once instead of waiting.
 *
 * The output buffer holds one byte: `out`, from port 1 or (aux) port 2. The keyboard's
 * next byte comes when the buffer is free and its port is open, through the translation
 * to scan code set 1 where the command byte asks for it; the mouse's when the keyboard
 * has none.
 */
#include "dev/pc/kbc.h"

#include <stdlib.h>

#include "dev/pc/keyboard.h"
#include "dev/pc/mouse.h"
#include "snapshot/snapshot.h"

#define STATUS_OUT 0x01u
#define STATUS_SYSTEM 0x04u
#define STATUS_CMD 0x08u
#define STATUS_UNLOCKED 0x10u
#define STATUS_AUX 0x20u
#define STATUS_TIMEOUT 0x40u

#define CTR_IRQ1 0x01u
#define CTR_IRQ12 0x02u
#define CTR_SYSTEM 0x04u
#define CTR_KBD_OFF 0x10u
#define CTR_AUX_OFF 0x20u
#define CTR_XLATE 0x40u

#define OUTPORT_RESET 0x01u /* low: the CPU is held in reset */
#define OUTPORT_A20 0x02u

#define NO_DEVICE 0xfeu
#define KEY_RELEASE 0xf0u

struct kbc {
    struct irq_line irq[2];
    struct ports *ports;
    struct dev_host host;
    uint8_t ram[32]; /* [0] is the command byte (CTR) */
    uint8_t out;
    uint8_t out_status; /* STATUS_* that go with it */
    bool full;
    uint8_t command; /* waits for its data byte; 0: none */
    bool last_was_cmd;
    bool plugged;
    bool release; /* F0 came, which set 1 has in the next code */
    struct keyboard keyboard;
    bool has_mouse;
    struct mouse mouse;
};

static void update_irq(struct kbc *k) {
    bool aux = k->out_status & STATUS_AUX;

    irq_set(&k->irq[0], k->full && !aux && (k->ram[0] & CTR_IRQ1));
    irq_set(&k->irq[1], k->full && aux && (k->ram[0] & CTR_IRQ12));
}

static void answer(struct kbc *k, uint8_t byte, uint8_t status) {
    k->full = false; /* a byte that nobody took is lost, and its interrupt ends */
    update_irq(k);
    k->out = byte;
    k->out_status = status;
    k->full = true;
    update_irq(k);
}

/* The byte that the guest is to see, or false: that was a part of one. */
static bool translate(struct kbc *k, uint8_t *byte) {
    bool release = k->release;

    if (!(k->ram[0] & CTR_XLATE))
        return true;
    k->release = *byte == KEY_RELEASE;
    if (k->release)
        return false;
    *byte = keyboard_translate(*byte);
    if (release)
        *byte |= 0x80;
    return true;
}

/* What the keyboard and the mouse have for the guest, if there is room. */
static void pump(struct kbc *k) {
    uint8_t byte;

    while (k->plugged && !k->full && !(k->ram[0] & CTR_KBD_OFF) &&
           keyboard_take(&k->keyboard, &byte))
        if (translate(k, &byte))
            answer(k, byte, 0);
    if (k->has_mouse && !k->full && !(k->ram[0] & CTR_AUX_OFF) &&
        mouse_take(&k->mouse, &byte))
        answer(k, byte, STATUS_AUX);
}

static void pulse_reset(struct kbc *k) {
    if (k->host.reset)
        k->host.reset(k->host.arg);
}

static uint8_t output_port(const struct kbc *k) {
    /* Bits 4 and 5 follow the two interrupt lines; 6 and 7 are the idle keyboard lines.
     */
    uint8_t v = 0xc0 | OUTPORT_RESET;

    if (ports_a20(k->ports))
        v |= OUTPORT_A20;
    if (k->full)
        v |= k->out_status & STATUS_AUX ? 0x20 : 0x10;
    return v;
}

static void write_command(struct kbc *k, uint8_t cmd) {
    k->command = 0;
    switch (cmd) {
    case 0x20 ... 0x3f: /* read controller RAM */
        answer(k, k->ram[cmd & 0x1f], 0);
        break;
    case 0x60 ... 0x7f: /* write controller RAM */
    case 0xd1:          /* write output port */
    case 0xd2:          /* put into the output buffer, as from the keyboard */
    case 0xd3:          /* the same, as from the second port */
    case 0xd4:          /* to the device at the second port */
        k->command = cmd;
        break;
    case 0xa7:
        k->ram[0] |= CTR_AUX_OFF;
        break;
    case 0xa8:
        k->ram[0] &= (uint8_t)~CTR_AUX_OFF;
        break;
    case 0xa9: /* test of the second port: good */
    case 0xab: /* test of the first port: good */
        answer(k, 0x00, 0);
        break;
    case 0xaa: /* self-test: good */
        k->ram[0] |= CTR_SYSTEM;
        answer(k, 0x55, 0);
        break;
    case 0xad:
        k->ram[0] |= CTR_KBD_OFF;
        break;
    case 0xae:
        k->ram[0] &= (uint8_t)~CTR_KBD_OFF;
        break;
    case 0xc0: /* input port: not locked */
        answer(k, 0x80, 0);
        break;
    case 0xd0:
        answer(k, output_port(k), 0);
        break;
    case 0xdd:
        ports_a20_set(k->ports, false);
        break;
    case 0xdf:
        ports_a20_set(k->ports, true);
        break;
    case 0xf0 ... 0xff: /* pulse output lines that are 0 in the low bits */
        if (!(cmd & OUTPORT_RESET))
            pulse_reset(k);
        break;
    default:
        break;
    }
}

static void write_data(struct kbc *k, uint8_t value) {
    uint8_t cmd = k->command;

    k->command = 0;
    switch (cmd) {
    case 0x60:
        k->ram[0] = value & 0x7f;
        update_irq(k);
        break;
    case 0x61 ... 0x7f:
        k->ram[cmd & 0x1f] = value;
        break;
    case 0xd1:
        ports_a20_set(k->ports, value & OUTPORT_A20);
        if (!(value & OUTPORT_RESET))
            pulse_reset(k);
        break;
    case 0xd2:
        answer(k, value, 0);
        break;
    case 0xd3:
        answer(k, value, STATUS_AUX);
        break;
    case 0xd4:
        k->ram[0] &= (uint8_t)~CTR_AUX_OFF;
        if (k->has_mouse)
            mouse_write(&k->mouse, value);
        else
            answer(k, NO_DEVICE, STATUS_AUX | STATUS_TIMEOUT);
        break;
    default: /* to the keyboard, which opens its port */
        k->ram[0] &= (uint8_t)~CTR_KBD_OFF;
        if (k->plugged)
            keyboard_write(&k->keyboard, value);
        else
            answer(k, NO_DEVICE, STATUS_TIMEOUT);
        break;
    }
}

static uint64_t data_read(void *dev, uint64_t reg, unsigned size) {
    struct kbc *k = dev;
    uint8_t out = k->out; /* the last byte stays readable */

    k->full = false;
    update_irq(k);
    pump(k);
    return out;
}

static void data_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct kbc *k = dev;

    k->last_was_cmd = false;
    write_data(k, (uint8_t)value);
    pump(k);
}

static uint64_t status_read(void *dev, uint64_t reg, unsigned size) {
    struct kbc *k = dev;
    uint8_t v = STATUS_UNLOCKED;

    if (k->full)
        v |= STATUS_OUT | k->out_status;
    if (k->ram[0] & CTR_SYSTEM)
        v |= STATUS_SYSTEM;
    if (k->last_was_cmd)
        v |= STATUS_CMD;
    return v;
}

static void command_write(void *dev, uint64_t reg, unsigned size, uint64_t value) {
    struct kbc *k = dev;

    k->last_was_cmd = true;
    write_command(k, (uint8_t)value);
    pump(k);
}

static const struct bus_ops data_ops = {
    .read = data_read, .write = data_write, .width = 1};
static const struct bus_ops command_ops = {
    .read = status_read, .write = command_write, .width = 1};

void kbc_reset(struct kbc *k) {
    unsigned i;

    for (i = 0; i < sizeof(k->ram); i++)
        k->ram[i] = 0;
    /* As firmware leaves it when it found no devices. */
    k->ram[0] = CTR_SYSTEM | CTR_XLATE | CTR_KBD_OFF | CTR_AUX_OFF;
    k->full = k->last_was_cmd = false;
    k->command = 0;
    k->out = k->out_status = 0;
    k->release = false;
    keyboard_reset(&k->keyboard);
    mouse_reset(&k->mouse);
    update_irq(k);
}

static void keyboard_state(struct keyboard *k, struct snapshot *s) {
    snapshot_bytes(s, k->queue, sizeof(k->queue));
    SNAPSHOT_UPTO(s, k->first, KEYBOARD_QUEUE - 1);
    SNAPSHOT_UPTO(s, k->count, KEYBOARD_QUEUE);
    snapshot_bytes(s, k->answers, sizeof(k->answers));
    SNAPSHOT_UPTO(s, k->answer_count, sizeof(k->answers));
    SNAPSHOT(s, k->last);
    SNAPSHOT(s, k->command);
    SNAPSHOT_UPTO(s, k->set, 3);
    SNAPSHOT(s, k->leds);
    SNAPSHOT(s, k->scanning);
}

static void mouse_state(struct mouse *m, struct snapshot *s) {
    for (unsigned n = 0; n < MOUSE_EVENTS; n++) {
        SNAPSHOT(s, m->events[n].dx);
        SNAPSHOT(s, m->events[n].dy);
        SNAPSHOT(s, m->events[n].dz);
        SNAPSHOT_UPTO(s, m->events[n].buttons, MOUSE_BUTTONS);
    }
    SNAPSHOT_UPTO(s, m->first, MOUSE_EVENTS - 1);
    SNAPSHOT_UPTO(s, m->count, MOUSE_EVENTS);
    snapshot_bytes(s, m->answers, sizeof(m->answers));
    SNAPSHOT_UPTO(s, m->answer_count, sizeof(m->answers));
    snapshot_bytes(s, m->packet, sizeof(m->packet));
    SNAPSHOT_UPTO(s, m->packet_len, sizeof(m->packet));
    SNAPSHOT_UPTO(s, m->packet_at, m->packet_len);
    SNAPSHOT_UPTO(s, m->buttons, MOUSE_BUTTONS);
    SNAPSHOT(s, m->last);
    SNAPSHOT(s, m->command);
    snapshot_bytes(s, m->rates, sizeof(m->rates));
    SNAPSHOT_UPTO(s, m->id, 4);
    SNAPSHOT(s, m->resolution);
    SNAPSHOT(s, m->reporting);
    SNAPSHOT(s, m->remote);
    SNAPSHOT(s, m->wrap);
    SNAPSHOT(s, m->twice);
}

void kbc_state(struct kbc *k, struct snapshot *s) {
    snapshot_bytes(s, k->ram, sizeof(k->ram));
    SNAPSHOT(s, k->out);
    SNAPSHOT(s, k->out_status);
    SNAPSHOT(s, k->full);
    SNAPSHOT(s, k->command);
    SNAPSHOT(s, k->last_was_cmd);
    SNAPSHOT(s, k->plugged);
    SNAPSHOT(s, k->release);
    keyboard_state(&k->keyboard, s);
    SNAPSHOT(s, k->has_mouse);
    mouse_state(&k->mouse, s);
}

struct kbc *kbc_new(struct bus *bus, struct irq_line irq1, struct irq_line irq12,
                    struct ports *ports, const struct dev_host *host) {
    struct kbc *k = calloc(1, sizeof(*k));

    if (!k)
        return NULL;
    k->irq[0] = irq1;
    k->irq[1] = irq12;
    k->ports = ports;
    k->host = *host;
    if (!bus_attach_pio(bus, 0x60, 1, &data_ops, k, "8042 data") ||
        !bus_attach_pio(bus, 0x64, 1, &command_ops, k, "8042 command")) {
        free(k);
        return NULL;
    }
    kbc_reset(k);
    return k;
}

void kbc_plug_keyboard(struct kbc *k) {
    k->plugged = true;
}

void kbc_plug_mouse(struct kbc *k) {
    k->has_mouse = true;
}

void kbc_pointer(struct kbc *k, const struct mouse_event *e) {
    if (k->has_mouse)
        mouse_moved(&k->mouse, e);
    pump(k);
}

bool kbc_key(struct kbc *k, unsigned key, bool down) {
    bool taken = k->plugged && keyboard_key(&k->keyboard, key, down);

    pump(k);
    return taken;
}

void kbc_free(struct kbc *k) {
    free(k);
}
