/* Where listings go. */
#ifndef LIST_OUT_H
#define LIST_OUT_H

/* Who gets a listing: a line at a time, without newline. */
struct bt_listing {
    void (*line)(void *arg, const char *text);
    void *arg;
};

#endif
