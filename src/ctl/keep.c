/*
 * Snapshots on the way of a counted run; see keep.h. The CPU's thread says that it is
 * time, and the loop's orders one by the command that everybody has; the guest stands
 * meanwhile, where the name says. The first is a whole one, the others are based on the
 * one before, until their chain is as long as it may be.
 */
#include "ctl/keep.h"

#include <cjson/cJSON.h>
#include <stdio.h>

#include "base/log.h"

static void reached(void *arg) {
    struct keep *k = arg;

    os_task_post(&k->task, k->take->loop);
}

static void order(struct keep *k, uint64_t now) {
    const struct take_line *l = &k->take->kept;
    char line[160], why[512];
    cJSON *answer;

    snprintf(line, sizeof(line),
             "{\"command\":\"snapshot\",\"name\":\"at-%llu\",\"incremental\":%s}",
             (unsigned long long)now,
             l->bases && l->bases < CHAIN_MAX ? "true" : "false");
    answer = control_ask(&k->table, line, why, sizeof(why));
    if (!answer)
        log_warn("no snapshot is kept at %llu instructions: %s", (unsigned long long)now,
                 why);
    cJSON_Delete(answer);
}

/* Not while a client makes one; nor where a debugger has gone back to. */
static void keep_one(void *arg) {
    struct keep *k = arg;
    struct machine *m = k->take->m;
    uint64_t now;

    if (k->take->job.r)
        return;
    machine_hold(m);
    now = machine_insns(m);
    if (now > k->last)
        order(k, now);
    k->last = now > k->last ? now : k->last;
    machine_saved(m);
}

void keep_config(struct keep *k, struct machine_config *cfg, uint64_t every) {
    if (every)
        cfg->marks = (struct machine_marks){.every = every, .reached = reached, .arg = k};
}

void keep_begin(struct keep *k, struct take *take) {
    k->take = take;
    k->task = (struct os_task){.fn = keep_one, .arg = k};
    take_add(take, &k->table);
}
