/*
 * Shared by the files of the engine.
 *
 * The guest's state is in one of two places: in the control block (`loaded`), but for the
 * general registers other than RAX and RSP, which the world switch loads from struct vcpu
 * and stores there; or in struct vcpu, all of it. svm_push() and svm_pull() move it, as
 * seldom as may be: an exit for a port, an MSR or CPUID needs what the control block has.
 * x87, SSE and AVX state is in the host's registers while the guest runs (cpu/vec.h), and
 * stays there between two entries unless somebody parks it.
 *
 * An event that was being delivered when the guest came back (EXITINTINFO) is in `event`:
 * it is injected with the next entry, or delivered by the interpreter if that comes
 * first.
 */
#ifndef SVM_INT_H
#define SVM_INT_H

#include "cpu/vcpu.h"
#include "decode/insn.h"
#include "mmu/mmu.h"
#include "svm/svm.h"
#include "x86/svm.h"

struct svm_counters {
#define COUNTER(name, what) uint64_t name;
#include "svm/counters.def"
#undef COUNTER
};

#define SVM_LOCALS 4096u

/* Instructions that leave and need not be the interpreter's (shortcut.c). */
enum svm_short { SVM_SHORT_CPUID, SVM_SHORT_RDMSR, SVM_SHORT_WRMSR, SVM_SHORT_COUNT };

/* Shadow paging: the tables for one space of the MMU's (shadow.c). */
struct svm_root {
    uint64_t *table; /* NULL: none yet */
    unsigned super;  /* the space whose supervisor's banks it has entries of */
    bool wide;       /* long mode's four levels */
    bool stale;      /* the hardware may keep what is no longer in it, by its ASID */
    unsigned locals; /* pages in it that are not global; SVM_LOCALS: or more */
    uint64_t local[SVM_LOCALS];
};

struct svm {
    struct vcpu *v;
    struct interp *interp;
    const struct cpuid_model *outer; /* v->cpuid before ours */
    struct cpuid_model *model;
    const struct svm_host *host;
    struct x86_vmcb *vmcb;
    uint8_t *iopm, *msrpm;
    bool shadow; /* shadow page tables instead of nested ones */
    enum svm_exits exits;
    bool pauses;           /* they leave */
    struct svm_root *root; /* of MMU_SPACES_MAX; shadow only */
    unsigned asid;         /* the first one that is ours */
    unsigned asids;        /* how many are ours */
    bool asids_lent;       /* others' at the same time: void whenever we run again */
    unsigned first;        /* the root that has had our first ASID last */
    unsigned current;      /* of these, the one that serves */
    uint64_t filled_page;  /* what the MMU has filled last */
    bool filled_global;
    uint64_t *npt;     /* the root; NULL: to be made */
    bool logs_writes;  /* its D bits say what the guest has stored to */
    uint32_t features; /* X86_SVM_* of leaf 0x8000000a */
    bool has_xcr0, has_tsc_aux;
    bool loaded;    /* the control block has the guest's state */
    bool flush;     /* what the hardware keeps of translations is void, all of it */
    bool nmi_waits; /* IRET is intercepted: NMIs are blocked until it */
    uint64_t event; /* EVENTINJ's layout; 0: none */
    struct insn brief[SVM_SHORT_COUNT];
    struct svm_counters cnt;
};

/* convert.c: pure functions between struct vcpu and the control block */
void svm_state_get(const struct vcpu *v, struct x86_vmcb *b);
void svm_state_set(struct vcpu *v, const struct x86_vmcb *b);
uint8_t svm_cpl(const struct vcpu *v, const struct x86_vmcb *b);

/* permit.c */
void svm_permissions(struct svm *s);
void svm_intercepts(struct x86_vmcb *b, bool shadow, enum svm_exits exits);

/* npt.c: 0 or -ENOMEM */
int svm_npt_make(struct svm *s);
void svm_npt_drop(struct svm *s);

/* state.c */
void svm_push(struct svm *s);
void svm_pull(struct svm *s);
/* struct vcpu says what the control block does, which stays the owner; shadow only. */
void svm_view(struct svm *s);

/* emulate.c: the interpreter executes COUNT instructions; EXIT_COUNT: go on */
enum exit_reason svm_emulate(struct svm *s, uint64_t count);

/* shortcut.c: true: the instruction that the guest has left for is done */
void svm_shortcuts(struct svm *s);
bool svm_shortcut(struct svm *s, enum svm_short which);

/* shadow.c */
void svm_shadow_start(struct svm *s);
void svm_shadow_end(struct svm *s);
bool svm_shadow_controls(struct svm *s);
/* A page fault's exit. EXIT_COUNT: go on. */
enum exit_reason svm_page_fault(struct svm *s);

/* exits.c: handles the exit in the control block; EXIT_COUNT: go on */
enum exit_reason svm_handle_exit(struct svm *s);

#endif
