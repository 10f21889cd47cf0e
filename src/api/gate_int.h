/* Between the machine and the process of gate.h: orders and their answers. */
#ifndef API_GATE_INT_H
#define API_GATE_INT_H

#include <sys/socket.h>

#include "api/named.h"
#include "block/block.h"
#include "control/control.h"

enum gate_what {
    GATE_READONLY_FIRST, /* of drives; before GATE_SETTLE */
    GATE_READONLY,
    GATE_SETTLE,
    GATE_DRIVE,
    GATE_BEGIN, /* a snapshot's files */
    GATE_KEEP,
    GATE_DROP,
    GATE_CLIENT, /* comes with it; the answer has the machine's end of it */
};

struct gate_order {
    uint32_t what;
    char id[NAMED_ID]; /* of a drive */
    char path[NAMED_PATH], memory[NAMED_PATH];
};

struct gate_answer {
    int rc; /* 0 or -errno */
    struct block_facts facts;
    char why[512];
};

/* A control message that has two descriptors. */
union gate_room {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(2 * sizeof(int))];
};

/* How clients' requests are read along: HTTP's, or lines of SPEECH. */
struct gate_reader {
    size_t most; /* bytes of one */
    bool http;
    size_t body_most;
    enum control_speech speech;
};

/* The process, which does not return: it takes orders at SOCKET, and clients that have
 * come to LISTENER. */
_Noreturn void gate_process(int listener, int socket, const struct gate_reader *reader);

#endif
