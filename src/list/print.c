/* What a listing consists of. (lint: no guest runs here) */
#include "list/list_int.h"

/* 0 or -ENOMEM. */
static int print_unit(const struct list *l, size_t n) {
    const struct list_unit *u = &l->units[n];

    if (!u->n) {
        list_line(l,
                  "TU %zu: 0x%llx: not translated: there is no instruction that can be "
                  "fetched here",
                  n + 1, (unsigned long long)u->va);
        return 0;
    }
    list_line(l, "TU %zu: 0x%llx, %u instruction%s", n + 1, (unsigned long long)u->va,
              u->n, u->n == 1 ? "" : "s");
    list_ir(l, u);
    if (!u->c)
        return 0;
    list_line(l, "%s", "");
    list_line(l, "CCF %zu: %u bytes of guest code, %u of host code", n + 1,
              u->c->guest_len, (unsigned)(u->c->end - u->c->start));
    return list_host(l, u);
}

static void print_sum(const struct list *l) {
    unsigned links = 0, chained = 0, guest = 0, host = 0;

    for (size_t n = 0; n < l->count; n++) {
        const struct tr_code *c = l->units[n].c;

        if (!c)
            continue;
        guest += c->guest_len;
        host += (unsigned)(c->end - c->start);
        links += c->nlinks;
        for (unsigned k = 0; k < c->nlinks; k++)
            chained += c->links[k].to != NULL;
    }
    list_line(l,
              "%zu TU%s, %u bytes of guest code, %u of host code; %u of %u exits chained",
              l->count, l->count == 1 ? "" : "s", guest, host, chained, links);
}

int list_print(const struct list *l) {
    bool real = l->env->v->mode == MODE_16;
    int rc = 0;

    if (real)
        list_line(l, "16-bit code is not translated: the interpreter executes it. Guest "
                     "code and IR:");
    for (size_t n = 0; n < l->count && !rc; n++) {
        if (n || real)
            list_line(l, "%s", "");
        rc = print_unit(l, n);
    }
    if (real || rc)
        return rc;
    list_line(l, "%s", "");
    print_sum(l);
    return 0;
}
