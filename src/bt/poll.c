/* The poll page: how others make translated code come back. */
#include "bt/bt_int.h"

void bt_kick(struct bt *bt) {
    if (__atomic_load_n(&bt->in_tc, __ATOMIC_SEQ_CST)) {
        __atomic_store_n(&bt->poll_closed, true, __ATOMIC_SEQ_CST);
        os_poll_set(bt->poll_page, false);
    }
}

void bt_poll_open(struct bt *bt) {
    if (likely(!__atomic_load_n(&bt->poll_closed, __ATOMIC_SEQ_CST)))
        return;
    __atomic_store_n(&bt->poll_closed, false, __ATOMIC_SEQ_CST);
    os_poll_set(bt->poll_page, true);
}
