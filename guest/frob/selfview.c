/*
 * What frob sees of itself: the classic obstacles of this architecture (Popek and
 * Goldberg's conditions fail where an instruction shows privileged state, or silently
 * does less at a lower privilege, without a trap).
 *
 *   - the CPL in the low bits of %cs, read at each ring;
 *   - POPF: IF changes when CPL <= IOPL, and silently does not otherwise. AMD64 APM
 * volume 3, "POPF"; Intel SDM volume 2, "POPF", table "Effect of POPF/POPFD/POPFQ on the
 * EFLAGS Register";
 *   - SGDT and SIDT at CPL 3 (without UMIP) tell the tables that are loaded.
 */
#include "frob.h"

static const struct ring {
    ulong cs, ss;
} rings[] = {{KERNEL_CS, KERNEL_DS},
             {RING1_CS, RING1_DS},
             {RING2_CS, RING2_DS},
             {USER_CS, USER_DS}};

/* What the code at a ring leaves for us. */
static volatile ulong seen_cs, seen_set, seen_clear, seen_pushf;
static struct {
    uint16_t limit;
    ulong base;
} __attribute__((packed)) seen_gdt, seen_idt;

static void look_at_cs(ulong arg) {
    ulong cs;

    __asm__ volatile("mov %%cs, %0" : "=r"(cs));
    seen_cs = cs;
}

/* Comes in with IF clear (ARG 0) or set; tries to set it, then to clear it. */
static void try_popf(ulong arg) {
    ulong flags = read_flags();

    seen_pushf = flags & X86_FL_IF;
    __asm__ volatile("push %0\npopf" ::"r"(flags | X86_FL_IF) : "memory", "cc");
    seen_set = read_flags() & X86_FL_IF;
    __asm__ volatile("push %0\npopf" ::"r"(flags & ~(ulong)X86_FL_IF) : "memory", "cc");
    seen_clear = read_flags() & X86_FL_IF;
}

static void look_at_tables(ulong arg) {
    __asm__ volatile("sgdt %0" : "=m"(seen_gdt));
    __asm__ volatile("sidt %0" : "=m"(seen_idt));
}

bool self_check(const char *name, uint64_t got, uint64_t want) {
    report_text("self name=");
    report_text(name);
    report_text(" got=");
    report_hex(got);
    report_text(" want=");
    report_hex(want);
    report_text(got == want ? " ok=1\n" : " ok=0\n");
    return got == want;
}

/* IF after POPF as one number: bit 0 after the attempt to set it, bit 1 after the attempt
 * to clear it, bit 2 as PUSHF showed it before. */
static uint64_t popf_result(unsigned ring, unsigned iopl, bool on) {
    const ulong flags =
        X86_FL_ONE | (ulong)iopl << X86_FL_IOPL_SHIFT | (on ? X86_FL_IF : 0);

    ring_call(rings[ring].cs, rings[ring].ss, flags, try_popf, 0);
    return (seen_set ? 1 : 0) | (seen_clear ? 2 : 0) | (seen_pushf ? 4 : 0);
}

static unsigned check_rings(void) {
    static const char *const names[] = {"cs_cpl0", "cs_cpl1", "cs_cpl2", "cs_cpl3"};
    unsigned failed = 0;

    for (unsigned r = 0; r < COUNT(rings); r++) {
        ring_call(rings[r].cs, rings[r].ss, X86_FL_ONE, look_at_cs, 0);
        failed += !self_check(names[r], seen_cs & 3, r);
    }
    return failed;
}

static unsigned check_popf(void) {
    static const char *const off[] = {"popf_cpl0_if0", "popf_cpl1_if0", "popf_cpl2_if0",
                                      "popf_cpl3_if0"};
    static const char *const on[] = {"popf_cpl0_if1", "popf_cpl1_if1", "popf_cpl2_if1",
                                     "popf_cpl3_if1"};
    unsigned failed = 0;

    for (unsigned r = 0; r < COUNT(rings); r++) {
        /* With IOPL 0 only CPL 0 moves IF; the others keep what they came with. */
        failed += !self_check(off[r], popf_result(r, 0, false), r ? 0 : 1);
        failed += !self_check(on[r], popf_result(r, 0, true), r ? 7 : 5);
    }
    failed += !self_check("popf_cpl3_iopl3", popf_result(3, 3, false), 1);
    return failed;
}

static unsigned check_tables(void) {
    ulong gdt, idt;
    unsigned failed;

    ring_call(KERNEL_CS, KERNEL_DS, X86_FL_ONE, look_at_tables, 0);
    gdt = seen_gdt.base;
    idt = seen_idt.base;
    user_call(look_at_tables, 0);
    failed = !self_check("sgdt_cpl3", seen_gdt.base, gdt);
    failed += !self_check("sidt_cpl3", seen_idt.base, idt);
    return failed;
}

unsigned self_view(void) {
    return check_rings() + check_popf() + check_tables();
}
