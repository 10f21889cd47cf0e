/* -virtfs, -fsdev and virtio-9p: directories of the host's; see qemu_int.h. */
#include <string.h>

#include "qemu/qemu_int.h"

static bool take(struct qemu *q, struct qemu_list *l, const char *kind, bool with_tag) {
    struct qemu_share *s = &q->share[q->share_count];
    const char *model = qemu_value(l, "security_model");

    if (q->share_count == QEMU_SHARES)
        return qemu_refuse(q, "%s: more than %u shares are not possible", l->option,
                           QEMU_SHARES);
    *s = (struct qemu_share){.id = qemu_value(l, "id"), .path = qemu_value(l, "path")};
    if (strcmp(kind, "local") != 0 || !s->path)
        return qemu_refuse(q, "%s: bivisor shares a directory: local,path=DIR",
                           l->option);
    if (model && !strncmp(model, "mapped", 6))
        qemu_note(q, "%s: security_model=%s: owners and modes are the host's", l->option,
                  model);
    if (!qemu_switch(q, l, "readonly", false, &s->readonly))
        return false;
    if (with_tag && !(s->tag = qemu_value(l, "mount_tag")))
        return qemu_refuse(q, "%s has no mount_tag", l->option);
    q->share_count++;
    return qemu_rest(q, l, "multidevs fmode dmode writeout throttling.* ");
}

bool qemu_take_virtfs(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;

    return qemu_split(q, &l, option, value, NULL) &&
           take(q, &l, l.head ? l.head : "", true);
}

bool qemu_take_fsdev(struct qemu *q, const char *option, const char *value) {
    struct qemu_list l;

    return qemu_split(q, &l, option, value, NULL) &&
           take(q, &l, l.head ? l.head : "", false);
}

bool qemu_attach_share(struct qemu *q, struct qemu_list *l) {
    const char *id = qemu_value(l, "fsdev"), *tag = qemu_value(l, "mount_tag");

    for (size_t n = 0; id && tag && n < q->share_count; n++) {
        if (!q->share[n].id || strcmp(q->share[n].id, id) != 0)
            continue;
        q->share[n].tag = tag;
        return qemu_rest(q, l, "id bus addr disable-modern disable-legacy x-* ");
    }
    return qemu_refuse(q, "%s wants fsdev= of an -fsdev and mount_tag=", l->option);
}
