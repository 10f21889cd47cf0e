/*
 * The fields of the vCPU that follow from others.
 *
 * vcpu_update_mode() is the only place that knows how modes and descriptors become the
 * flat bitmaps, the effective bases and the linear mask that every memory operand uses.
 * A bit of seg_flat_r/w promises that sem_seg_check_slow() would find nothing, whatever
 * the offset. It does not promise a canonical address: the MMU checks that.
 */
#include "cpu/vcpu.h"
#include "x86/cr.h"
#include "x86/desc.h"

/* Which segments may be read, written, at every offset without a look at limit and type.
 * In real and virtual-8086 mode (no CHECKED_TYPES) the limit is all that counts. */
static void update_flat(struct vcpu *v, bool checked_types) {
    const unsigned usable = X86_AR_P | X86_AR_S;
    unsigned r = 0, w = 0;
    for (unsigned s = 0; s < SEG_COUNT; s++) {
        unsigned ar = v->seg[s].ar, bit = 1u << s;
        if (v->seg[s].limit != 0xffffffffu)
            continue;
        if (!checked_types) {
            r |= bit, w |= bit;
        } else if ((ar & usable) != usable) {
            continue;
        } else if (ar & X86_AR_CODE) {
            r |= ar & X86_AR_WRITE ? bit : 0; /* code: readable */
        } else if (!(ar & X86_AR_EXPDOWN)) {
            r |= bit;
            w |= ar & X86_AR_WRITE ? bit : 0;
        }
    }
    v->seg_flat_r = (uint8_t)r;
    v->seg_flat_w = (uint8_t)w;
}

void vcpu_update_mode(struct vcpu *v) {
    uint16_t cs = v->seg[SEG_CS].ar;
    v->long_mode = v->efer & X86_EFER_LMA;
    /* In real mode D keeps its value from protected mode, as limits do. */
    v->mode = v->long_mode && (cs & X86_AR_L) ? MODE_64
              : cs & X86_AR_DB                ? MODE_32
                                              : MODE_16;
    for (unsigned s = 0; s < SEG_COUNT; s++)
        v->segbase[s] = v->seg[s].base;
    if (v->mode == MODE_64) {
        v->segbase[SEG_ES] = v->segbase[SEG_CS] = 0;
        v->segbase[SEG_SS] = v->segbase[SEG_DS] = 0;
        v->seg_flat_r = v->seg_flat_w = (1u << SEG_COUNT) - 1;
        v->lin_mask = ~0ull;
        v->stack32 = true;
    } else {
        v->lin_mask = 0xffffffffu;
        v->stack32 = v->seg[SEG_SS].ar & X86_AR_DB;
        update_flat(v, (v->cr0 & X86_CR0_PE) && !(v->rflags & X86_FL_VM));
    }
    /* Alignment is part of the slow check. */
    if (unlikely((v->cr0 & X86_CR0_AM) && (v->rflags & X86_FL_AC) && v->cpl == 3))
        v->seg_flat_r = v->seg_flat_w = 0;
}
