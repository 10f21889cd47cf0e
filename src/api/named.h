/*
 * What clients of the API or a control socket have named, as the process knows that they
 * come to (api/gate.c): the files that the machine may have opened there. Each can be had
 * once; of many that nobody has asked for the oldest are forgotten.
 */
#ifndef API_NAMED_H
#define API_NAMED_H

#include "api/http.h"
#include "control/control.h"

#define NAMED_ID 65u
#define NAMED_PATH 4096u
#define NAMED_DISC "disc" /* the drive that control sockets' clients name files for */

struct named;

struct named *named_new(void); /* NULL: out of memory */
/* A client has asked for Q: what of it names files is remembered. */
void named_by(struct named *n, const struct http_request *q);
/* The same of a line of a control socket's, LEN bytes. */
void named_by_line(struct named *n, enum control_speech speech, const char *line,
                   size_t len);
/* Somebody has named PATH as the file of the drive ID, and that is used up now. */
bool named_drive(struct named *n, const char *id, const char *path);
/* The same of the files of a snapshot that is to be made. */
bool named_snapshot(struct named *n, const char *state, const char *memory);

#endif
