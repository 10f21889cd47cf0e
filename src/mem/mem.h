/*
 * Guest-physical memory: what is where, and traces.
 *
 * Memory consists of regions. RAM is there from the start (and goes on at 4 GiB above the
 * hole), and so is a ROM that ends at 4 GiB, where the CPU begins after a reset; more
 * come and go (mem_region_add()), and may be moved while the guest runs. Pages of a
 * region can be made read-only, or be hidden (mem_set_kind()). What no region shows is
 * MMIO: the bus answers.
 *
 * Regions may overlap: the earlier one hides the later, RAM comes first, and nothing
 * hides RAM but mem_set_kind(). Each byte is at one address at most: no region is seen
 * twice. 0xa0000-0xbffff is RAM-backed video memory (text consoles write there and read
 * it back), 0xc0000-0xfffff is RAM as well, as after a chip set's reset.
 *
 * All of it is one host mapping, made in the beginning, in which a page keeps its place:
 * a host pointer stays good for as long as there is a machine, whatever becomes of the
 * region. What is derived from a page's contents hangs on its host address; what is
 * derived from where it is (shadows, a kernel's memory slots) is void when hooks.changed
 * is called.
 *
 * Traces: each page has a byte of trace bits. A traced page must never have a write
 * entry in a shadow: mem_trace_add() calls hooks.drop_write for it, and every store to it
 * then takes a slow path that ends in mem_trace_hit(), before the bytes change. A page
 * that goes away is reported as written.
 *
 * Many threads: hooks.lock is held while a trace is set or taken off, while its owner
 * reads the page and notes what it derived from it, and by a store to a traced page from
 * the look at the trace until the bytes have changed. Who stores to a page without a
 * write entry and finds no trace looks again afterwards, behind a fence (mem_store()):
 * either it sees the trace then, or the owner has read what it stored. What is where
 * changes while nobody else uses memory (hooks.freeze).
 *
 * Everything here checks its addresses; none of it asserts on guest input. Functions that
 * take a host pointer ignore one that is not inside the mapping.
 *
 * Copies use `rep movsb`, so that they may run while guest vector state is live
 * (cpu/vec.h).
 */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include "base/types.h"

#define MEM_HOLE_START 0xc0000000ull /* RAM below 4 GiB ends here at the latest */
#define MEM_HOLE_END 0x100000000ull
#define MEM_ROM_SIZE 0x10000ull /* the ROM's at the end of the hole, at first */
#define MEM_ROM_START (MEM_HOLE_END - MEM_ROM_SIZE)
#define MEM_ROM_MAX (16ull << 20)
#define MEM_ADDED_MAX (48ull << 20) /* all that mem_region_add() can give */
#define MEM_MIN_RAM (4ull << 20)
#define MEM_MAX_RAM (1ull << 40)

enum mem_kind { MEM_NONE, MEM_RAM, MEM_ROM };

enum mem_trace {
    MEM_TRACE_CODE = 1u << 0,   /* the interpreter has decoded code from the page */
    MEM_TRACE_PT = 1u << 1,     /* page tables that retained shadows depend on */
    MEM_TRACE_DIRTY = 1u << 2,  /* nobody has written to it since (mem_track_start()) */
    MEM_TRACE_TC = 1u << 3,     /* the translation cache has code from the page */
    MEM_TRACE_DIRECT = 1u << 4, /* cells may execute code from the page */
};
#define MEM_TRACE_COUNT 5

/* What is seen at an address: a region, or as much of one as nothing hides. */
struct mem_piece {
    struct gpa start;
    uint64_t size;
    enum mem_kind kind; /* MEM_RAM or MEM_ROM */
    bool added;         /* of a region of mem_region_add(): no RAM of the board's */
    uint8_t *host;
};

struct mem_hooks {
    /* Something is elsewhere now, or of another kind: shadows are void. May be NULL. */
    void (*changed)(void *arg);
    void *changed_arg;
    /* The shadow must forget write entries for the RAM page at HOST_PAGE, or all. */
    void (*drop_write)(void *arg, uint8_t *host_page);
    void (*drop_writes)(void *arg);
    /* A store of LEN bytes (within one page) is about to hit a page traced by owner N. */
    void (*on_write[MEM_TRACE_COUNT])(void *arg, struct gpa at, unsigned len);
    /* The lock of traces, which may be taken again by its holder; and: everybody else who
     * uses memory stands still, the lock is held. NULL: there is one thread. */
    void (*lock)(void *arg);
    void (*unlock)(void *arg);
    void (*freeze)(void *arg);
    void (*thaw)(void *arg);
    void *lock_arg;
    void *drop_arg;
    void *on_write_arg[MEM_TRACE_COUNT];
};

/* memcpy() without vector registers. AddressSanitizer does not see into assembly. */
static inline void mem_copy(void *to, const void *from, uint64_t len) {
#ifdef __SANITIZE_ADDRESS__
    for (uint64_t i = 0; i < len; i++)
        ((volatile uint8_t *)to)[i] = ((const volatile uint8_t *)from)[i];
#else
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : : "memory");
#endif
}

/* memset() without vector registers. */
static inline void mem_fill(void *to, uint8_t byte, uint64_t len) {
#ifdef __SANITIZE_ADDRESS__
    for (uint64_t i = 0; i < len; i++)
        ((volatile uint8_t *)to)[i] = byte;
#else
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(len) : "a"(byte) : "memory");
#endif
}

struct mem;

/* RAM of SIZE bytes (a multiple of 4 KiB, MEM_MIN_RAM..MEM_MAX_RAM), zeroed.
 * 0, or -errno (-EINVAL for the size, -ENOMEM when the host cannot). */
int mem_create(uint64_t size, struct mem **out);
void mem_destroy(struct mem *m);
/* The descriptor of what the host has mapped: RAM is at its beginning. -1: there is none.
 */
int mem_ram_fd(const struct mem *m);

/* Zeroes RAM, drops all traces and what mem_set_kind() did (hooks are kept, and not
 * called); for a machine reset. Regions stay where they are, the ROM among them, with
 * what is in them. Whoever derived anything from memory (shadow, decoded code) drops it
 * too.
 */
void mem_reset(struct mem *m);

/* Installs upward signals; the caller keeps ownership of what ARGs point to. */
struct mem_hooks *mem_hooks(struct mem *m);
/* OWNER is WRITTEN(ARG, ...) from now on: hooks.on_write. NULL: nobody. */
void mem_own_trace(struct mem *m, enum mem_trace owner,
                   void (*written)(void *arg, struct gpa at, unsigned len), void *arg);

uint64_t mem_ram_size(const struct mem *m);
/* What is where, in ascending order: *COUNT pieces; the array is the map's own. */
const struct mem_piece *mem_map(const struct mem *m, size_t *count);
/* The host mapping: mem_ram_size() bytes of RAM, then everything else, mem_host_size()
 * bytes in all. What is kept for each page of memory has a place for each page of these.
 */
uint8_t *mem_ram_base(const struct mem *m);
uint64_t mem_host_size(const struct mem *m);

/* --- regions --- */

struct mem_region;

/*
 * Adds LEN zeroed bytes at START, shown, as MEM_RAM or MEM_ROM. 0 and a handle; -EINVAL
 * when they are not whole pages, -ENOSPC when MEM_ADDED_MAX does not suffice. The handle
 * is good until mem_region_remove() or mem_destroy().
 */
int mem_region_add(struct mem *m, struct gpa start, uint64_t len, enum mem_kind kind,
                   struct mem_region **out);
void mem_region_remove(struct mem *m, struct mem_region *r);
/* It begins at START from now on, a page boundary (else -EINVAL). Where it would reach
 * beyond the last address it is not seen at all. */
int mem_region_move(struct mem *m, struct mem_region *r, struct gpa start);
/* Not shown, it keeps its place and its bytes. */
void mem_region_show(struct mem *m, struct mem_region *r, bool on);
/* Its bytes, whether they are seen or not. */
uint8_t *mem_region_host(const struct mem *m, const struct mem_region *r);

/* The ROM that ends at 4 GiB has LEN bytes from now on: whole pages, MEM_ROM_MAX at most
 * (else -EINVAL). Its last bytes stay as they are. */
int mem_rom_resize(struct mem *m, uint64_t len);

/*
 * Pages that one region has are of KIND now: MEM_RAM, MEM_ROM (read-only for the guest),
 * or MEM_NONE, hidden: the bus answers, or a later region. -EINVAL when [START,
 * START+LEN) is not whole pages of one region, -ENOSPC when the map would get too
 * fragmented; then nothing has changed.
 */
int mem_set_kind(struct mem *m, struct gpa start, uint64_t len, enum mem_kind kind);

/* What is at an address. */
enum mem_kind mem_kind_at(const struct mem *m, struct gpa at);
/* Of a pointer that mem_host() gave. */
enum mem_kind mem_kind_of(const struct mem *m, const uint8_t *host);

/* Host pointer to [AT, AT+LEN) when all of it is in one piece of the map, else NULL. */
uint8_t *mem_host(const struct mem *m, struct gpa at, uint64_t len);
/* The page at HOST, which mem_host() gave, is about to be used. When some around it have
 * been, the host is asked to back all of them by a large page (os_large_page()), which
 * takes less time than to touch the rest one by one. */
void mem_use(struct mem *m, const uint8_t *host);
/* The guest-physical address of a pointer that mem_host() gave; ~0 for any other, and for
 * one to what is not seen any more. */
struct gpa mem_gpa(const struct mem *m, const uint8_t *host);

/* Checked copies, for loaders, devices and descriptor code. False when any byte is not
 * RAM (or, for a write, not writable). mem_write() honours traces. */
bool mem_read(const struct mem *m, struct gpa at, void *buf, uint64_t len);
bool mem_write(struct mem *m, struct gpa at, const void *buf, uint64_t len);
/* As mem_write(), but into ROM too: for who makes the ROM. */
bool mem_program(struct mem *m, struct gpa at, const void *buf, uint64_t len);

/* For who reads and writes in place. Host address of AT, and in *N how many of the LEN
 * bytes from there on follow it; NULL when it is no memory, or WRITE and ROM. */
uint8_t *mem_run(const struct mem *m, struct gpa at, uint64_t len, bool write,
                 uint64_t *n);
/* As mem_write(), where mem_run() or mem_host() has said that it is RAM. An aligned value
 * of 2, 4 or 8 bytes is one store, which others see after all that came before it. */
void mem_store(struct mem *m, uint8_t *host, const void *buf, uint64_t len);
/* The byte at AT becomes VALUE, by one locked access: what it was, or -1 where there is
 * no RAM. Honours traces. */
int mem_exchange(struct mem *m, struct gpa at, uint8_t value);
/* [HOST, HOST+LEN), of which mem_run() or mem_host() gave the beginning, is about to
 * change: the owners of traces are told. Where another thread writes, without the lock,
 * the call comes after it: what they have seen in between is void. */
void mem_about_to_write(struct mem *m, uint8_t *host, uint64_t len);

/* Whole pages of RAM go back to the host; they are zeros from now on, and come again when
 * they are touched. What is not RAM, or not whole, is left as it is. The owners of traces
 * are told; translations of addresses stay good. */
void mem_discard(struct mem *m, struct gpa at, uint64_t len);

/* The lock of traces (hooks.lock), if there is one; may be taken again by its holder. */
void mem_lock(struct mem *m);
void mem_unlock(struct mem *m);

/* --- which pages are written to (track.c) --- */

/* From now on that is known. While nobody executes the guest. */
void mem_track_start(struct mem *m);
bool mem_tracked(const struct mem *m);
/* The pages of the mapping that were written to since mem_track_start() or the last call
 * of this: their bits are set in BITS, which has one for each page, and others stay as
 * they are. While nobody executes the guest. */
void mem_track_collect(struct mem *m, uint64_t *bits);
/* How many that would be; all of them, if it is not known. At any time. */
uint64_t mem_track_count(const struct mem *m);
/* Page number PAGE of the mapping has been written to past all traces. */
void mem_track_written(struct mem *m, uint64_t page);

/* --- snapshots; nobody else uses memory meanwhile --- */

/* All of the mapping, to the beginning of the file FD, whose holes are its zeros. 0 or
 * -errno. */
int mem_save(const struct mem *m, int fd);
/* The same bit by bit, while the guest runs: the length, then what is from *AT on, of
 * which *AT says afterwards how far it went; at mem_host_size() that is all. Then pages
 * FROM to END (numbers of the mapping's) once more. */
int mem_save_begin(const struct mem *m, int fd);
int mem_save_part(const struct mem *m, int fd, uint64_t *at);
int mem_save_pages(const struct mem *m, int fd, uint64_t from, uint64_t end);
/* What mem_save() wrote to FD comes in the place of all there is: copied; or shown, and
 * copied by the host page by page as it is written to. Then nobody else sees what is
 * written (mem_ram_fd() is -1), and the file is to stay as it is. 0, -EINVAL when FD is
 * no such file, or another -errno. */
int mem_load(struct mem *m, int fd);
int mem_overlay(struct mem *m, int fd);
/* After it: pages FROM to END are those of another such file, copied. */
int mem_load_pages(struct mem *m, int fd, uint64_t from, uint64_t end);
/* The ROM at the end of the hole. */
uint64_t mem_rom_size(const struct mem *m);

/* Traces. HOST_PAGE is page-aligned and inside the mapping. Who adds one or takes one off
 * holds the lock, or does it in a call (cpu/smp.h) of who does; who adds one goes on
 * holding it until it has noted what it derives from the page. */
void mem_trace_add(struct mem *m, uint8_t *host_page, enum mem_trace owner);
void mem_trace_remove(struct mem *m, uint8_t *host_page, enum mem_trace owner);
unsigned mem_trace_of(const struct mem *m, const uint8_t *host_page);
/* Tells the owners. To be called before the bytes change, with the lock held until they
 * have changed. [AT, AT+LEN) is in one page. */
void mem_trace_hit(struct mem *m, uint8_t *host, unsigned len);

#endif
