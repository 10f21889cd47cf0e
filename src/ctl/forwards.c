/* Forwarded ports of machines that run; see forwards.h. On the loop's thread. */
#include "ctl/forwards.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ctl/net_option.h"
#include "net/net.h"

static void put_list(const struct forwards *f, struct control_request *r) {
    cJSON *array = cJSON_CreateArray();
    const struct net_forward *list;
    char text[NET_OPTION_FORWARD];

    for (unsigned n = 0; n < f->machine->net_count; n++) {
        unsigned count = net_forwards(f->machine->nets[n].net, &list);

        for (unsigned k = 0; k < count; k++) {
            cJSON *o = cJSON_CreateObject();

            net_option_print_forward(&list[k], text);
            cJSON_AddNumberToObject(o, "net", n);
            cJSON_AddStringToObject(o, "forward", text);
            cJSON_AddItemToArray(array, o);
        }
    }
    control_put(r, "forwards", array);
}

static const char *reason(int rc, bool add) {
    switch (rc) {
    case -EOPNOTSUPP:
        return "only a user network has forwards";
    case -EBUSY:
        return "another one is being changed";
    case -EEXIST:
        return "this one is there already";
    case -ENOENT:
        return "there is no such forward";
    case -ENOSPC:
        return "there are too many";
    case -EPIPE:
        return "the network's process has ended";
    default:
        return add ? strerror(-rc) : "it could not be removed";
    }
}

static void on_done(void *arg, int rc) {
    struct forwards_wait *w = arg;
    struct control_request *r = w->r;

    w->r = NULL;
    if (!r) /* who asked could not wait */
        return;
    if (rc)
        control_refuse(r, "%s", reason(rc, w->add));
    control_finish(r);
}

static void change(struct forwards *f, struct control_request *r, const char *text,
                   bool add) {
    unsigned n = (unsigned)control_number(r, "net", 0);
    struct forwards_wait *w = &f->wait[n];
    struct net_forward forward;
    int rc;

    if (n >= f->machine->net_count) {
        control_refuse(r, "there is no network %u", n);
        return;
    }
    if (!net_option_parse_forward(text, &forward)) {
        control_refuse(r, "a forward is PROTOCOL:[ADDR]:PORT:GUESTPORT, as in "
                          "tcp:127.0.0.1:2222:22");
        return;
    }
    rc = net_forward_change(f->machine->nets[n].net, &forward, add, on_done, w);
    if (rc) {
        control_refuse(r, "%s", reason(rc, add));
        return;
    }
    *w = (struct forwards_wait){control_later(r), add};
}

static void run_forward(void *arg, struct control_request *r) {
    const char *add = control_text(r, "add", NULL), *drop = control_text(r, "drop", NULL);

    if (add && drop)
        control_refuse(r, "one of 'add' and 'drop' is possible at a time");
    else if (add || drop)
        change(arg, r, add ? add : drop, add);
    else
        put_list(arg, r);
}

static const struct control_arg args[] = {
    {"net", CONTROL_NUMBER, false, 0, MACHINE_NETS - 1, "which --net, 0 being the first"},
    {"add", CONTROL_TEXT, false, 1, 127, "one more, as forward= of --net has it"},
    {"drop", CONTROL_TEXT, false, 1, 127, "one less"},
    {0},
};

static const struct control_command commands[] = {
    {.name = "forward",
     .what = "lists ports of the host that lead to the guest, or changes one",
     .args = args,
     .run = run_forward},
    {0},
};

void forwards_add(struct forwards *f, struct control_table *t) {
    control_add(t, commands, f);
}
