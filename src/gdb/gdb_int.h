/*
 * Inside gdb/, from the bottom:
 *
 *   text.c       hexadecimal numbers, lists of bytes; replies that are being made
 *   packet.c     frames: bytes of a stream to packets and back
 *   registers.c  which registers there are, and where they are in struct vcpu
 *   describe.c   the same as a target description
 *   memory.c     m, M, x, X
 *   points.c     Z, z
 *   resume.c     vCont, c, s, C, S; why the machine has stopped
 *   monitor.c    what gdb's `monitor` says
 *   query.c      q and Q
 *   command.c    the table of packets
 *   server.c     listening, clients
 */
#ifndef GDB_INT_H
#define GDB_INT_H

#include "base/os.h"
#include "base/os_loop.h"
#include "cpu/stops.h"
#include "gdb/gdb.h"
#include "machine/debug.h"

#define GDB_PACKET_MAX 0x4000u             /* between $ and # */
#define GDB_REPLY_MAX (2 * GDB_PACKET_MAX) /* all of it may have to be escaped */
#define GDB_OUT_MAX (2 * (GDB_REPLY_MAX + 16))
#define GDB_REGS_MAX 192u
#define GDB_XML_MAX 32768u

/* --- text.c --- */

/* A packet's text, as it is read: [AT, END). */
struct gdb_text {
    const char *at, *end;
};

/* A reply, as it is made; without frame and checksum. */
struct gdb_reply {
    size_t len;
    bool full; /* it did not fit: it becomes an error */
    bool none; /* there is none, for now */
    char buf[GDB_REPLY_MAX];
};

/* The character C comes, and is read. */
bool gdb_skip(struct gdb_text *t, char c);
/* The same for a word. */
bool gdb_skip_word(struct gdb_text *t, const char *word);
/* A hexadecimal number of at least one digit that fits. */
bool gdb_number(struct gdb_text *t, uint64_t *out);
/* Two digits for each of LEN bytes. */
bool gdb_bytes(struct gdb_text *t, uint8_t *out, size_t len);
/* What is left of it. */
size_t gdb_left(const struct gdb_text *t);

__attribute__((format(printf, 2, 3))) void gdb_put(struct gdb_reply *r,
                                                   const char *format, ...);
void gdb_put_bytes(struct gdb_reply *r, const void *bytes, size_t len);  /* as digits */
void gdb_put_binary(struct gdb_reply *r, const void *bytes, size_t len); /* escaped */
void gdb_put_error(struct gdb_reply *r, unsigned number);

/* --- packet.c --- */

enum gdb_input {
    GDB_NOTHING, /* nothing yet */
    GDB_PACKET,  /* a packet is in the buffer */
    GDB_BAD,     /* one whose checksum is wrong, or that is too long */
    GDB_BREAK,   /* Ctrl-C */
    GDB_ACK,
    GDB_AGAIN, /* the last reply was not understood */
};

/* What is read of a stream. */
struct gdb_frame {
    enum { FRAME_NONE, FRAME_TEXT, FRAME_ESCAPED, FRAME_SUM1, FRAME_SUM2 } state;
    bool too_long;
    uint8_t sum, told;
    size_t len;
    char buf[GDB_PACKET_MAX + 1];
};

enum gdb_input gdb_frame_byte(struct gdb_frame *f, uint8_t byte);
/* The frame of LEN characters of TEXT at OUT, which has room for LEN + 4: its length. */
size_t gdb_frame_make(char *out, const char *text, size_t len);

/* --- registers.c --- */

enum gdb_reg_kind {
    GDB_REG_NUMBER, /* OFF in struct vcpu, SIZE bytes */
    GDB_REG_PC,
    GDB_REG_FLAGS,
    GDB_REG_SEGMENT, /* INDEX: enum vcpu_seg */
    GDB_REG_FTAG,
    GDB_REG_IMAGE, /* OFF in vcpu.vec, SIZE bytes, of component INDEX of XCR0 */
    GDB_REG_CR8,
};

enum gdb_feature {
    GDB_FEATURE_CORE,
    GDB_FEATURE_SSE,
    GDB_FEATURE_AVX,
    GDB_FEATURE_SEGMENTS,
    GDB_FEATURE_SYSTEM,
    GDB_FEATURE_COUNT
};

struct gdb_reg {
    char name[12];
    const char *type;
    uint16_t off;
    uint8_t bytes; /* that the client sees */
    uint8_t size;  /* that there are */
    uint8_t index;
    uint8_t kind, feature; /* enum gdb_reg_kind, enum gdb_feature */
    uint64_t writable;     /* bits of a number that may be changed */
};

struct gdb_regs {
    enum gdb_arch arch; /* not AUTO */
    unsigned count;
    struct gdb_reg reg[GDB_REGS_MAX];
};

void gdb_regs_make(struct gdb_regs *r, enum gdb_arch arch, const struct vcpu *v);
/* BYTES of it to OUT. */
void gdb_reg_get(struct machine *m, unsigned cpu, const struct gdb_reg *r, uint8_t *out);
/* False: that would make a state that no CPU has, or is not ours to change. */
bool gdb_reg_set(struct machine *m, unsigned cpu, const struct gdb_reg *r,
                 const uint8_t *in);

/* --- describe.c --- */

/* The target description of R in XML, at OUT: its length. */
size_t gdb_describe(const struct gdb_regs *r, char out[GDB_XML_MAX]);

/* --- the client, and the machine --- */

/* A breakpoint or watchpoint of the client's. */
struct gdb_points {
    struct vcpu_stops stops;
    bool hardware[VCPU_BREAKS]; /* it was a Z1; by number in `stops` */
    bool software[VCPU_BREAKS];
};

struct gdb {
    struct os_listener *listener;
    struct os_loop *loop;
    struct os_watch door, watch;
    struct machine *m;
    void (*quit)(void *arg);
    void *quit_arg;
    enum gdb_arch want;
    bool wait; /* before the first run */
    /* Of the client; FD is -1 when there is none. */
    int fd;
    bool attached; /* it has said something: the machine is its to stop */
    bool running;  /* it waits for the machine to stop */
    bool no_ack, ack_once;
    bool leaving; /* when its reply is written */
    bool ends;    /* the run is to end then */
    bool knows_swbreak, knows_hwbreak;
    bool physical;        /* addresses of memory are */
    unsigned cpu, cpu_go; /* which H named; CPU_ALL */
    unsigned told_cpu;    /* whose stop was told last */
    uint64_t sstep;       /* as QEMU has them */
    struct gdb_points points;
    struct gdb_regs regs;
    char xml[GDB_XML_MAX];
    size_t xml_len;
    struct gdb_frame frame;
    struct gdb_reply reply;
    uint8_t in[4096];
    size_t in_len, in_at;
    char out[GDB_OUT_MAX]; /* [OUT_AT, OUT_LEN) is to be written */
    size_t out_len, out_at, last_len;
    char last[GDB_REPLY_MAX + 8]; /* the last reply's frame, to be sent again */
};

#define GDB_CPU_ALL UINT32_MAX

#define GDB_SSTEP_ENABLE 1u
#define GDB_SSTEP_NOIRQ 2u
#define GDB_SSTEP_NOTIMER 4u

#define GDB_ERROR_PARSE 1u
#define GDB_ERROR_THREAD 3u
#define GDB_ERROR_MEMORY 14u
#define GDB_ERROR_BUSY 16u
#define GDB_ERROR_REFUSED 22u
#define GDB_ERROR_FULL 28u

/* Each is a packet, without its first letters. */
void gdb_cmd_read_digits(struct gdb *g, struct gdb_text t);
void gdb_cmd_read_binary(struct gdb *g, struct gdb_text t);
void gdb_cmd_write_digits(struct gdb *g, struct gdb_text t);
void gdb_cmd_write_binary(struct gdb *g, struct gdb_text t);

void gdb_cmd_insert(struct gdb *g, struct gdb_text t);
void gdb_cmd_remove(struct gdb *g, struct gdb_text t);

/* Threads have the numbers of their CPUs, + 1; -1 is all, 0 any. False: there is none. */
bool gdb_thread(struct gdb *g, struct gdb_text *t, unsigned *cpu);
void gdb_cmd_vcont(struct gdb *g, struct gdb_text t);
void gdb_cmd_continue(struct gdb *g, struct gdb_text t);
void gdb_cmd_step(struct gdb *g, struct gdb_text t);
void gdb_cmd_continue_signal(struct gdb *g, struct gdb_text t);
void gdb_cmd_step_signal(struct gdb *g, struct gdb_text t);
void gdb_cmd_back_step(struct gdb *g, struct gdb_text t);
void gdb_cmd_back_continue(struct gdb *g, struct gdb_text t);
/* Why the machine stands; SIGNAL where no CPU has stopped of itself. */
void gdb_put_stop(struct gdb *g, unsigned signal);

void gdb_cmd_monitor(struct gdb *g, struct gdb_text t);

void gdb_cmd_query(struct gdb *g, struct gdb_text t);
void gdb_cmd_set(struct gdb *g, struct gdb_text t);

/* The packet in g->frame is answered in g->reply. */
void gdb_command(struct gdb *g);

#endif
