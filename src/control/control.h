/*
 * The control socket: programs outside look into a run and steer it. A client sends one
 * JSON object a line and gets one back for each, in order:
 *
 *     {"id": 7, "command": "step", "count": 2}
 *     {"id": 7, "ok": true, "insns": 2}             or
 *     {"id": 7, "error": "one sentence"}
 *
 * What there is to be asked for is a table. The rooms that have commands add theirs
 * (control_add()); this room knows the protocol, the clients and `help`, and no machine.
 *
 * A client is hostile: what it sends is checked before it is parsed, what it is owed is
 * bounded, and it holds up neither the guest nor another client (control/server.c).
 *
 * Everything runs on the loop's thread (base/os_loop.h), the commands too.
 */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include "base/os_loop.h"
#include "base/types.h"

struct cJSON;

/* --- commands --- */

enum control_type { CONTROL_NUMBER, CONTROL_TEXT, CONTROL_BOOL };

/* An argument: one more member of the client's object. Its value is of that type, or the
 * command is not called. */
struct control_arg {
    const char *name; /* NULL: the end of the list */
    enum control_type type;
    bool required;
    int64_t min, max; /* of a number, which is whole; of a text's bytes */
    const char *what; /* one line for `help` */
};

struct control_request;

struct control_command {
    const char *name;
    const char *what; /* one line for `help` */
    const struct control_arg *args;
    /* Does it, and adds to the answer or refuses. ARG is control_add()'s. */
    void (*run)(void *arg, struct control_request *r);
};

#define CONTROL_ARGS 8 /* at most, of a command */
#define CONTROL_NUMBER_MAX (1ll << 53)

/* What the client sent: the argument, or OTHERWISE where there is none. Texts live as
 * long as the request. */
int64_t control_number(const struct control_request *r, const char *name,
                       int64_t otherwise);
bool control_bool(const struct control_request *r, const char *name, bool otherwise);
const char *control_text(const struct control_request *r, const char *name,
                         const char *otherwise);

/* The answer; what is added when memory has run out is refused as a whole. */
void control_put_number(struct control_request *r, const char *name, double value);
void control_put_bool(struct control_request *r, const char *name, bool value);
void control_put_text(struct control_request *r, const char *name, const char *text);
/* LEN bytes of anything, as a text: what of them is no UTF-8, and zero bytes, are U+FFFD.
 */
void control_put_bytes(struct control_request *r, const char *name, const char *bytes,
                       size_t len);
/* Takes VALUE over; NULL: there was no memory for it. */
void control_put(struct control_request *r, const char *name, struct cJSON *value);
/* One sentence instead of the answer. The first one stands. */
void control_refuse(struct control_request *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The answer comes later: what is returned is to be used from then on, on the loop's
 * thread, and ends with control_finish(). The texts that the client sent are gone when
 * the command returns; it must not be finished before that. NULL: the caller waits, and
 * the answer is to be there at once. */
struct control_request *control_later(struct control_request *r);
void control_finish(struct control_request *r);

/* --- the table --- */

#define CONTROL_PARTS 16

struct control_table {
    struct control_part {
        const struct control_command *commands; /* ends with a name that is NULL */
        void *arg;
    } part[CONTROL_PARTS];
    size_t count;
};

/* COMMANDS ends with one whose name is NULL and stays where it is. No name may be there
 * twice. */
void control_add(struct control_table *t, const struct control_command *commands,
                 void *arg);

/* The answer to LINE, LEN bytes of anything, as one line with its newline: the caller's
 * to free(). NULL: out of memory. */
char *control_answer(const struct control_table *t, const char *line, size_t len);

/* The same for one who can wait: NULL and a request in *LATER, when DONE(ARG, text) will
 * be called for it; until control_forget(), after which nobody is. */
char *control_answer_or_wait(const struct control_table *t, const char *line, size_t len,
                             void (*done)(void *arg, char *text), void *arg,
                             struct control_request **later);
void control_forget(struct control_request *r);

/* The answer's object to LINE, the caller's to cJSON_Delete(). NULL: it was refused, or
 * memory has run out, with the sentence in WHY. */
struct cJSON *control_ask(const struct control_table *t, const char *line, char *why,
                          size_t why_size);

/* --- the words of QEMU's monitor --- */

/* QEMU's version that programs are told. */
#define CONTROL_QEMU_VERSION "7.2.0"
#define CONTROL_PROMPT "(qemu) " /* which scripts wait for */

/* What the monitor says to LINE, as lines that end with "\r\n"; the caller's to free().
 * NULL: out of memory. EVENT, if it is not NULL, becomes QMP's event that it led to, or
 * NULL. */
char *control_words(const struct control_table *t, const char *line, const char **event);

/* NULL, or one sentence that says why LINE is not to be parsed: control characters, bytes
 * that are no UTF-8, zero bytes in texts, too many brackets. */
const char *control_check(const char *line, size_t len);

/* --- the socket --- */

#define CONTROL_LINE_MAX 65536u    /* bytes of a line, its end not counted */
#define CONTROL_OUT_MAX (4u << 20) /* bytes of an answer */
#define CONTROL_OUT_LISTEN                                                               \
    CONTROL_LINE_MAX /* who has to read more is not listened to                          \
                      */
#define CONTROL_CLIENTS 16u

struct control;

/* What is spoken at a socket. */
enum control_speech {
    CONTROL_JSON,  /* as above */
    CONTROL_QMP,   /* QEMU's protocol (control/qmp.c) */
    CONTROL_WORDS, /* a prompt, and the monitor's words (control/words.c) */
    CONTROL_SPEECHES
};

/* Listens at WHERE (os_endpoint_listen()): at a path, who may not be the same user is not
 * let in; at a port, everybody is. Nobody is answered before control_start(). To be
 * called before the jail, and before there are threads. 0, or -errno with one sentence in
 * WHY. */
int control_open(const char *where, enum control_speech speech, struct control **out,
                 char *why, size_t why_size);
/* Each client that comes is handed to PASS, which takes its descriptor over, and who is
 * answered is the one that it returns; or -errno. Before control_start(). */
void control_pass(struct control *c, int (*pass)(void *arg, int fd), void *arg);

/* For who reads along. The bytes of the first line of LEN bytes, its end
 * counted; 0: it has not ended. */
size_t control_line_length(enum control_speech speech, const char *in, size_t len);
/* That line, LEN bytes of it, has a file opened, which is in PATH then. */
bool control_name(enum control_speech speech, const char *line, size_t len, char *path,
                  size_t size);
/* The table that clients are answered from, for rooms to add to. */
struct control_table *control_table(struct control *c);
/* What the jail must let it do (base/os.h). */
int control_socket(const struct control *c);
/* 0 or -errno. */
int control_start(struct control *c, struct os_loop *loop);
/* All clients of QEMU's protocol are told that EVENT, SHUTDOWN or RESET, has come for
 * REASON, one of QEMU's ShutdownCause. On the loop's thread, or when the loop has ended;
 * C may be NULL. */
void control_event(struct control *c, const char *event, const char *reason);
/* The clients are left, and the socket is gone from the file system. C may be NULL. */
void control_close(struct control *c);

#endif
