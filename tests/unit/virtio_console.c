/* The console by itself: ports, control messages, input and output that has to wait.
 * VIRTIO 1.2, "Console Device". */
#include "dev/virtio/console.h"

#include "lib/rig.h"
#include "lib/unit.h"
#include "lib/vdrv.h"

enum { IN0, OUT0, CONTROL_IN, CONTROL_OUT, IN1, OUT1 };
enum { READY, ADD, REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, OPEN, NAME };
#define F_SIZE 1u
#define F_MULTIPORT 2u
#define ALL (VIRTIO_F_ALWAYS | F_SIZE | F_MULTIPORT | 4)
#define MESSAGES (VDRV_DATA + 0x10000)
#define TEXT (VDRV_DATA + 0x20000)

static struct rig r;
static struct vdrv v;
static struct virtio_console *c;
static char out[2][256];
static size_t room[2];
static unsigned rooms[2];

static size_t take(void *arg, unsigned port, const uint8_t *bytes, size_t len) {
    size_t n = len < room[port] ? len : room[port];

    strncat(out[port], (const char *)bytes, n);
    room[port] -= n;
    return n;
}

static void on_room(void *arg, unsigned port) {
    rooms[port]++;
}

static int setup(void **state) {
    static const struct virtio_console_port ports[] = {
        {.console = false}, {.name = "org.example.1"}, {.console = true}};
    const struct virtio_console_host host = {.write = take, .room = on_room};

    vdrv_new(&v);
    rig_new(&r);
    memset(out, 0, sizeof(out));
    memset(rooms, 0, sizeof(rooms));
    room[0] = room[1] = 200;
    c = virtio_console_new(v.mem, r.clock, ports, 3, &host, &r.cnt);
    v.d = virtio_console_device(c);
    return 0;
}

static int teardown(void **state) {
    virtio_console_free(c);
    rig_free(&r);
    vdrv_free(&v);
    return 0;
}

/* --- control --- */

static unsigned listening; /* buffers for control messages that were made available */

static void listen(unsigned count) {
    for (unsigned n = 0; n < count; n++) {
        struct vdrv_piece p = {MESSAGES + 64 * (listening++ % 64), 64, VDRV_WRITE};

        vdrv_send(&v, CONTROL_IN, &p, 1);
    }
}

static void tell(uint32_t id, unsigned event, unsigned value) {
    struct vdrv_piece p = {VDRV_DATA, 8, 0};

    vdrv_put(&v, VDRV_DATA, 4, id);
    vdrv_put(&v, VDRV_DATA + 4, 2, event);
    vdrv_put(&v, VDRV_DATA + 6, 2, value);
    vdrv_send(&v, CONTROL_OUT, &p, 1);
    assert_int_not_equal(vdrv_take(&v, CONTROL_OUT, NULL), -1);
}

/* The next message is this one; where its payload is, and how long. */
static uint64_t heard(uint32_t id, unsigned event, unsigned value, uint32_t *rest) {
    int head = vdrv_take(&v, CONTROL_IN, rest);
    uint64_t at = MESSAGES + 64 * (uint64_t)(head % 64);

    assert_int_not_equal(head, -1);
    assert_int_equal(vdrv_get(&v, at, 4), id);
    assert_int_equal(vdrv_get(&v, at + 4, 2), event);
    assert_int_equal(vdrv_get(&v, at + 6, 2), value);
    *rest -= 8;
    return at + 8;
}

static void start(void) {
    vdrv_start(&v, ALL);
    listening = 0;
}

static void test_control(void **state) {
    char name[64] = {0};
    uint32_t rest;
    uint64_t at;

    assert_int_equal(virtio_config_read(v.d, 4, 4), 3);
    start();
    listen(16);
    assert_int_equal(vdrv_take(&v, CONTROL_IN, NULL), -1);
    tell(0xffffffff, READY, 1);
    heard(0, ADD, 1, &rest);
    heard(1, ADD, 1, &rest);
    heard(2, ADD, 1, &rest);
    virtio_console_resize(c, 132, 43);
    tell(0, PORT_READY, 1);
    heard(0, CONSOLE_PORT, 1, &rest);
    at = heard(0, RESIZE, 1, &rest);
    assert_int_equal(rest, 4);
    assert_int_equal(vdrv_get(&v, at, 4), 132 | 43 << 16);
    tell(1, PORT_READY, 1);
    at = heard(1, NAME, 1, &rest);
    assert_true(rest < sizeof(name) && mem_read(v.mem, gpa(at), name, rest));
    assert_string_equal(name, "org.example.1");
    tell(2, PORT_READY, 1);
    heard(2, CONSOLE_PORT, 1, &rest);
    virtio_console_connected(c, 1, true);
    heard(1, OPEN, 1, &rest);
    virtio_console_connected(c, 1, true);
    virtio_console_connected(c, 1, false);
    heard(1, OPEN, 0, &rest);
    assert_int_equal(vdrv_take(&v, CONTROL_IN, NULL), -1);
}

/* What there is to say waits for buffers, and does not pile up. */
static void test_control_waits(void **state) {
    uint32_t rest;

    start();
    tell(0, READY, 1);
    tell(1, PORT_READY, 1);
    for (unsigned n = 0; n < 100; n++)
        virtio_console_connected(c, 1, !(n & 1));
    listen(4);
    heard(0, ADD, 1, &rest);
    heard(1, ADD, 1, &rest);
    heard(1, NAME, 1, &rest);
    heard(1, OPEN, 0, &rest);
    listen(1);
    heard(2, ADD, 1, &rest);
    listen(4);
    assert_int_equal(vdrv_take(&v, CONTROL_IN, NULL), -1);
    tell(3, PORT_READY, 1); /* no such port */
    tell(0xffffffff, PORT_READY, 1);
    tell(0, 99, 1);
    assert_int_equal(vdrv_take(&v, CONTROL_IN, NULL), -1);
}

/* Messages that are too short, and buffers that are. */
static void test_control_short(void **state) {
    struct vdrv_piece p = {VDRV_DATA, 7, 0}, in = {MESSAGES, 5, VDRV_WRITE};
    uint32_t len;

    start();
    vdrv_put(&v, VDRV_DATA + 4, 4, READY | 1 << 16);
    vdrv_send(&v, CONTROL_OUT, &p, 1);
    vdrv_send(&v, CONTROL_IN, &in, 1);
    assert_int_equal(vdrv_take(&v, CONTROL_IN, NULL), -1);
    tell(0, READY, 1);
    assert_int_not_equal(vdrv_take(&v, CONTROL_IN, &len), -1);
    assert_int_equal(len, 5);
}

/* --- output --- */

static void say(unsigned q, const char *text) {
    struct vdrv_piece p[] = {{TEXT, 3, 0}, {TEXT + 3, (uint32_t)strlen(text) - 3, 0}};

    assert_true(mem_write(v.mem, gpa(TEXT), text, strlen(text)));
    vdrv_send(&v, q, p, 2);
}

static void test_output(void **state) {
    start();
    say(OUT0, "hello");
    say(OUT1, "there");
    assert_string_equal(out[0], "hello");
    assert_string_equal(out[1], "there");
    assert_int_equal(vdrv_take(&v, OUT0, NULL), 0);
    assert_int_equal(vdrv_take(&v, OUT1, NULL), 0);
}

/* A reader that takes little: the rest stays with the guest. */
static void test_slow_reader(void **state) {
    start();
    room[1] = 4;
    say(OUT1, "slowly");
    assert_string_equal(out[1], "slow");
    assert_int_equal(vdrv_take(&v, OUT1, NULL), -1);
    virtio_notify(v.d, OUT1); /* changes nothing */
    room[1] = 1;
    virtio_console_writable(c, 1);
    assert_string_equal(out[1], "slowl");
    room[1] = 100;
    virtio_console_writable(c, 1);
    assert_string_equal(out[1], "slowly");
    assert_int_equal(vdrv_take(&v, OUT1, NULL), 0);
    room[1] = 0;
    say(OUT1, "never");
    virtio_set_status(v.d, 0, false); /* it is forgotten */
    room[1] = 100;
    virtio_console_writable(c, 1);
    assert_string_equal(out[1], "slowly");
}

static void test_emergency(void **state) {
    start();
    virtio_config_write(v.d, 8, 4, 'x');
    assert_string_equal(out[0], "x");
    virtio_config_write(v.d, 0, 4, 'x');
    assert_int_equal(virtio_config_read(v.d, 0, 4), 0);
}

/* --- input --- */

static void make_room(unsigned q, uint32_t len) {
    struct vdrv_piece p = {TEXT, len, VDRV_WRITE};

    vdrv_send(&v, q, &p, 1);
}

static void test_input(void **state) {
    const uint8_t *text = (const uint8_t *)"typed";
    uint32_t len;

    start();
    make_room(IN0, 3);
    assert_int_equal(virtio_console_input(c, 0, text, 5), 0); /* it is not ready */
    tell(0, PORT_READY, 1);
    assert_int_equal(virtio_console_input(c, 0, text, 5), 0); /* nobody has it open */
    assert_int_equal(rooms[0], 0);
    tell(0, OPEN, 1);
    assert_int_equal(rooms[0], 1);
    assert_int_equal(virtio_console_input(c, 0, text, 5), 3);
    assert_int_equal(vdrv_take(&v, IN0, &len), 0);
    assert_int_equal(len, 3);
    assert_int_equal(vdrv_get(&v, TEXT, 3), 't' | 'y' << 8 | 'p' << 16);
    make_room(IN0, 10);
    assert_int_equal(rooms[0], 2); /* for the rest */
    assert_int_equal(virtio_console_input(c, 0, text + 3, 2), 2);
    make_room(IN0, 10);
    assert_int_equal(rooms[0], 2);
    tell(0, OPEN, 0);
    assert_int_equal(virtio_console_input(c, 0, text, 5), 0);
    assert_int_equal(rooms[0], 2);
    tell(0, OPEN, 1);
    assert_int_equal(rooms[0], 3);
}

/* What is typed before somebody in the guest has the port open waits for it, also when
 * its buffers have come before. */
static void test_input_early(void **state) {
    const uint8_t *text = (const uint8_t *)"early";

    assert_int_equal(virtio_console_input(c, 0, text, 5), 0);
    start();
    make_room(IN0, 10);
    assert_int_equal(rooms[0], 0);
    tell(0, PORT_READY, 1);
    tell(0, OPEN, 1);
    assert_int_equal(rooms[0], 1);
    assert_int_equal(virtio_console_input(c, 0, text, 5), 5);
}

/* A buffer that is longer than what is written at a time, and one that takes more of it
 * than the device does in one go. */
static void test_long_output(void **state) {
    struct vdrv_piece p[65];

    start();
    room[0] = SIZE_MAX;
    for (unsigned n = 0; n < 65; n++)
        p[n] = (struct vdrv_piece){VDRV_DATA, 2 << 20, 0}; /* zeros */
    vdrv_send(&v, OUT0, p, 1);
    assert_int_equal(SIZE_MAX - room[0], 2 << 20);
    assert_int_equal(vdrv_take(&v, OUT0, NULL), 0);
    vdrv_send(&v, OUT0, p, 65);
    assert_true(SIZE_MAX - room[0] < 65ull << 21);
    assert_int_equal(vdrv_take(&v, OUT0, NULL), -1);
    for (unsigned n = 0; n < 65; n++)
        rig_pass(&r, 1);
    assert_int_equal(SIZE_MAX - room[0], 66ull << 21);
    assert_int_equal(vdrv_take(&v, OUT0, NULL), 1);
}

/* A driver that knows one port only. */
static void test_one_port(void **state) {
    vdrv_start(&v, VIRTIO_F_ALWAYS | F_SIZE);
    make_room(IN0, 3);
    assert_int_equal(virtio_console_input(c, 0, (const uint8_t *)"ab", 2), 2);
    assert_int_equal(virtio_console_input(c, 1, (const uint8_t *)"ab", 2), 0);
    virtio_console_resize(c, 80, 25);
    assert_int_equal(v.changes, 1);
    assert_int_equal(virtio_config_read(v.d, 0, 4), 80 | 25 << 16);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_control),  T(test_control_waits), T(test_control_short),
        T(test_output),   T(test_slow_reader),   T(test_emergency),
        T(test_input),    T(test_input_early),   T(test_long_output),
        T(test_one_port),
    };
#undef T
    return cmocka_run_group_tests(tests, NULL, NULL);
}
