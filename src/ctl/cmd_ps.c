/* `bivisor ps`: the machines with names that run. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/ask.h"
#include "ctl/ctl.h"
#include "ctl/runtime.h"

#define PATIENCE 2u /* seconds */

struct listing {
    const char *dir;
    cJSON *machines; /* what each said of itself */
    bool failed;
};

static cJSON *about(const char *name, int pid, int fd) {
    cJSON *answer = ask_quietly(fd, "{\"command\":\"about\"}\n");

    if (cJSON_IsTrue(cJSON_GetObjectItem(answer, "ok"))) {
        cJSON_DeleteItemFromObject(answer, "ok");
        return answer;
    }
    /* It starts still, or hangs. */
    cJSON_Delete(answer);
    answer = cJSON_CreateObject();
    cJSON_AddStringToObject(answer, "name", name);
    cJSON_AddNumberToObject(answer, "pid", pid);
    return answer;
}

/* With the directory's lock. */
static void add(void *arg, const char *name) {
    struct listing *l = arg;
    char path[RUNTIME_PATH];
    cJSON *machine;
    int fd;

    if (!runtime_path(l->dir, name, RUNTIME_CONTROL, path))
        return;
    fd = ask_try(path, PATIENCE);
    if (fd == -ECONNREFUSED)
        runtime_remove(l->dir, name);
    if (fd < 0)
        return;
    machine = about(name, ask_process(fd), fd);
    close(fd);
    if (!machine || !cJSON_AddItemToArray(l->machines, machine)) {
        cJSON_Delete(machine);
        l->failed = true;
    }
}

static double number(const cJSON *machine, const char *name) {
    const cJSON *value = cJSON_GetObjectItem(machine, name);

    return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

static const char *text(const cJSON *machine, const char *name) {
    const cJSON *value = cJSON_GetObjectItem(machine, name);

    return cJSON_IsString(value) ? value->valuestring : "-";
}

/* Days, hours and minutes; below that, seconds. */
static void put_time(double seconds, char *out, size_t size) {
    unsigned long s = seconds < 4e9 ? (unsigned long)seconds : 0;

    if (s >= 86400)
        snprintf(out, size, "%lud%02luh", s / 86400, s / 3600 % 24);
    else if (s >= 3600)
        snprintf(out, size, "%luh%02lum", s / 3600, s / 60 % 60);
    else
        snprintf(out, size, "%lum%02lus", s / 60, s % 60);
}

static void print_table(const cJSON *machines) {
    const cJSON *m;

    printf("%-16s %7s %-9s %4s %8s %-7s %8s %8s\n", "NAME", "PID", "STATE", "CPUS",
           "MEMORY", "ENGINE", "UP", "CPU");
    cJSON_ArrayForEach(m, machines) {
        const cJSON *paused = cJSON_GetObjectItem(m, "paused");
        char up[32], cpu[32];

        put_time(number(m, "seconds"), up, sizeof(up));
        put_time(number(m, "cpu_seconds"), cpu, sizeof(cpu));
        printf("%-16s %7.0f %-9s %4.0f %7.0fM %-7s %8s %8s\n", text(m, "name"),
               number(m, "pid"),
               !paused                ? "starting"
               : cJSON_IsTrue(paused) ? "paused"
                                      : "running",
               number(m, "cpus"), number(m, "memory") / (1 << 20), text(m, "engine"), up,
               cpu);
    }
}

static int list(const char *dir, bool json) {
    struct listing l = {.dir = dir, .machines = cJSON_CreateArray()};
    int lock = dir ? runtime_lock(dir) : -1;
    char *printed = NULL;

    if (lock >= 0) {
        runtime_each(dir, add, &l);
        close(lock);
    }
    l.failed |= !l.machines;
    if (!l.failed && json) {
        printed = cJSON_Print(l.machines);
        l.failed = !printed || puts(printed) < 0;
        cJSON_free(printed);
    } else if (!l.failed) {
        print_table(l.machines);
    }
    if (l.failed)
        log_error("out of memory");
    cJSON_Delete(l.machines);
    return l.failed ? CTL_HOST_FAILURE : CTL_OK;
}

int ctl_cmd_ps(int argc, char **argv) {
    bool json = argc == 2 && !strcmp(argv[1], "--json");
    char dir[RUNTIME_PATH];

    if (argc == 2 && !strcmp(argv[1], "--help")) {
        printf("usage: bivisor ps [--json]\n\nLists this user's machines that run with "
               "--name.\n\n  --json  as an array of objects\n\nexit status: 0, also when "
               "there are none\n");
        return CTL_OK;
    }
    if (argc > 1 && !json) {
        log_error("ps wants nothing but --json");
        return CTL_USAGE;
    }
    return list(runtime_dir(false, dir, sizeof(dir)) ? dir : NULL, json);
}
