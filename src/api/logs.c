/* Logs and metrics: files that are opened before there is a machine, and what goes there.
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/api_int.h"
#include "api/fields.h"
#include "base/log.h"

/* A file that is there, or is made; or a named pipe, whose reader may come later. */
static int open_sink(const char *path) {
    return open(path, O_RDWR | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY,
                0644);
}

/* What the log says goes to the file from now on, as it went to standard error. */
int api_logger_begin(struct api *a, char *why, size_t why_size) {
    const cJSON *logger = a->config.part[CONFIG_LOGGER];
    const char *path = fields_text(logger, "log_path", NULL);
    int fd = path ? open_sink(path) : -1;
    enum log_level level;

    if (path && (fd < 0 || dup2(fd, STDERR_FILENO) < 0)) {
        snprintf(why, why_size, "cannot open the log '%s': %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -EINVAL;
    }
    if (fd >= 0)
        close(fd);
    if (log_level_of(fields_text(logger, "level", "Info"), &level))
        log_set_level(level);
    log_set_form(fields_bool(logger, "show_level"),
                 fields_bool(logger, "show_log_origin"),
                 fields_text(logger, "module", NULL));
    return 0;
}

int api_metrics_begin(struct api *a, char *why, size_t why_size) {
    const char *path = fields_text(a->config.part[CONFIG_METRICS], "metrics_path", "");
    int fd = open_sink(path);

    if (fd < 0) {
        snprintf(why, why_size, "cannot open '%s': %s", path, strerror(errno));
        return -EINVAL;
    }
    if (a->metrics >= 0)
        close(a->metrics);
    a->metrics = fd;
    return 0;
}

void api_logger_put(struct call *c) {
    struct api *a = c->api;
    int rc = config_put(&a->config, CONFIG_LOGGER, NULL, c->body, c->why, sizeof(c->why));

    call_done(c, rc ? rc : api_logger_begin(a, c->why, sizeof(c->why)));
}

void api_metrics_put(struct call *c) {
    struct api *a = c->api;
    int rc;

    if (a->metrics >= 0) {
        call_refuse(c, "there is a file of metrics already");
        return;
    }
    rc = config_put(&a->config, CONFIG_METRICS, NULL, c->body, c->why, sizeof(c->why));
    call_done(c, rc ? rc : api_metrics_begin(a, c->why, sizeof(c->why)));
}

/* One line; what a pipe has no room for is lost. */
void api_metrics_flush(struct call *c) {
    cJSON *answer;
    char *text;

    if (c->api->metrics < 0) {
        call_refuse(c, "there is no file of metrics: PUT /metrics names one");
        return;
    }
    answer = call_ask(c, "{\"command\":\"stats\"}");
    if (!answer)
        return;
    text = cJSON_PrintUnformatted(cJSON_GetObjectItem(answer, "stats"));
    cJSON_Delete(answer);
    c->answer->status = text ? 204 : 500;
    if (text) {
        size_t len = strlen(text);

        text[len] = '\n'; /* in the place of its end */
        if (write(c->api->metrics, text, len + 1) < 0)
            log_warn("--api: cannot write metrics: %s", strerror(errno));
    }
    cJSON_free(text);
}

int api_put_logger(struct api *a, const struct api_log *l, char *why, size_t why_size) {
    cJSON *o = cJSON_CreateObject();
    int rc;

    if (l->path)
        cJSON_AddStringToObject(o, "log_path", l->path);
    if (l->level)
        cJSON_AddStringToObject(o, "level", l->level);
    if (l->module)
        cJSON_AddStringToObject(o, "module", l->module);
    cJSON_AddBoolToObject(o, "show_level", l->show_level);
    cJSON_AddBoolToObject(o, "show_log_origin", l->show_origin);
    rc = config_put(&a->config, CONFIG_LOGGER, NULL, o, why, why_size);
    cJSON_Delete(o);
    return rc ? rc : api_logger_begin(a, why, why_size);
}

int api_put_metrics(struct api *a, const char *path, char *why, size_t why_size) {
    cJSON *o = cJSON_CreateObject();
    int rc;

    cJSON_AddStringToObject(o, "metrics_path", path);
    rc = config_put(&a->config, CONFIG_METRICS, NULL, o, why, why_size);
    cJSON_Delete(o);
    return rc ? rc : api_metrics_begin(a, why, why_size);
}
