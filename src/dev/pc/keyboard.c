/*
 * The keyboard; see keyboard.h. Answers go before keys that wait. A key sends all of its
 * bytes or none, so that a full queue cannot leave half of one behind.
 */
#include "dev/pc/keyboard.h"

#define ACK 0xfau
#define RESEND 0xfeu
#define SELF_TEST 0xaau
#define ECHO 0xeeu
#define RELEASE 0xf0u /* set 2: before the code of a key that goes up */
#define UP 0x80u      /* set 1: in it */
#define PREFIX 0xe0u
#define KEY_BYTES 8u

/* Codes of set 2 by those of set 1. */
static const uint8_t set2[0x80] = {
    0x00, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e,
    0x55, 0x66, 0x0d, 0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d,
    0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b, 0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b,
    0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a, 0x32, 0x31, 0x3a, 0x41,
    0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03, 0x0b,
    0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74,
    0x79, 0x69, 0x72, 0x7a, 0x70, 0x71, 0x7f, 0x60, 0x61, 0x78, 0x07, 0x0f, 0x17,
    0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x47, 0x4f, 0x56, 0x5e, 0x08, 0x10, 0x18, 0x20,
    0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x57, 0x6f, 0x13, 0x19, 0x39, 0x51, 0x53,
    0x5c, 0x5f, 0x62, 0x63, 0x64, 0x65, 0x67, 0x68, 0x6a, 0x6d, 0x6e,
};

uint8_t keyboard_translate(uint8_t code) {
    if (code == 0x84) /* SysRq has two */
        return 0x54;
    for (uint8_t i = 1; i < sizeof(set2); i++)
        if (set2[i] == code)
            return i;
    return code;
}

static void answer(struct keyboard *k, uint8_t byte) {
    if (k->answer_count < sizeof(k->answers))
        k->answers[k->answer_count++] = byte;
}

static void defaults(struct keyboard *k) {
    k->set = 2;
    k->first = k->count = 0;
    k->command = 0;
    k->leds = 0;
}

void keyboard_reset(struct keyboard *k) {
    *k = (struct keyboard){.scanning = true, .set = 2};
}

static void write_data(struct keyboard *k, uint8_t command, uint8_t byte) {
    answer(k, ACK);
    if (command == 0xed)
        k->leds = byte & 7;
    else if (command == 0xf0 && !byte)
        answer(k, k->set);
    else if (command == 0xf0 && byte <= 2)
        k->set = byte;
}

static void write_command(struct keyboard *k, uint8_t byte) {
    switch (byte) {
    case 0xed: /* lights; scan code set; typing rate: a byte follows */
    case 0xf0:
    case 0xf3:
        k->command = byte;
        answer(k, ACK);
        break;
    case ECHO:
        answer(k, ECHO);
        break;
    case 0xf2: /* identification */
        answer(k, ACK);
        answer(k, 0xab);
        answer(k, 0x83);
        break;
    case 0xf4:
        answer(k, ACK);
        k->scanning = true;
        break;
    case 0xf5: /* defaults, and no scanning; or scanning */
    case 0xf6:
        defaults(k);
        answer(k, ACK);
        k->scanning = byte == 0xf6;
        break;
    case RESEND:
        answer(k, k->last);
        break;
    case 0xff:
        keyboard_reset(k);
        answer(k, ACK);
        answer(k, SELF_TEST);
        break;
    default:
        answer(k, RESEND);
        break;
    }
}

void keyboard_write(struct keyboard *k, uint8_t byte) {
    uint8_t command = k->command;

    k->answer_count = 0; /* a new byte ends what was being answered */
    k->command = 0;
    if (command && byte < 0xed)
        write_data(k, command, byte);
    else
        write_command(k, byte);
}

bool keyboard_take(struct keyboard *k, uint8_t *byte) {
    if (k->answer_count) {
        *byte = k->answers[0];
        for (unsigned i = 1; i < k->answer_count; i++)
            k->answers[i - 1] = k->answers[i];
        k->answer_count--;
    } else if (k->count && k->scanning && !k->command) {
        *byte = k->queue[k->first];
        k->first = (k->first + 1) % KEYBOARD_QUEUE;
        k->count--;
    } else {
        return false;
    }
    if (*byte != RESEND)
        k->last = *byte;
    return true;
}

/* --- keys --- */

struct bytes {
    uint8_t b[KEY_BYTES];
    unsigned n;
};

static void add(const struct keyboard *k, struct bytes *out, unsigned code, bool extended,
                bool down) {
    if (extended)
        out->b[out->n++] = PREFIX;
    if (k->set == 1) {
        out->b[out->n++] = (uint8_t)(code | (down ? 0 : UP));
        return;
    }
    if (!down)
        out->b[out->n++] = RELEASE;
    out->b[out->n++] = set2[code];
}

/* Pause sends all at once, and nothing when it goes up. */
static void add_pause(const struct keyboard *k, struct bytes *out) {
    static const uint8_t one[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    static const uint8_t two[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
    const uint8_t *from = k->set == 1 ? one : two;

    for (out->n = 0; out->n < (k->set == 1 ? sizeof(one) : sizeof(two)); out->n++)
        out->b[out->n] = from[out->n];
}

bool keyboard_key(struct keyboard *k, unsigned key, bool down) {
    struct bytes out = {.n = 0};
    unsigned code = key & 0x7f;
    bool extended = key & KEYBOARD_EXTENDED;

    if (!code || key > 0xff)
        return false;
    if (!k->scanning)
        return true;
    if (key == KEYBOARD_PAUSE) {
        if (!down)
            return true;
        add_pause(k, &out);
    } else {
        if (key == KEYBOARD_PRINT && down) /* with a shift of its own around it */
            add(k, &out, 0x2a, true, true);
        add(k, &out, code, extended, down);
        if (key == KEYBOARD_PRINT && !down)
            add(k, &out, 0x2a, true, false);
    }
    if (out.n > KEYBOARD_QUEUE - k->count)
        return false;
    for (unsigned i = 0; i < out.n; i++)
        k->queue[(k->first + k->count++) % KEYBOARD_QUEUE] = out.b[i];
    return true;
}
