#include "lib/exec.h"

#include "cpu/vec.h"
#include "decode/decode.h"
#include "lib/need.h"
#include "sem/sem_int.h"

int exec_bytes(struct vcpu *v, const void *bytes, size_t len) {
    struct insn i;
    int rc;

    need(decode_insn(v->mode, bytes, len, &i) == DECODE_OK, "bytes that do not decode");
    need(i.len == len, "more than an instruction");
    sem_bind(v, &i);
    rc = i.exec(v, &i);
    vec_park(v); /* before anything that may use the host's vector registers */
    return rc;
}

void exec_flat_gdt(struct guest *g, uint64_t gdt, uint16_t limit) {
    guest_put64(g, gdt, 0);
    guest_put64(g, gdt + FLAT_CODE0, 0x00cf9b000000ffff);
    guest_put64(g, gdt + FLAT_DATA0, 0x00cf93000000ffff);
    guest_put64(g, gdt + FLAT_CODE3, 0x00cffb000000ffff);
    guest_put64(g, gdt + FLAT_DATA3, 0x00cff3000000ffff);
    g->v->gdtr = (struct desc_table){.base = gdt, .limit = limit};
}

static void load(struct guest *g, unsigned s, unsigned sel, unsigned cpl) {
    sem_unpack_desc(&g->v->seg[s], (uint16_t)(sel | cpl),
                    guest_get(g, g->v->gdtr.base + sel, 8));
}

void exec_enter(struct guest *g, unsigned cs, unsigned data, unsigned cpl) {
    for (unsigned s = 0; s < SEG_COUNT; s++)
        load(g, s, s == SEG_CS ? cs : data, cpl);
    g->v->cpl = (uint8_t)cpl;
    vcpu_update_mode(g->v);
    mmu_mode_changed(g->v);
    mmu_context_changed(g->v);
}

void exec_start_flat(struct guest *g, unsigned step) {
    struct vcpu *v = g->v;

    vcpu_reset(v);
    vcpu_clear(v, ~0u);
    exec_flat_gdt(g, FLAT_GDT, FLAT_DATA3 + 7);
    for (unsigned n = 0; n < 64; n++) {
        uint32_t handler = FLAT_HANDLERS + step * n;

        guest_put64(g, FLAT_IDT + 8 * n,
                    handler | (uint64_t)FLAT_CODE0 << 16 | 0x8e00ull << 32);
        guest_put(g, handler, 0xf4, 1);
    }
    v->idtr = (struct desc_table){.base = FLAT_IDT, .limit = 64 * 8 - 1};
    v->cr0 |= X86_CR0_PE;
    exec_enter(g, FLAT_CODE0, FLAT_DATA0, 0);
    v->rip = FLAT_CODE;
    v->gpr[REG_RSP] = FLAT_STACK;
}
