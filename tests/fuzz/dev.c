/*
 * The board: a sequence of accesses to ports, MMIO and MSRs of any width, while time goes
 * on in steps of any size, interrupts are taken, and input arrives. Nothing may be out of
 * bounds, take long, or leave a device in a state that it has no name for.
 */
#include "fuzz/fuzz.h"
#include "lib/rig.h"
#include "machine/board.h"
#include "x86/msr.h"

enum { RAM = 4 << 20, OPS = 400 };

static struct board board;
static struct machine_cpu cpu;
static struct mem *mem;
static struct rig r;
static size_t sent;

/* Now and then the host takes a part only. */
static size_t on_tx(void *arg, const uint8_t *bytes, size_t n) {
    size_t takes = n && bytes[0] % 4 == 1 ? n / 2 : n;

    for (size_t k = 0; k < takes; k++)
        sent += bytes[k];
    return takes;
}

/* Ports and addresses that something answers. */
static const uint16_t ports[] = {
    0x20,  0x21,  0xa0,  0xa1,  0x4d0, 0x4d1, 0x40,  0x41,  0x42,  0x43,  0x61,  0x70,
    0x71,  0x72,  0x73,  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x60,
    0x64,  0x92,  0xcf8, 0xcf9, 0xcfc, 0x80,  0xf4,  0x600, 0x604, 0x608, 0x620, 0x622,
    0x3b0, 0x3c0, 0x3c4, 0x3c5, 0x3d4, 0x3d5, 0x3da, 0xb2,  0xb3,
};
static const uint32_t msrs[] = {
    X86_MSR_APIC_BASE,
    0x6e0,
    0x4b564d00,
    0x4b564d01,
    0x11,
    0x12,
    0x800,
    0x80b,
    0x82f,
    0x830,
};

static void make(void) {
    const struct uart_host serial = {.tx = on_tx};

    if (!cpu.vcpu) {
        cpu.vcpu = aligned_alloc(64, sizeof(*cpu.vcpu));
        HOLDS(cpu.vcpu);
        memset(cpu.vcpu, 0, sizeof(*cpu.vcpu));
    }
    HOLDS(mem || !mem_create(RAM, &mem));
    rig_new(&r);
    cpu.clock = r.clock;
    HOLDS(cpu.bell || !os_bell_new(&cpu.bell));
    board.cpu = &cpu;
    board.cpus = 1;
    board.mem = mem;
    board.cnt = &r.cnt;
    board.paravirt = true;
    board.clock = r.clock;
    board.bus = r.bus;
    HOLDS(!board_create(&board, &r.host, &serial));
    cpu.vcpu->hooks = &board_vcpu_hooks;
    cpu.vcpu->hooks_arg = &cpu;
    board_reset(&board);
    vcpu_clear(cpu.vcpu, ~0u);
}

static void destroy(void) {
    board_destroy(&board);
    rig_free(&r);
}

static void port_access(struct fuzz_in *in, bool write) {
    unsigned how = (unsigned)fuzz_get(in, 1);
    unsigned nth = (unsigned)fuzz_get(in, 1);
    struct exit e = {.reason = EXIT_io, .write = write, .size = 1u << (how & 3) % 3};

    e.port = how & 0x80 ? (uint16_t)(nth << 8 | (how >> 2 & 31))
                        : (uint16_t)(ports[nth % ARRAY_SIZE(ports)] + (how >> 4 & 3));
    e.data = write ? fuzz_get(in, e.size) : 0;
    cpu.vcpu->hooks->exit(&cpu, cpu.vcpu, &e);
}

static void mmio_access(struct fuzz_in *in, bool write) {
    static const uint64_t bases[] = {LAPIC_BASE, LAPIC_BASE,        0xfec00000,
                                     0xa0000,    0xfee01000,        0xf0000000,
                                     0,          0xfffffffffffff000};
    unsigned how = (unsigned)fuzz_get(in, 1);
    uint64_t off = fuzz_get(in, 1) << 4 | (how & 0x20 ? how >> 6 : 0);
    struct exit e = {.reason = EXIT_mmio, .write = write, .size = 1u << (how & 3)};

    e.gpa = gpa(bases[how >> 2 & 7] + off);
    e.data = write ? fuzz_get(in, e.size) : 0;
    cpu.vcpu->hooks->exit(&cpu, cpu.vcpu, &e);
}

static void msr_access(struct fuzz_in *in, bool write) {
    unsigned nth = (unsigned)fuzz_get(in, 1);
    struct exit e = {.reason = EXIT_msr, .write = write};

    e.msr = nth & 0x80 ? 0x800 + (nth & 0x7f) : msrs[nth % ARRAY_SIZE(msrs)];
    e.data = write ? fuzz_get(in, 8) : 0;
    cpu.vcpu->hooks->exit(&cpu, cpu.vcpu, &e);
}

static void go_on(struct fuzz_in *in) {
    unsigned how = (unsigned)fuzz_get(in, 1);

    r.now += (uint64_t)((how & 15) + 1) << (how >> 4) * 4;
    if (r.now >> 62) /* a machine runs for less than 146 years */
        r.now = 1ull << 62;
    vclock_run(board.clock);
    HOLDS(vclock_next(board.clock) > r.now);
}

static void take_interrupt(void) {
    bool raised = vcpu_events(cpu.vcpu) & VCPU_EVENT_IRQ;
    int vector = cpu.vcpu->hooks->irq_ack(&cpu);

    HOLDS(vector >= -1 && vector <= 255);
    HOLDS(raised || vector < 0);
}

static void input(struct fuzz_in *in) {
    uint8_t bytes[16];
    size_t room = uart_room(board.uart[0]), n = fuzz_get(in, 1) & 15;

    memset(bytes, 0x55, sizeof(bytes));
    n = n < room ? n : room;
    HOLDS(uart_receive(board.uart[0], bytes, n) == n);
}

static void one(struct fuzz_in *in) {
    unsigned op = (unsigned)fuzz_get(in, 1);

    r.now += 100;
    switch (op & 15) {
    case 0 ... 2:
        port_access(in, true);
        break;
    case 3 ... 5:
        port_access(in, false);
        break;
    case 6 ... 7:
        mmio_access(in, true);
        break;
    case 8:
        mmio_access(in, false);
        break;
    case 9:
        msr_access(in, true);
        break;
    case 10:
        msr_access(in, false);
        break;
    case 11:
        go_on(in);
        break;
    case 12:
        take_interrupt();
        break;
    case 13:
        input(in);
        break;
    case 14:
        cpu.vcpu->hooks->cr8_write(&cpu, op >> 4);
        HOLDS(cpu.vcpu->hooks->cr8_read(&cpu) == op >> 4);
        break;
    default:
        if (op >> 4 == 0)
            board_reset(&board);
        else if (op >> 4 == 1)
            cpu.vcpu->hooks->tsc_write(&cpu, fuzz_get(in, 8));
        else
            cpu.vcpu->hooks->a20(&cpu);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_in in = {data, size};

    make();
    mem_reset(mem);
    for (unsigned k = 0; k < OPS && in.left; k++)
        one(&in);
    destroy();
    return 0;
}
