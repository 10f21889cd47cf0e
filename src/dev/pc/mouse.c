/*
 * The mouse; see mouse.h. Answers go before packets; a packet that was begun is sent to
 * its end unless the guest says something, which ends it.
 */
#include "dev/pc/mouse.h"

#define ACK 0xfau
#define RESEND 0xfeu
#define SELF_TEST 0xaau
#define RATE 100u
#define RESOLUTION 2u
#define MOVE_MAX 255 /* of a packet */
#define MOVES_MAX 30000

static void answer(struct mouse *m, uint8_t byte) {
    if (m->answer_count < sizeof(m->answers))
        m->answers[m->answer_count++] = byte;
}

static void forget(struct mouse *m) {
    m->first = m->count = 0;
    m->packet_at = m->packet_len = 0;
}

/* The stream mode, with nothing reported. */
static void defaults(struct mouse *m) {
    forget(m);
    m->rates[2] = RATE;
    m->resolution = RESOLUTION;
    m->reporting = m->remote = m->twice = false;
}

void mouse_reset(struct mouse *m) {
    uint8_t buttons = m->buttons;

    *m = (struct mouse){.buttons = buttons};
    defaults(m);
}

/* --- packets --- */

static int least(int v, int most) {
    return v > most ? most : v < -most ? -most : v;
}

/* What can be told of *LEFT in one packet, which is then gone. */
static int take_part(int16_t *left, int most) {
    int part = least(*left, most);

    *left = (int16_t)(*left - part);
    return part;
}

/* Byte 0 has the signs; upwards is positive for a mouse. */
static void make_packet(struct mouse *m, struct mouse_event *e) {
    int dx = take_part(&e->dx, MOVE_MAX), dy = -take_part(&e->dy, MOVE_MAX);
    int dz = take_part(&e->dz, m->id == 4 ? 7 : 127);

    m->packet[0] =
        (uint8_t)(0x08 | (e->buttons & 7) | (dx < 0 ? 0x10 : 0) | (dy < 0 ? 0x20 : 0));
    m->packet[1] = (uint8_t)dx;
    m->packet[2] = (uint8_t)dy;
    m->packet[3] = (uint8_t)dz;
    if (m->id == 4)
        m->packet[3] = (uint8_t)((dz & 0x0f) | (e->buttons & 0x18) << 1);
    if (!m->id)
        e->dz = 0;
    m->packet_at = 0;
    m->packet_len = m->id ? 4 : 3;
}

/* Of what waits, or of nothing. */
static void next_packet(struct mouse *m) {
    struct mouse_event nothing = {.buttons = m->buttons};
    struct mouse_event *e = m->count ? &m->events[m->first] : &nothing;

    make_packet(m, e);
    if (m->count && !e->dx && !e->dy && !e->dz) {
        m->first = (m->first + 1) % MOUSE_EVENTS;
        m->count--;
    }
}

void mouse_moved(struct mouse *m, const struct mouse_event *e) {
    struct mouse_event *last = &m->events[(m->first + m->count - 1) % MOUSE_EVENTS];
    uint8_t buttons = e->buttons & MOUSE_BUTTONS, changed = buttons ^ m->buttons;

    m->buttons = buttons;
    if (!m->reporting && !m->remote)
        return;
    if (!e->dx && !e->dy && !e->dz && !changed)
        return;
    if (!m->count || (changed && m->count < MOUSE_EVENTS)) {
        last = &m->events[(m->first + m->count++) % MOUSE_EVENTS];
        *last = (struct mouse_event){0};
    }
    last->dx = (int16_t)least(last->dx + e->dx, MOVES_MAX);
    last->dy = (int16_t)least(last->dy + e->dy, MOVES_MAX);
    last->dz = (int16_t)least(last->dz + e->dz, MOVES_MAX);
    last->buttons = buttons;
}

/* --- commands --- */

/* Who sets these rates one after the other knows of the wheel, and of five buttons. */
static void set_rate(struct mouse *m, uint8_t rate) {
    m->rates[0] = m->rates[1];
    m->rates[1] = m->rates[2];
    m->rates[2] = rate;
    if (m->rates[0] != 200 || rate != 80)
        return;
    if (m->rates[1] == 100 && m->id == 0)
        m->id = 3;
    else if (m->rates[1] == 200 && m->id)
        m->id = 4;
}

static void write_data(struct mouse *m, uint8_t command, uint8_t byte) {
    answer(m, ACK);
    if (command == 0xf3)
        set_rate(m, byte);
    else
        m->resolution = byte & 3;
}

static void tell_status(struct mouse *m) {
    unsigned b = m->buttons;

    answer(m, (uint8_t)((b & MOUSE_LEFT) << 2 | (b & MOUSE_RIGHT) >> 1 |
                        (b & MOUSE_MIDDLE) >> 1 | (m->twice ? 0x10 : 0) |
                        (m->reporting ? 0x20 : 0) | (m->remote ? 0x40 : 0)));
    answer(m, m->resolution);
    answer(m, m->rates[2]);
}

/* Modes and scaling; a change forgets what was not told. */
static void set_mode(struct mouse *m, uint8_t byte) {
    forget(m);
    if (byte == 0xe6 || byte == 0xe7)
        m->twice = byte == 0xe7;
    else if (byte == 0xee)
        m->wrap = true;
    else if (byte == 0xea || byte == 0xf0)
        m->remote = byte == 0xf0;
    else if (byte == 0xf4 || byte == 0xf5)
        m->reporting = byte == 0xf4;
    else
        defaults(m); /* 0xf6 */
}

static void write_command(struct mouse *m, uint8_t byte) {
    if (byte != RESEND)
        answer(m, ACK);
    switch (byte) {
    case 0xe6: /* scaling 1:1, 2:1; stream mode; wrap mode; remote mode; reporting on, */
    case 0xe7: /* off; defaults */
    case 0xea:
    case 0xee:
    case 0xf0:
    case 0xf4:
    case 0xf5:
    case 0xf6:
        set_mode(m, byte);
        break;
    case 0xe8: /* resolution; rate: a byte follows */
    case 0xf3:
        m->command = byte;
        break;
    case 0xe9:
        tell_status(m);
        break;
    case 0xeb: /* a packet, now */
        next_packet(m);
        break;
    case 0xec: /* out of the wrap mode, in which it is not */
        break;
    case 0xf2:
        answer(m, m->id);
        break;
    case RESEND:
        answer(m, m->last);
        break;
    case 0xff:
        mouse_reset(m);
        answer(m, ACK);
        answer(m, SELF_TEST);
        answer(m, 0);
        break;
    default:
        m->answer_count = 0;
        answer(m, RESEND);
        break;
    }
}

void mouse_write(struct mouse *m, uint8_t byte) {
    uint8_t command = m->command;

    m->answer_count = 0;
    m->packet_at = m->packet_len = 0;
    m->command = 0;
    if (m->wrap && byte != 0xec && byte != 0xff) {
        answer(m, byte);
        return;
    }
    m->wrap = false;
    if (command && byte < 0xe6)
        write_data(m, command, byte);
    else
        write_command(m, byte);
}

bool mouse_take(struct mouse *m, uint8_t *byte) {
    if (m->answer_count) {
        *byte = m->answers[0];
        for (unsigned n = 1; n < m->answer_count; n++)
            m->answers[n - 1] = m->answers[n];
        m->answer_count--;
    } else {
        if (m->packet_at == m->packet_len && m->count && m->reporting && !m->remote &&
            !m->command && !m->wrap)
            next_packet(m);
        if (m->packet_at == m->packet_len)
            return false;
        *byte = m->packet[m->packet_at++];
    }
    if (*byte != RESEND)
        m->last = *byte;
    return true;
}
