/* A request that is being answered, and what the answers are made of: inside api/. */
#ifndef API_API_INT_H
#define API_API_INT_H

#include "api/api.h"
#include "api/config.h"
#include "api/mmds.h"
#include "api/server.h"

#define CALL_WHY 512
#define CALL_WAITS 8u

struct control_request;

struct cJSON;

struct api {
    struct api_about about;
    struct api_server *server; /* NULL: nobody comes */
    struct control_table table;
    struct config config;
    struct mmds mmds;
    struct os_loop *loop; /* the one that turns */
    bool machine;         /* there is one */
    bool starting;        /* somebody has asked for that */
    bool described;       /* what it is made of was said here, and is to be told to it */
    uint64_t starter;     /* who has asked for that: a ticket */
    struct call_wait {
        struct api *api;
        struct control_request *r; /* NULL: nobody waits */
        uint64_t ticket;
        /* What the machine's answer, which is no refusal, is for the client; NULL: no
         * content. */
        struct cJSON *(*form)(struct cJSON *answer);
    } wait[CALL_WAITS];
    int metrics;        /* where they are written to; -1: nowhere */
    char **copy_words;  /* see api_copy_words() */
    struct cJSON *load; /* the snapshot that is to be gone on from; NULL: none */
};

/* A request that is being answered. */
struct call {
    struct api *api;
    const char *id;           /* what the path ends with, or NULL */
    const struct cJSON *body; /* an object, or NULL */
    struct api_answer *answer;
    char why[CALL_WHY];
};

/* --- call.c --- */

/* The answer is a refusal: one sentence. */
void call_refuse(struct call *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The answer is VALUE, which is taken over; NULL: there was no memory for it. */
void call_json(struct call *c, int status, struct cJSON *value);
/* No content, or the refusal that `why` has. */
void call_done(struct call *c, int rc);
/* What the machine answers to a command's LINE, the caller's; NULL after a refusal. */
struct cJSON *call_ask(struct call *c, const char *line);
/* The same, where it is only done. */
void call_do(struct call *c, const char *line);

/* The same for what takes a while: the answer comes later, as FORM makes it. */
void call_later(struct call *c, const char *line,
                struct cJSON *(*form)(struct cJSON *answer));
/* Nobody is answered any more. */
void call_forget(struct api *a);

/* --- resources --- */

/* What the configuration says of them from now on. 0, or -EINVAL with one sentence. */
int api_logger_begin(struct api *a, char *why, size_t why_size);
int api_metrics_begin(struct api *a, char *why, size_t why_size);
void api_logger_put(struct call *c);
void api_metrics_put(struct call *c);
void api_metrics_flush(struct call *c);

void api_mmds_get(struct call *c);
void api_mmds_put(struct call *c);
void api_mmds_patch(struct call *c);
void api_mmds_configure(struct call *c);

void api_stats_get(struct call *c);
void api_figures_get(struct call *c);
void api_screenshot_get(struct call *c);
void api_power_put(struct call *c);
void api_exec_put(struct call *c);
void api_forwards_get(struct call *c);
void api_forwards_put(struct call *c);
void api_forwards_delete(struct call *c);
void api_quota_get(struct call *c);
void api_quota_put(struct call *c);

void api_fork_put(struct call *c);

void api_balloon_get(struct call *c);
void api_balloon_patch(struct call *c);
void api_balloon_get_statistics(struct call *c);
void api_balloon_patch_statistics(struct call *c);
/* The machine runs, and its balloon is to be as its configuration says. */
void api_balloon_begin(struct api *a);

void api_snapshot_create(struct call *c);
void api_snapshot_load(struct call *c);
/* What is known of a machine that no request has described. */
void api_describe(struct api *a);
/* The machine goes on from one. */
void api_snapshot_begin(struct api *a);

#endif
