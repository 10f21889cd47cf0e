/* The vCPU's reset state, and the dump. */
#include "cpu/vcpu.h"

#include <stdarg.h>
#include <stdio.h>

#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/vec.h"
#include "x86/cr.h"
#include "x86/desc.h"

static const struct segment reset_data = {
    .ar = X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED, .limit = 0xffff};

/* AMD64 APM volume 2, "Processor Initialization State", table of initial states. */
void vcpu_reset(struct vcpu *v) {
    __builtin_memset(v->gpr, 0, sizeof(v->gpr));
    v->zero = 0;
    v->rip = 0xfff0;
    v->rflags = X86_FL_ONE;
    v->cpl = 0;
    v->irq_shadow = v->halted = v->nmi_blocked = v->code_written = false;
    for (unsigned s = 0; s < SEG_COUNT; s++)
        v->seg[s] = reset_data;
    v->seg[SEG_CS] = (struct segment){.sel = 0xf000,
                                      .ar = X86_AR_P | X86_AR_S | X86_AR_CODE |
                                            X86_AR_WRITE | X86_AR_ACCESSED,
                                      .limit = 0xffff,
                                      .base = 0xffff0000};
    v->ldtr = (struct segment){.ar = X86_AR_P | X86_DESC_LDT, .limit = 0xffff};
    /* Not the 16-bit kind: a CPU out of reset enters long mode without LTR (Linux,
     * arch/x86/realmode/rm/trampoline_64.S). */
    v->tr = (struct segment){.ar = X86_AR_P | X86_DESC_TSS32_BUSY, .limit = 0xffff};
    v->gdtr = v->idtr = (struct desc_table){.limit = 0xffff};
    v->cr0 = X86_CR0_CD | X86_CR0_NW | X86_CR0_ET;
    v->cr2 = v->cr3 = v->cr4 = 0;
    v->xcr0 = X86_XCR0_X87;
    __builtin_memset(v->dr, 0, sizeof(v->dr));
    v->dr[6] = X86_DR6_FIXED;
    v->dr[7] = X86_DR7_FIXED;
    v->fault = (struct fault){0};
    v->pending_db = 0;
    v->fip = v->fdp = 0;
    v->fcs = v->fds = v->fop = 0;
    vcpu_clear(v, VCPU_EVENT_NMI);
    if (v->cpuid)
        v->gpr[REG_RDX] = cpuid_query(v, 1, 0).eax;
    msr_reset(v);
    vec_reset(v);
    vcpu_update_mode(v);
}

/* --- dump --- */

struct text {
    char *at;
    size_t left;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt,
                                                      ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->at, t->left, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    size_t used = (size_t)n < t->left ? (size_t)n : t->left ? t->left - 1 : 0;
    t->at += used;
    t->left -= used;
}

static void dump_flags(const struct vcpu *v, struct text *t) {
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {
        {X86_FL_CF, "CF"}, {X86_FL_PF, "PF"},   {X86_FL_AF, "AF"},   {X86_FL_ZF, "ZF"},
        {X86_FL_SF, "SF"}, {X86_FL_TF, "TF"},   {X86_FL_IF, "IF"},   {X86_FL_DF, "DF"},
        {X86_FL_OF, "OF"}, {X86_FL_NT, "NT"},   {X86_FL_RF, "RF"},   {X86_FL_VM, "VM"},
        {X86_FL_AC, "AC"}, {X86_FL_VIF, "VIF"}, {X86_FL_VIP, "VIP"}, {X86_FL_ID, "ID"}};
    put(t, "rflags %08llx", (unsigned long long)v->rflags);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        if (v->rflags & names[i].bit)
            put(t, " %s", names[i].name);
    }
    put(t, " iopl=%u\n", (unsigned)(v->rflags & X86_FL_IOPL) >> X86_FL_IOPL_SHIFT);
}

static void dump_segment(struct text *t, const char *name, const struct segment *s) {
    static const char *const data[] = {"ro", "rw", "ro down", "rw down"};
    static const char *const code[] = {"x", "rx", "x conf", "rx conf"};
    const char *const *kinds = s->ar & X86_AR_CODE ? code : data;
    put(t, "%-4s %04x base %016llx limit %08x ar %04x", name, s->sel,
        (unsigned long long)s->base, s->limit, s->ar);
    if (!(s->ar & X86_AR_P))
        put(t, " unusable\n");
    else if (!(s->ar & X86_AR_S))
        put(t, " system type %u\n", s->ar & X86_AR_TYPE);
    else
        put(t, " dpl %u %s%s%s\n", (s->ar & X86_AR_DPL) >> X86_AR_DPL_SHIFT,
            kinds[(s->ar >> 1) & 3], s->ar & X86_AR_DB ? " 32" : "",
            s->ar & X86_AR_L ? " 64" : "");
}

static void dump_control(const struct vcpu *v, struct text *t) {
    put(t, "gdtr base %016llx limit %04x  idtr base %016llx limit %04x\n",
        (unsigned long long)v->gdtr.base, v->gdtr.limit, (unsigned long long)v->idtr.base,
        v->idtr.limit);
    put(t, "cr0 %08llx cr2 %016llx cr3 %016llx cr4 %08llx\n", (unsigned long long)v->cr0,
        (unsigned long long)v->cr2, (unsigned long long)v->cr3,
        (unsigned long long)v->cr4);
    put(t, "efer %08llx xcr0 %llx dr6 %08llx dr7 %08llx\n", (unsigned long long)v->efer,
        (unsigned long long)v->xcr0, (unsigned long long)v->dr[6],
        (unsigned long long)v->dr[7]);
    put(t, "last fault: vector %u error %x address %016llx\n", v->fault.vector,
        v->fault.has_error ? v->fault.error : 0, (unsigned long long)v->fault.addr);
}

void vcpu_dump(const struct vcpu *v, char *buf, size_t size) {
    static const char *const regs[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp",
                                         "rsi", "rdi", "r8",  "r9",  "r10", "r11",
                                         "r12", "r13", "r14", "r15"};
    static const char *const segs[SEG_COUNT] = {"es", "cs", "ss", "ds", "fs", "gs"};
    static const char *const modes[] = {"16-bit", "32-bit", "64-bit"};
    struct text t = {buf, size};
    for (unsigned i = 0; i < 16; i++)
        put(&t, "%-3s %016llx%s", regs[i], (unsigned long long)v->gpr[i],
            i % 3 == 2 ? "\n" : "  ");
    put(&t, "rip %016llx\n", (unsigned long long)v->rip);
    dump_flags(v, &t);
    put(&t, "%s code, %s, CPL %u%s%s%s\n", modes[v->mode <= MODE_64 ? v->mode : MODE_64],
        vcpu_is_real(v)         ? "real mode"
        : v->long_mode          ? "long mode"
        : v->rflags & X86_FL_VM ? "virtual-8086 mode"
                                : "protected mode",
        v->cpl, v->halted ? ", halted" : "", v->irq_shadow ? ", interrupt shadow" : "",
        v->nmi_blocked ? ", NMI blocked" : "");
    for (unsigned s = 0; s < SEG_COUNT; s++)
        dump_segment(&t, segs[s], &v->seg[s]);
    dump_segment(&t, "ldtr", &v->ldtr);
    dump_segment(&t, "tr", &v->tr);
    dump_control(v, &t);
}
