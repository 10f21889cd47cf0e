/*
 * The clients of the control socket.
 *
 * A client is a buffer for one line (and what came with it), and a buffer of answers that
 * it has not read yet. When there are many of these it is not listened to: what it is
 * owed is bounded, whatever it sends and however little it reads. A line
 * that is longer than the buffer is answered when that is known, and its rest is thrown
 * away.
 *
 * Who has asked for something that takes a while waits for it, and is not listened to
 * meanwhile; others are.
 *
 * A turn of the loop answers one line of each client, so that nobody waits for another's
 * thousand. When all places are taken, a newcomer gets that of a client that does not
 * read, or is told so and left.
 *
 * Everything here is the loop's thread's.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/os.h"
#include "control/control_int.h"

struct client {
    struct control *control;
    struct os_watch watch;
    int fd;
    bool ended;                    /* it has said all */
    bool skipping;                 /* the rest of a line that was too long */
    struct control_request *waits; /* for what it has asked; NULL: for nothing */
    size_t in_len;
    char *out; /* what it is owed, from OUT_AT to OUT_LEN */
    size_t out_len, out_at;
    char in[CONTROL_LINE_MAX + 1];
};

struct control {
    struct control_table table;
    enum control_speech speech;
    struct os_listener *listener;
    struct os_loop *loop;
    struct os_watch door;
    int (*pass)(void *arg, int fd); /* NULL: clients are answered as they come */
    void *pass_arg;
    struct os_task more; /* lines have been read that are not answered yet */
    struct client *clients[CONTROL_CLIENTS];
};

static void leave(struct client *k) {
    if (!k)
        return;
    for (unsigned n = 0; n < CONTROL_CLIENTS; n++)
        if (k->control->clients[n] == k)
            k->control->clients[n] = NULL;
    if (k->waits)
        control_forget(k->waits);
    os_watch_events(&k->control->door, OS_READ);
    os_watch_stop(&k->watch);
    os_socket_close(k->fd);
    free(k->out);
    free(k);
}

/* --- answers --- */

static size_t owed(const struct client *k) {
    return k->out_len - k->out_at;
}

/* False: the client is gone. */
static bool send_out(struct client *k) {
    if (os_socket_write_rest(k->fd, k->out, k->out_len, &k->out_at)) {
        leave(k);
        return false;
    }
    if (owed(k))
        return true;
    free(k->out);
    k->out = NULL;
    k->out_len = k->out_at = 0;
    return true;
}

/* Puts TEXT behind what is owed already. */
static bool append(struct client *k, const char *text) {
    size_t len = text ? strlen(text) : 0;
    char *longer;

    if (!text || len > CONTROL_OUT_MAX)
        return false;
    if (k->out_at) {
        k->out_len -= k->out_at;
        memmove(k->out, k->out + k->out_at, k->out_len);
        k->out_at = 0;
    }
    longer = realloc(k->out, k->out_len + len);
    if (!longer)
        return false;
    k->out = longer;
    memcpy(k->out + k->out_len, text, len);
    k->out_len += len;
    return true;
}

/* Takes TEXT over. False: the client is gone. */
static bool answer(struct client *k, char *text) {
    bool good = append(k, text);

    free(text);
    if (good)
        return send_out(k);
    log_warn("--control: a client is left: there is no memory for its answer");
    leave(k);
    return false;
}

static bool refuse(struct client *k, const char *why) {
    static const char *const forms[] = {
        [CONTROL_JSON] = "{\"error\":\"%s\"}\n",
        [CONTROL_QMP] = "{\"error\":{\"class\":\"GenericError\",\"desc\":\"%s\"}}\n",
        [CONTROL_WORDS] = "Error: %s\r\n",
    };
    char *text;

    return answer(k, asprintf(&text, forms[k->control->speech], why) < 0 ? NULL : text);
}

/* --- what lines are, also for who reads along --- */

size_t control_line_length(enum control_speech speech, const char *in, size_t len) {
    const char *end;

    if (speech == CONTROL_QMP)
        return qmp_length(in, len);
    end = memchr(in, '\n', len);
    return end ? (size_t)(end - in) + 1 : 0;
}

static bool json_name(const char *line, size_t len, char *path, size_t size) {
    cJSON *request = control_check(line, len) ? NULL : cJSON_ParseWithLength(line, len);
    const cJSON *command = cJSON_GetObjectItemCaseSensitive(request, "command");
    const cJSON *file = cJSON_GetObjectItemCaseSensitive(request, "path");
    bool named = cJSON_IsString(command) && !strcmp(command->valuestring, "disc") &&
                 cJSON_IsString(file) &&
                 (size_t)snprintf(path, size, "%s", file->valuestring) < size;

    cJSON_Delete(request);
    return named;
}

bool control_name(enum control_speech speech, const char *line, size_t len, char *path,
                  size_t size) {
    char *text;
    bool named;

    if (speech == CONTROL_QMP)
        return qmp_name(line, len, path, size);
    while (len && line[len - 1] == '\n')
        len--;
    if (speech == CONTROL_JSON)
        return json_name(line, len, path, size);
    text = strndup(line, len);
    named = text && words_name(text, path, size);
    free(text);
    return named;
}

/* --- lines --- */

static void serve(struct client *k);

/* What a client has waited for. */
static void on_done(void *arg, char *text) {
    struct client *k = arg;

    k->waits = NULL;
    if (answer(k, text))
        serve(k);
}

static void drop_front(struct client *k, size_t len) {
    k->in_len -= len;
    memmove(k->in, k->in + len, k->in_len);
}

/* The bytes of the first line that has come, its end counted; 0: it has not ended. In a
 * line that was too long, only a newline is one. */
static size_t line_length(const struct client *k) {
    return control_line_length(k->skipping ? CONTROL_JSON : k->control->speech, k->in,
                               k->in_len);
}

/* And the next prompt. */
static char *words_answer(struct client *k, size_t len) {
    char *said, *all = NULL;

    k->in[len - 1] = 0;
    said = control_words(&k->control->table, k->in, NULL);
    if (said && asprintf(&all, "%s" CONTROL_PROMPT, said) < 0)
        all = NULL;
    free(said);
    return all;
}

/* NULL with k->waits: it comes later. */
static char *answer_of(struct client *k, size_t len) {
    const struct control_table *t = &k->control->table;

    switch (k->control->speech) {
    case CONTROL_QMP:
        return qmp_answer(t, k->in, len);
    case CONTROL_WORDS:
        return words_answer(k, len);
    default:
        return control_answer_or_wait(t, k->in, len - 1, on_done, k, &k->waits);
    }
}

/* False: the client is gone. */
static bool answer_line(struct client *k, size_t len) {
    char *text = k->skipping ? NULL : answer_of(k, len);
    bool skipped = k->skipping;

    drop_front(k, len);
    k->skipping = false;
    return skipped || k->waits || answer(k, text);
}

/* No line ends within the buffer, which is full. */
static bool skip_long(struct client *k) {
    bool told = k->skipping;

    k->in_len = 0;
    k->skipping = true;
    return told || refuse(k, "the line is longer than 65536 bytes");
}

/* What the client said last has no end. */
static bool answer_rest(struct client *k) {
    bool rest = k->in_len && !k->skipping && k->control->speech == CONTROL_JSON;

    k->in_len = 0;
    return !rest || refuse(k, "the line has no end");
}

/* Is it to be listened to? */
static bool reads(const struct client *k) {
    return owed(k) <= CONTROL_OUT_LISTEN && !k->waits;
}

/* Is there something to be done for it without its sending more? */
static bool has_more(const struct client *k) {
    return reads(k) && (k->ended ? k->in_len : line_length(k) != 0);
}

/* Answers at most one line. False: the client is gone. */
static bool answer_one(struct client *k) {
    size_t len = line_length(k);

    if (!reads(k))
        return true;
    if (len)
        return answer_line(k, len);
    if (k->in_len == sizeof(k->in))
        return skip_long(k);
    return !k->ended || answer_rest(k);
}

static void serve(struct client *k) {
    unsigned events;

    if (!answer_one(k))
        return;
    if (k->ended && !k->in_len && !owed(k) && !k->waits) {
        leave(k);
        return;
    }
    events = owed(k) ? OS_WRITE : 0;
    if (!k->ended && reads(k) && k->in_len < sizeof(k->in))
        events |= OS_READ;
    os_watch_events(&k->watch, events);
    if (has_more(k))
        os_task_post(&k->control->more, k->control->loop);
}

/* False: the client is gone. */
static bool receive(struct client *k) {
    int n = os_socket_read(k->fd, k->in + k->in_len, sizeof(k->in) - k->in_len);

    if (n < 0 && n != -EAGAIN && n != -EINTR) {
        leave(k);
        return false;
    }
    k->ended = n == 0;
    k->in_len += n > 0 ? (size_t)n : 0;
    return true;
}

static void on_client(void *arg, unsigned ready) {
    struct client *k = arg;

    if ((ready & OS_WRITE) && !send_out(k))
        return;
    if ((ready & OS_READ) && !receive(k))
        return;
    serve(k);
}

static void on_more(void *arg) {
    struct control *c = arg;

    for (unsigned n = 0; n < CONTROL_CLIENTS; n++)
        if (c->clients[n] && has_more(c->clients[n]))
            serve(c->clients[n]);
}

/* --- coming --- */

/* A free place, or NULL. */
static struct client **find_place(struct control *c) {
    for (unsigned n = 0; n < CONTROL_CLIENTS; n++)
        if (!c->clients[n])
            return &c->clients[n];
    for (unsigned n = 0; n < CONTROL_CLIENTS; n++) {
        if (reads(c->clients[n]) || c->clients[n]->waits)
            continue;
        leave(c->clients[n]);
        return &c->clients[n];
    }
    return NULL;
}

static void turn_away(int fd, const char *why) {
    char text[128];
    int len = snprintf(text, sizeof(text), "{\"error\":\"%s\"}\n", why);

    os_socket_write(fd, text, (size_t)len);
    os_socket_close(fd);
}

/* It would be at the door again and again until there is a descriptor for it. */
static void wait_for_room(struct control *c, int rc) {
    if (rc == -EAGAIN || rc == -EINTR || rc == -ECONNABORTED)
        return;
    log_warn("--control: cannot take a client: %s", strerror(-rc));
    os_watch_events(&c->door, 0);
}

/* What a client is told first. */
static const char *greeting(const struct control *c) {
    switch (c->speech) {
    case CONTROL_QMP:
        return qmp_greeting;
    case CONTROL_WORDS:
        return "QEMU " CONTROL_QEMU_VERSION " (bivisor) monitor - type 'help' for more "
               "information\r\n" CONTROL_PROMPT;
    default:
        return "";
    }
}

static void on_door(void *arg, unsigned ready) {
    struct control *c = arg;
    int fd = os_listener_accept(c->listener);
    struct client **place, *k;

    if (fd >= 0 && c->pass)
        fd = c->pass(c->pass_arg, fd);
    if (fd < 0) {
        wait_for_room(c, fd);
        return;
    }
    place = find_place(c);
    if (!place) {
        turn_away(fd, "there are too many clients");
        return;
    }
    k = malloc(sizeof(*k));
    if (!k || os_watch_start(&k->watch, c->loop, fd, OS_READ, on_client, k)) {
        free(k);
        turn_away(fd, "out of memory");
        return;
    }
    k->control = c;
    k->fd = fd;
    k->ended = k->skipping = false;
    k->waits = NULL;
    k->in_len = k->out_len = k->out_at = 0;
    k->out = NULL;
    *place = k;
    if (*greeting(c) && append(k, greeting(c)))
        send_out(k);
}

/* --- the socket --- */

int control_open(const char *where, enum control_speech speech, struct control **out,
                 char *why, size_t why_size) {
    struct control *c = calloc(1, sizeof(*c));
    int rc = c ? os_endpoint_listen(where, &c->listener) : -ENOMEM;

    if (rc) {
        snprintf(why, why_size, "cannot listen at '%s': %s", where,
                 os_endpoint_reason(rc));
        free(c);
        return rc;
    }
    c->speech = speech;
    c->more = (struct os_task){.fn = on_more, .arg = c};
    *out = c;
    return 0;
}

void control_pass(struct control *c, int (*pass)(void *arg, int fd), void *arg) {
    c->pass = pass;
    c->pass_arg = arg;
}

struct control_table *control_table(struct control *c) {
    return &c->table;
}

int control_socket(const struct control *c) {
    return os_listener_fd(c->listener);
}

int control_start(struct control *c, struct os_loop *loop) {
    c->loop = loop;
    return os_watch_start(&c->door, loop, os_listener_fd(c->listener), OS_READ, on_door,
                          c);
}

void control_event(struct control *c, const char *event, const char *reason) {
    char text[256];

    if (!c || c->speech != CONTROL_QMP)
        return;
    qmp_event(text, sizeof(text), event, reason);
    for (unsigned n = 0; n < CONTROL_CLIENTS; n++)
        if (c->clients[n] && append(c->clients[n], text))
            send_out(c->clients[n]);
}

void control_close(struct control *c) {
    if (!c)
        return;
    for (unsigned n = 0; n < CONTROL_CLIENTS; n++)
        leave(c->clients[n]);
    os_watch_stop(&c->door);
    os_listener_close(c->listener);
    free(c);
}
