/*
 * What --stats tells of the translator beyond the plain counters: callouts by operation,
 * and what made the interpreter execute an instruction.
 */
#include <stdio.h>

#include "bt/bt_int.h"
#include "decode/decode.h"

void bt_note_trap(struct bt *bt, enum bt_trap_why why) {
    struct counters *cnt = bt->v->cnt;

    switch (why) {
    case BT_TRAP_RANGE:
        cnt->bt_emulated_range++;
        break;
    case BT_TRAP_DEVICE:
        cnt->bt_emulated_device++;
        break;
    case BT_TRAP_TRACED:
        cnt->bt_emulated_traced++;
        break;
    case BT_TRAP_DROPS:
        cnt->bt_emulated_drops++;
        break;
    case BT_TRAP_FAULT:
        cnt->bt_emulated_fault++;
        break;
    }
}

void bt_stats(const struct bt *bt,
              void (*emit)(void *arg, const char *name, uint64_t value), void *arg) {
    char name[64];

    if (bt->warmed)
        emit(arg, "bt_warm", bt->warmed);
    for (unsigned op = 0; op < OP_COUNT; op++) {
        if (!bt->callouts[op])
            continue;
        snprintf(name, sizeof(name), "callouts_%s", decode_op_name((enum op)op));
        emit(arg, name, bt->callouts[op]);
    }
}
