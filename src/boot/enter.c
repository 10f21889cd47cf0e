/* The states of the vCPU in which kernels are entered; see boot_int.h. */
#include "boot/boot_int.h"
#include "x86/cr.h"
#include "x86/desc.h"

static void flat(struct segment *s, uint16_t sel, uint16_t ar) {
    *s = (struct segment){.sel = sel, .ar = ar, .limit = 0xffffffff};
}

static void enter_common(struct vcpu *v, uint64_t gdt_at, uint16_t code, uint16_t data,
                         uint16_t code_ar, uint64_t entry) {
    static const uint8_t data_segs[] = {SEG_DS, SEG_ES, SEG_SS, SEG_FS, SEG_GS};
    const uint16_t data_ar =
        X86_AR_P | X86_AR_S | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_DB | X86_AR_G;

    flat(&v->seg[SEG_CS], code, code_ar);
    for (size_t i = 0; i < ARRAY_SIZE(data_segs); i++)
        flat(&v->seg[data_segs[i]], data, data_ar);
    v->tr = (struct segment){.ar = X86_AR_P | X86_DESC_TSS32_BUSY, .limit = 0x67};
    v->idtr = (struct desc_table){0};
    v->gdtr = (struct desc_table){.base = gdt_at, .limit = 0x1f};
    v->cr0 = X86_CR0_PE | X86_CR0_ET;
    v->rflags = X86_FL_ONE;
    v->rip = entry;
    for (unsigned i = 0; i < 16; i++)
        v->gpr[i] = 0;
    v->gpr[REG_RSP] = BOOT_STACK;
}

/* The descriptors in memory match the hidden state. */
static void put_gdt(struct mem *m, uint64_t at, uint16_t code, uint16_t data, bool is64) {
    uint64_t gdt[4] = {0};

    gdt[code >> 3 & 3] = is64 ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull;
    gdt[data >> 3 & 3] = 0x00cf93000000ffffull;
    mem_write(m, gpa(at), gdt, sizeof(gdt));
}

#define CODE_AR                                                                          \
    (X86_AR_P | X86_AR_S | X86_AR_CODE | X86_AR_WRITE | X86_AR_ACCESSED | X86_AR_G)

void boot_enter_flat32(struct vcpu *v, uint64_t gdt_at, uint16_t code, uint16_t data,
                       uint64_t entry) {
    enter_common(v, gdt_at, code, data, CODE_AR | X86_AR_DB, entry);
    put_gdt(v->mem, gdt_at, code, data, false);
    vcpu_update_mode(v);
}

/* Long mode with an identity map of the first 4 GiB in 2 MiB pages. */
int boot_enter_long(const struct boot_job *j, uint16_t code, uint16_t data,
                    uint64_t entry) {
    struct vcpu *v = j->v;
    uint64_t e = (BOOT_TABLES + 0x1000) | 3;

    boot_put(j, BOOT_TABLES, &e, 8);
    for (uint64_t i = 0; i < 4; i++) {
        e = (BOOT_TABLES + 0x2000 + i * 0x1000) | 3;
        boot_put(j, BOOT_TABLES + 0x1000 + i * 8, &e, 8);
    }
    for (uint64_t i = 0; i < 2048; i++) {
        e = i << 21 | 0x83;
        boot_put(j, BOOT_TABLES + 0x2000 + i * 8, &e, 8);
    }
    enter_common(v, BOOT_GDT, code, data, CODE_AR | X86_AR_L, entry);
    put_gdt(j->m, BOOT_GDT, code, data, true);
    v->cr0 |= X86_CR0_PG;
    v->cr3 = BOOT_TABLES;
    v->cr4 = X86_CR4_PAE;
    v->efer = X86_EFER_LME | X86_EFER_LMA;
    vcpu_update_mode(v);
    return 0;
}
