/*
 * The fields of struct vcpu that translated code may name, by what it may do with them.
 * Whatever is not in this table is a finding: the hooks, the pointers to the world and to
 * C functions, the stack of ours, and what lies between the elements of an array.
 */
#include "verify/verify_int.h"

/* clang-format off */
#define FIELD(f, r, w, what) \
    {offsetof(struct vcpu, f), sizeof(((struct vcpu *)0)->f), FIELD_##r, FIELD_##w, V_##what, -1}
/* What translated code keeps in the vCPU. */
#define OURS(f, r, w, what) \
    {GS_TR(f), sizeof(((struct tr_vcpu *)0)->f), FIELD_##r, FIELD_##w, V_##what, -1}
#define FOLLOWED(f, first) \
    {GS_TR(f), sizeof(((struct tr_vcpu *)0)->f), FIELD_ANY, FIELD_ANY, V_SECRET, first}

/* Reading one, writing it, and what one reads. CPL0: by code of that level alone. */
static const struct vfield fields[] = {
    FIELD(general,                ANY,  ANY,  PUBLIC),
    FIELD(rip,                    NO,   ANY,  PUBLIC),
    FIELD(rflags,                 ANY,  ANY,  PUBLIC), /* see v_store_flags() */
    FIELD(events,                 CPL0, NO,   PUBLIC),
    FIELD(segbase[SEG_ES],        ANY,  NO,   PUBLIC),
    FIELD(segbase[SEG_CS],        ANY,  NO,   PUBLIC),
    FIELD(segbase[SEG_SS],        ANY,  NO,   PUBLIC),
    FIELD(segbase[SEG_DS],        ANY,  NO,   PUBLIC),
    FIELD(segbase[SEG_FS],        ANY,  NO,   PUBLIC),
    FIELD(segbase[SEG_GS],        ANY,  CPL0, PUBLIC),
    FOLLOWED(tmp, CELL_TMP),
    FOLLOWED(spill[0], CELL_SPILL), /* the other is the stubs' */
    FOLLOWED(held, CELL_HELD),
    OURS(count,                   ANY,  ANY,  PUBLIC),
    OURS(indirect_hits,           ANY,  ANY,  PUBLIC),
    FIELD(shadow.bank,                ANY,  CPL0, BANK),
    FIELD(shadow.bank_super,          CPL0, NO,   BANK),
    FIELD(shadow.bank_ac,             CPL0, NO,   BANK),
    OURS(jump,                    ANY,  NO,   JUMPS),
    FIELD(shadow.code,            ANY,  NO,   FETCH),
    OURS(here,                    ANY,  ANY,  PUBLIC),
    OURS(x87_here,                NO,   ANY,  PUBLIC),
    OURS(fuel,                    ANY,  ANY,  FUEL),
    OURS(poll,                    ANY,  NO,   POLL),
    OURS(owed,                    NO,   ANY,  PUBLIC),
    OURS(site,                    NO,   ANY,  PUBLIC),
    FIELD(x87_at,                 NO,   ANY,  PUBLIC),
    OURS(flags,                   ANY,  ANY,  PUBLIC),
    FIELD(seg[SEG_ES].sel,        ANY,  NO,   PUBLIC),
    FIELD(seg[SEG_CS].sel,        ANY,  NO,   PUBLIC),
    FIELD(seg[SEG_SS].sel,        ANY,  NO,   PUBLIC),
    FIELD(seg[SEG_DS].sel,        ANY,  NO,   PUBLIC),
    FIELD(seg[SEG_FS].sel,        ANY,  NO,   PUBLIC),
    FIELD(seg[SEG_GS].sel,        ANY,  NO,   PUBLIC),
    FIELD(seg[SEG_GS].base,       CPL0, CPL0, PUBLIC),
    FIELD(kernel_gs_base,         CPL0, CPL0, PUBLIC),
    FIELD(cr0,                    CPL0, NO,   PUBLIC),
    FIELD(cr2,                    CPL0, NO,   PUBLIC),
    FIELD(cr3,                    CPL0, NO,   PUBLIC),
    FIELD(cr4,                    CPL0, NO,   PUBLIC),
    FIELD(tsc_base,               ANY,  NO,   PUBLIC),
    FIELD(tsc_aux,                ANY,  NO,   PUBLIC),
};
/* clang-format on */

const struct vfield *v_field(int64_t off, unsigned size) {
    for (size_t k = 0; k < ARRAY_SIZE(fields); k++) {
        const struct vfield *f = &fields[k];

        if (size && off >= f->off && off + (int64_t)size <= f->off + f->size)
            return f;
    }
    return NULL;
}
