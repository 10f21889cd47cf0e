/*
 * The metadata service, as Firecracker has it (docs/mmds/mmds-user-guide.md there): a
 * store of JSON that the host writes, and requests of HTTP from the guest that read it,
 * by a path that is a JSON pointer. How they get here is net/service.h's; here are the
 * store, the sessions of its second version, and the answers.
 */
#ifndef API_MMDS_H
#define API_MMDS_H

#include "net/service.h"

struct cJSON;

#define MMDS_ADDRESS "169.254.169.254"
#define MMDS_PORT 80
#define MMDS_TOKENS 256u /* at once; the one that ends first makes place for another */
#define MMDS_TOKEN 32u   /* characters */

struct mmds {
    struct cJSON *store; /* an object; NULL: nothing has been put there */
    size_t limit;        /* bytes of it, as JSON */
    bool sessions;       /* its second version: who has no token gets nothing */
    bool plain;          /* text is answered, whatever was asked for */
    struct {
        char text[MMDS_TOKEN + 1];
        uint64_t ends; /* in the host's monotonic nanoseconds */
    } token[MMDS_TOKENS];
};

void mmds_free(struct mmds *m); /* what it holds */
/* VALUE, an object that stays the caller's, becomes the store, or changes it (RFC 7396,
 * "JSON Merge Patch"). 0, or -errno with one sentence in WHY, -E2BIG
 * if it would be too long: nothing has changed. */
int mmds_put(struct mmds *m, const struct cJSON *value, char *why, size_t why_size);
int mmds_patch(struct mmds *m, const struct cJSON *value, char *why, size_t why_size);
/* The guest's requests; ARG is a struct mmds. */
size_t mmds_request(void *arg, const char *bytes, size_t len,
                    struct net_service_answer *a);

#endif
