/*
 * The machine: a VM and its CPUs. Allocates them and the board, wires all of it in a
 * visible order, and gives it lives: a boot followed by a run, again after each reset.
 *
 * A machine has a loop (base/os_loop.h) and a thread for each CPU. machine_run() turns
 * the loop on the caller's thread while the CPUs' run the guest; whoever else has
 * business with the run (a terminal, a control socket, signals) hangs it into
 * machine_loop(), and comes to the guest by machine_call(). machine_quit() and
 * machine_wake() are for any thread and for signal handlers; all else is for the thread
 * that runs the loop, or for functions that are called on a CPU's where it says so.
 */
#ifndef MACHINE_MACHINE_H
#define MACHINE_MACHINE_H

#include "base/rate.h"
#include "base/types.h"
#include "block/block.h"
#include "boot/boot.h"
#include "cpu/cpuid.h"
#include "direct/direct.h"
#include "engine/engine.h"
#include "engine/run.h"
#include "mmu/mmu.h"
#include "net/net.h"

/* The far end of the serial port. tx() and flush() are called on the threads of all CPUs,
 * and tx() on the loop's; rx() on the boot CPU's only. */
struct machine_console {
    /* The guest wrote LEN bytes; it is in the middle of an instruction, and the board's
     * lock is held. How many of them are taken: who does not take all calls
     * machine_console_ready() when there is room again, and in a counted run takes all.
     */
    size_t (*tx)(void *arg, const uint8_t *bytes, size_t len);
    /* At the end of a life and before steps, and in a counted run soon after tx(): writes
     * what the reader takes now. The descriptor that has to be waited for, or -1: all is
     * done. NULL: tx() has done it. */
    int (*flush)(void *arg);
    /* Gives at most ROOM (which may be 0) bytes for the guest, until it returns 0. Called
     * when the guest has room, and after machine_wake(). */
    size_t (*rx)(void *arg, uint8_t *buf, size_t room);
    void *arg;
};

struct block;
struct machine;
struct snapshot;
struct net_figures;     /* net/net.h */
struct smbios_identity; /* dev/tables/smbios.h */
struct os_loop;

/* Where the console's input comes from in a counted run. All times are nanoseconds of
 * virtual time. */
struct machine_input {
    /* When to ask for input after NOW; VCLOCK_NEVER: not any more. */
    uint64_t (*next)(void *arg, uint64_t now);
    /* It is time: gives at most ROOM bytes for the guest, until it returns 0. */
    size_t (*take)(void *arg, uint64_t now, uint8_t *buf, size_t room);
    /* Writes or reads where it is, as a snapshot's record `tape`. NULL: nowhere. */
    void (*state)(void *arg, struct snapshot *s);
    /* An idle guest sleeps in the host's time, until machine_wake(); or virtual time
     * jumps. */
    bool host_time;
    void *arg;
};

/* The options of all engines, each in the place that the engine has in
 * machine_engines(). */
#define MACHINE_ENGINES 3
struct machine_options {
    struct {
        _Alignas(uint64_t) uint8_t bytes[ENGINE_OPTIONS_SIZE]; /* its structure */
        uint64_t given; /* a bit for each that was named, as in its table */
    } of[MACHINE_ENGINES];
};

/* A disk, opened; the caller's, and must outlive the machine. */
struct machine_disk {
    struct block *block; /* block/block.h */
    enum machine_disk_kind {
        MACHINE_DISK_VIRTIO,
        MACHINE_DISK_IDE,
        MACHINE_DISK_CDROM, /* ATAPI, at IDE */
    } kind;
    struct rate_limit limit[BLOCK_LIMITS]; /* all zero: none */
};
#define MACHINE_DISKS 32

/* The firmware's variables; all of it the caller's, and must outlive the machine. */
struct machine_vars {
    const uint8_t *bytes; /* NULL: there are none */
    uint32_t size;
    /* Where they are kept; NULL: they are forgotten with the machine. STORE(ARG, ...)
     * writes bytes that have changed, and BLOCK, of the same file, makes them durable. */
    struct block *block;
    void (*store)(void *arg, uint32_t at, const uint8_t *bytes, uint32_t len);
    void *arg;
};

/* A network card; the network is the caller's, and must outlive the machine. */
struct machine_net {
    struct net *net; /* net/net.h */
    enum machine_net_model { MACHINE_NET_VIRTIO, MACHINE_NET_E1000 } model;
    uint8_t mac[6];
    uint16_t mtu; /* that the guest is told; 0: nothing is said */
    /* Firmware boots from it: not at all, before the disks, after them. */
    enum machine_net_boot { MACHINE_NET_NO, MACHINE_NET_FIRST, MACHINE_NET_LAST } boot;
    uint8_t *rom; /* the card's expansion ROM, the caller's, which is made to say that it
                     is this card's; NULL: there is none */
    uint32_t rom_size;
};
#define MACHINE_NETS 8

#define MACHINE_CPUS 64u
#define MACHINE_CPU_CHANGES 64u

/* A port of the virtio console; the first is one that the guest can log in at. */
struct machine_console_port {
    struct stream *stream; /* stream/stream.h; the caller's, must outlive the machine */
    const char *name;      /* or NULL */
    bool console;          /* a console of the guest's, as the first one always is */
};
#define MACHINE_CONSOLES 8
#define MACHINE_SHARES 8

/* A serial port: the console's, or a stream's. */
struct machine_serial {
    struct stream *stream; /* NULL: the configuration's console, one port at most; the
                              caller's, must outlive the machine */
};
#define MACHINE_SERIALS 2

/* A file of fw_cfg's; all of it the caller's, and must outlive the machine. */
struct machine_item {
    const char *name; /* that fw_cfg_add() likes, and none of the machine's own */
    const void *bytes;
    uint32_t size;
};
#define MACHINE_ITEMS 16

/* Counted runs: REACHED(ARG) is called on the CPU's thread whenever it has retired so
 * many instructions more. */
struct machine_marks {
    uint64_t every; /* 0: never */
    void (*reached)(void *arg);
    void *arg;
};

struct machine_config {
    const char *engine; /* a name of machine_engines(), or "auto" */
    uint64_t memory;    /* bytes */
    unsigned cpus;      /* 1 to MACHINE_CPUS; 0: one */
    const char *cpu;    /* a name that cpuid_model_check() likes, or NULL: the default */
    struct cpuid_change cpu_change[MACHINE_CPU_CHANGES]; /* to what that CPU says */
    unsigned cpu_changes;
    unsigned cpu_quota;      /* as machine_quota_set() */
    bool no_pci;             /* a board without PCI */
    bool paravirt;           /* KVM's CPUID leaves and clock */
    enum direct_mode direct; /* user code runs on the host's CPU, in cells; bt only */
    struct direct_options direct_options;
    enum mmu_policy policy;
    struct machine_options options; /* of the engines; begin with the defaults */
    const struct boot_image *image; /* the caller's, must outlive the machine */
    struct boot_config boot;
    struct machine_disk disks[MACHINE_DISKS]; /* in the order of the command line */
    unsigned disk_count;
    enum machine_virtio { /* how the guest finds virtio devices */
                          MACHINE_VIRTIO_NONE,
                          MACHINE_VIRTIO_PCI,
                          MACHINE_VIRTIO_MMIO,
    } virtio;
    struct machine_console_port consoles[MACHINE_CONSOLES];
    unsigned console_count;
    struct machine_serial serials[MACHINE_SERIALS];
    unsigned serial_count;                /* 0: one, the console's */
    struct vsock *vsock;                  /* vsock/vsock.h; NULL: none; the caller's */
    uint32_t vsock_cid;                   /* the guest's address */
    struct share *shares[MACHINE_SHARES]; /* share/share.h; the caller's */
    unsigned share_count;
    bool balloon;
    bool balloon_strict;    /* a guest that is short of memory takes nothing back */
    uint32_t balloon_pages; /* of 4 KiB, that it is to have at first */
    bool rng;               /* virtio's source of entropy */
    struct machine_net nets[MACHINE_NETS]; /* in the order of the command line */
    unsigned net_count;
    bool boot_menu; /* firmware asks the user */
    enum machine_boot_once {
        MACHINE_ONCE_NOTHING,
        MACHINE_ONCE_DISK,
        MACHINE_ONCE_CDROM,
        MACHINE_ONCE_NET, /* cards that it may boot from */
    } boot_once;          /* in the first life firmware tries these before all others */
    bool display;         /* somebody looks at the screen, with a keyboard and a mouse */
    bool tablet;          /* and with a pointer that says where it is, over virtio */
    struct machine_item items[MACHINE_ITEMS]; /* what the guest is told besides */
    unsigned item_count;
    const struct smbios_identity
        *identity; /* of it; the caller's; NULL: the board's own */
    struct machine_vars vars;
    /* The VGA's BIOS, for firmware that runs it; the caller's. NULL: there is none. */
    const uint8_t *vga_bios;
    uint32_t vga_bios_size;
    struct machine_console console;
    bool notes;                 /* machine_warm_note() is to know what is hot */
    bool rewinds;               /* counted: a debugger may have it go backwards */
    bool counted;               /* virtual time by instructions: machine/counted.h */
    uint64_t start_ns;          /* counted: since 1970, at virtual time 0 */
    struct machine_input input; /* counted: instead of console.rx; NEXT may be NULL */
    struct machine_marks marks;
};

enum machine_end {
    MACHINE_POWEROFF,
    MACHINE_RESET,
    MACHINE_DEBUG_EXIT, /* isa-debug-exit: machine_exit_code() */
    MACHINE_SHUTDOWN,   /* triple fault */
    MACHINE_QUIT,       /* machine_quit() was called */
    MACHINE_ERROR,      /* host failure, logged */
    MACHINE_PAUSED,     /* counted: it got as far as was asked */
    MACHINE_REWOUND,    /* counted: a debugger wants it from earlier on once more */
    MACHINE_ASLEEP,     /* counted: halted, and nothing will ever wake it */
};

/* Table of engines, *COUNT of them, in the order in which "auto" tries them. */
const struct engine_ops *const *machine_engines(size_t *count);

/* --- options.c --- */

void machine_options_default(struct machine_options *o);
/* Options by name onto those of an engine that has some: 0, or -EINVAL with one sentence
 * in WHY. */
int machine_options_parse(struct machine_options *o, const struct engine_ops *engine,
                          const char *text, char *why, size_t why_size);
/* What a counted run takes where nothing else was said. */
void machine_options_counted(struct machine_options *o);
/* What makes pieces of code of one instruction each. */
void machine_options_single(struct machine_options *o);
/* With these every engine is right in every bit after each instruction. */
bool machine_options_exact(const struct machine_options *o);
/* The engine's structure, for who knows it; NULL: it has none. */
void *machine_options_of(struct machine_options *o, const struct engine_ops *engine);

/* 0, or -errno with one sentence in WHY. */
int machine_create(const struct machine_config *cfg, struct machine **out, char *why,
                   size_t why_size);
void machine_free(struct machine *m);

/* Resets everything and loads the kernel. 0, or -errno with one sentence in WHY. */
int machine_boot(struct machine *m, char *why, size_t why_size);

/* Before the first life, when it is booted or restored: moments that the run can be taken
 * back to are kept from now on, if the configuration wants it (`rewinds`). */
void machine_checkpoints_begin(struct machine *m);
/* Counted runs, after MACHINE_REWOUND: the machine is where it was at a moment before the
 * one that is wanted. 0, or -errno with one sentence in WHY. */
int machine_rewind(struct machine *m, char *why, size_t why_size);
/* Runs until the guest's life ends, and turns the loop meanwhile. */
enum machine_end machine_run(struct machine *m);
/* The machine's, which it ends with: what hangs in it is taken out before. */
struct os_loop *machine_loop(struct machine *m);
/* The console has room for output again; on the loop's thread. */
void machine_console_ready(struct machine *m);

/* Counted runs only, on the caller's thread; the loop does not turn, nobody calls. Goes
 * on until INSNS instructions have been retired in all, and stops exactly there with
 * MACHINE_PAUSED; or as machine_run(). */
enum machine_end machine_run_to(struct machine *m, uint64_t insns);
/* The same, but bt stops after one fragment, or whatever else its dispatcher does. */
enum machine_end machine_run_fragment(struct machine *m, uint64_t insns);
/* Counted runs only: virtual time now. */
uint64_t machine_now_ns(const struct machine *m);
/* What all CPUs have retired. */
uint64_t machine_insns(const struct machine *m);
/* As engine_ops.list, of the boot CPU's engine: nothing for one that has none. */
void machine_list(struct machine *m, uint64_t from, uint32_t len,
                  void (*line)(void *arg, const char *text), void *arg);
/* From here on engines go by these options, where they can change them. */
void machine_retune(struct machine *m, const struct machine_options *o);
/* All of guest RAM. */
uint8_t *machine_ram(const struct machine *m, uint64_t *size);
/* It shows a snapshot's file: what the host has no page for need not be zero. */
bool machine_ram_shown(const struct machine *m);

/* Value that the guest wrote to the debug-exit port, as an exit status. */
int machine_exit_code(const struct machine *m);

/* Ends machine_run() with MACHINE_QUIT; from any thread, async-signal-safe. */
void machine_quit(struct machine *m);
/* The console has input, or the guest's sleep is to end for it; the same. */
void machine_wake(struct machine *m);

/* Around a call of device code on the loop's thread: what a back end has completed or
 * received. Only one thread is in the board at a time, and what it does there is short:
 * it waits for nothing. It must not be in already, and must not machine_call() there. */
void machine_board_enter(struct machine *m);
void machine_board_leave(struct machine *m);

/* --- from outside, on the loop's thread; between two lives, too --- */

/* The balloon (false: there is none) is to have PAGES of 4 KiB. */
bool machine_balloon_set(struct machine *m, uint32_t pages);
/* The same number; false: there is no balloon. */
bool machine_balloon_target(struct machine *m, uint32_t *pages);
/* How many it has; and what the guest told of its memory last, having been asked for more
 * now: a name and a value for each. */
bool machine_balloon_look(struct machine *m, uint32_t *pages,
                          void (*stat)(void *arg, const char *name, uint64_t value),
                          void *arg);

/* FN(ARG) is called on the boot CPU's thread while every CPU stands between two
 * instructions: all of the guest's state is in machine_vcpu(), and the vector state is
 * parked. Waits for its end. */
void machine_call(struct machine *m, void (*fn)(void *arg), void *arg);

/* The guest stops between two instructions, and its time with it: the clocks that it has,
 * its TSC among them, stand still, and no timer comes due; but the date of the real-time
 * clock is the host's, and the kernel's local APIC (kvm, --irqchip kernel) goes on. It
 * stays so, also through a reset, until machine_resume(). Neither nests: one more changes
 * nothing. */
void machine_pause(struct machine *m);
void machine_resume(struct machine *m);
bool machine_paused(const struct machine *m);

/* The machine may use PERCENT of one CPU of the host's (200: of two; 0: what there is);
 * when it has had that, the guest stands, and its time goes on. */
#define MACHINE_QUOTA_MAX 6400u
void machine_quota_set(struct machine *m, unsigned percent);
unsigned machine_quota(const struct machine *m);
/* As block_limit() and net_limit(), of the configuration's disk or card N. False: there
 * is none of that number, or the run is counted. */
bool machine_disk_limit(struct machine *m, unsigned n, enum block_limit which,
                        const struct rate_limit *l);
bool machine_net_limit(struct machine *m, unsigned n, enum net_limit which,
                       const struct rate_limit *l);
/* The user opens or closes the tray of the configuration's CD-ROM drive N, counted by
 * themselves. Without FORCE a guest that holds it is asked, and may open it. 0; -EBUSY:
 * it is asked; -ENODEV: there is no such drive; -EINVAL: the run is counted. */
int machine_tray(struct machine *m, unsigned n, bool open, bool force);
/* The sentence for what machine_tray() returned. */
void machine_tray_why(int rc, char *why, size_t why_size);
/* The disk that is CD-ROM drive N; -ENODEV: there is none. */
int machine_config_cdrom(const struct machine_config *cfg, unsigned n);
/* CD-ROM drive N has another disc: its tray opens, as for machine_tray(), and closes with
 * FD, of the file PATH, which FACTS are of, in it. FD is taken over. 0, or -errno with
 * one sentence in WHY; the tray may be open then. On the loop's thread. */
int machine_disc_exchange(struct machine *m, unsigned n, int fd, bool force,
                          const struct block_facts *facts, const char *path, char *why,
                          size_t why_size);
/* As block_exchange(), of the configuration's disk N, a virtio disk, whose driver is
 * told; what was there is put away. On the loop's thread. 0, or -errno with one sentence.
 */
int machine_disk_exchange(struct machine *m, unsigned n, int fd,
                          const struct block_facts *facts, const char *path, char *why,
                          size_t why_size);
/* The same of the source of entropy, whose requests wait, and of what the guest writes to
 * serial port N: bytes that are too many are dropped. */
enum machine_rng_limit { RNG_BYTES, RNG_OPERATIONS, RNG_LIMITS };
bool machine_rng_limit(struct machine *m, enum machine_rng_limit which,
                       const struct rate_limit *l);
bool machine_serial_limit(struct machine *m, unsigned n, const struct rate_limit *l);

struct machine_steps {
    uint64_t steps; /* that were made */
    uint64_t insns; /* retired; not by one that faulted, or left a REP in its middle */
    uint64_t rip;   /* where the guest is */
    bool halted;    /* it sleeps: only time can wake it, and that goes on at resume */
    bool waits;     /* it waits for its console's reader */
    bool ended;     /* the guest's life */
};
/* Pauses the guest, and makes at most COUNT steps of the boot CPU (machine/step.c); the
 * others stand. */
void machine_step(struct machine *m, uint64_t count, struct machine_steps *out);

/* The networks of its cards are on its loop from now on; and not any more, before it goes
 * or they do. 0 or -errno. */
int machine_start_nets(struct machine *m);
/* The same for the streams of serial ports and of the virtio console. */
int machine_start_consoles(struct machine *m);
void machine_stop_consoles(struct machine *m);
int machine_start_vsock(struct machine *m);
void machine_stop_vsock(struct machine *m);
int machine_start_shares(struct machine *m);
void machine_stop_shares(struct machine *m);
void machine_stop_nets(struct machine *m);
/* Of all its networks, so far. */
struct net_figures machine_net_figures(const struct machine *m);

/* --- snapshots (docs/snapshot.md), on the loop's thread --- */

/* The guest stands, no disk is at a request, and S gets all of the machine but what its
 * memory holds. 0, or -errno with the reason in S. It stands until machine_saved(). */
int machine_save(struct machine *m, struct snapshot *s);
/* It stands already, until then. */
void machine_hold(struct machine *m);
void machine_saved(struct machine *m);
/* What memory holds, meanwhile, to the file FD: 0 or -errno. */
int machine_save_ram(struct machine *m, int fd);
/* From now on it is known which pages of memory are written to. False: not by this
 * engine. The second is for before the first life. */
bool machine_track(struct machine *m);
void machine_track_first(struct machine *m);
/* Those that were since, or since the last call of this: their bits are set in BITS,
 * which has one for each of machine_ram_pages(). And how many these would be. */
void machine_written(struct machine *m, uint64_t *bits);
uint64_t machine_written_count(struct machine *m);
uint64_t machine_ram_pages(const struct machine *m);
/* What memory holds, while the guest runs: the file is made as long; then what is from
 * *AT on, some of it: 1, or 0 when that was the last; then pages FROM to END once more.
 * Or -errno. */
int machine_save_ram_begin(struct machine *m, int fd);
int machine_save_ram_part(struct machine *m, int fd, uint64_t *at);
int machine_save_ram_pages(struct machine *m, int fd, uint64_t from, uint64_t end);
/* Memory holds from now on what the file FD does; the guest's writes do not get there. To
 * be called before the jail, and before the first life. 0 or -errno. */
int machine_restore_ram(struct machine *m, int fd);
/* Then pages FROM to END are those of another such file. */
int machine_restore_ram_pages(struct machine *m, int fd, uint64_t from, uint64_t end);
/* What is hot is noted for the next machine_save(), while the guest runs. */
void machine_warm_note(struct machine *m);
/* Memory is that of S: what it says was hot is made ready when there is time. Before the
 * first life. False: S is wrong. */
bool machine_warm_begin(struct machine *m, struct snapshot *s);
/* In place of machine_boot(): the machine goes on as S says. 0, or -errno with the end of
 * a sentence in WHY; then it is good for a boot, or for nothing. */
int machine_restore(struct machine *m, struct snapshot *s, char *why, size_t why_size);
/* After it: what goes on is another machine than the one that the snapshot is of. It gets
 * a generation ID of its own, and the guest is told. */
void machine_generation_next(struct machine *m);

/* Somebody presses the power button: a guest that listens shuts down. */
void machine_power_button(struct machine *m);
/* The reset button: machine_run() ends with MACHINE_RESET. A paused guest goes on. */
void machine_reset(struct machine *m);

/* A key of its keyboard, as keyboard_key() has them (dev/pc/keyboard.h). False: the guest
 * has not taken what was typed before, or there is no such key, or no keyboard. */
bool machine_key(struct machine *m, unsigned key, bool down);
/* Its tablet's pointer is there (dev/virtio/input.h). False: it has none, or the guest
 * does not listen to it. */
struct virtio_input_point;
bool machine_point(struct machine *m, const struct virtio_input_point *p);
/* Its mouse was moved (dev/pc/mouse.h). */
struct mouse_event;
void machine_pointer(struct machine *m, const struct mouse_event *e);

/* What is on the guest's text screen (dev/pc/vga.h). False: it shows no text. */
struct vga_text;
bool machine_screen(struct machine *m, struct vga_text *out);

/* What is on the guest's screen; and its pixels, P's width times height, 0xRRGGBB. */
struct vga_picture;
void machine_look(struct machine *m, struct vga_picture *out);
void machine_draw(const struct machine *m, const struct vga_picture *p, uint32_t *out);

/* For statistics and dumps. CPUs have the numbers from 0, the boot CPU's, on. */
unsigned machine_cpus(const struct machine *m);
const struct vcpu *machine_vcpu(const struct machine *m, unsigned cpu);
/* Sums: of all CPUs and, with the counters, of the board's devices. */
struct counters machine_counters(const struct machine *m);
struct exit_counts machine_exits(const struct machine *m);
/* Names for perf of the code that the boot CPU's engine made; nothing if it makes none.
 */
void machine_perf_map(const struct machine *m, FILE *f);
const char *machine_engine_name(const struct machine *m);
/* Requests for ioctl(2) that its engines make from now on, and a 0; NULL: none. On the
 * CPUs' threads and between lives, and on any thread. */
const unsigned long *machine_ioctls(const struct machine *m);
const unsigned long *machine_device_ioctls(const struct machine *m);
/* Calls EMIT for each figure of each CPU's engine: several times for one name. */
void machine_engine_stats(const struct machine *m,
                          void (*emit)(void *arg, const char *name, uint64_t value),
                          void *arg);

#endif
