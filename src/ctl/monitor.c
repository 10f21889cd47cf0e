/* The monitor; see monitor.h. */
#include "ctl/monitor.h"

#include <stdlib.h>

#include "control/control.h"

#define BACKSPACE 0x08
#define DELETE 0x7f
#define KILL_LINE 0x15 /* Ctrl-U */

static void say(struct monitor *mon, const char *text) {
    mon->say(mon->arg, text);
}

static void execute(struct monitor *mon) {
    char *text = control_words(mon->words, mon->line, NULL);

    if (text)
        say(mon, text);
    free(text);
}

/* --- keys --- */

void monitor_greet(struct monitor *mon) {
    mon->len = 0;
    say(mon, CONTROL_PROMPT);
}

void monitor_key(struct monitor *mon, uint8_t byte) {
    const char echo[] = {(char)byte, 0};

    if (byte == '\r' || byte == '\n') {
        say(mon, "\r\n");
        mon->line[mon->len] = 0;
        execute(mon);
        monitor_greet(mon);
    } else if (byte == BACKSPACE || byte == DELETE) {
        if (mon->len) {
            mon->len--;
            say(mon, "\b \b");
        }
    } else if (byte == KILL_LINE) {
        say(mon, "\r\n");
        monitor_greet(mon);
    } else if (byte >= ' ' && byte < DELETE && mon->len + 1 < sizeof(mon->line)) {
        mon->line[mon->len++] = (char)byte;
        say(mon, echo);
    }
}
