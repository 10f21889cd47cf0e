/* Between the files of the cache. */
#ifndef TC_TC_INT_H
#define TC_TC_INT_H

#include "tc/tc.h"

/* again.c */
int tc_again_create(struct tc *tc);
void tc_again_free(struct tc *tc);
void tc_note_dropped(struct tc *tc, const struct ccf *c, enum tc_why why);
void tc_note_made(struct tc *tc, const struct ccf *c);

/* units.c */
int tc_units_create(struct tc *tc);
void tc_units_free(struct tc *tc);
void tc_unit_begin(struct tc *tc, unsigned unit);
void tc_unit_add(struct tc *tc, const struct tr_span *span, struct ccf *c);
struct ccf **tc_unit_fragments(const struct tc *tc, unsigned unit);

/* jumps.c */
void tc_jumps_free(struct tc *tc);
void tc_jump_forget(struct tc *tc, struct ccf *c);

/* links.c */
void tc_unlink(struct tc *tc, struct link *l);

/* paths.c */
void tc_path_forget(struct tc *tc, struct ccf *c); /* C is no more */

/* fragments.c */
int tc_fragments_create(struct tc *tc);
void tc_fragments_free(struct tc *tc);
void tc_fragments_reset(struct tc *tc);
/* These N fragments are about to be no more. */
void tc_forget(struct tc *tc, struct ccf **c, size_t n);

#endif
