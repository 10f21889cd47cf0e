/*
 * TCP of a guest's, for bench/jail: `jail_net serve PORT` on the host; in the guest
 * `jail_net ADDRESS PORT out|in|trips COUNT`, which sends or gets COUNT MiB, or sends a
 * byte and gets it back COUNT times. Says "begin" and "end" around it.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1u << 20)

static char piece[64 << 10];

static int send_all(int fd, size_t left) {
    while (left) {
        ssize_t n = write(fd, piece, left < sizeof(piece) ? left : sizeof(piece));

        if (n <= 0)
            return 1;
        left -= (size_t)n;
    }
    return 0;
}

static int get_all(int fd, size_t left) {
    while (left) {
        ssize_t n = read(fd, piece, left < sizeof(piece) ? left : sizeof(piece));

        if (n <= 0)
            return 1;
        left -= (size_t)n;
    }
    return 0;
}

static int answer(int fd, size_t trips) {
    char byte;

    while (trips--)
        if (read(fd, &byte, 1) != 1 || write(fd, &byte, 1) != 1)
            return 1;
    return 0;
}

static int ask(int fd, size_t trips) {
    char byte = 0;

    while (trips--)
        if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
            return 1;
    return 0;
}

/* The guest's first line says what it wants: a letter and a number. */
static int serve_one(int fd) {
    char line[32] = "", what;
    unsigned count;

    for (size_t n = 0; n < sizeof(line) - 1 && read(fd, &line[n], 1) == 1; n++)
        if (line[n] == '\n')
            break;
    if (sscanf(line, "%c %u", &what, &count) != 2)
        return 1;
    if (what == 't')
        return answer(fd, count);
    if (what == 'i')
        return send_all(fd, (size_t)count * MIB);
    return get_all(fd, (size_t)count * MIB) || write(fd, piece, 1) != 1;
}

static void hurry(int fd) {
    const int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int serve(const struct sockaddr_in *at) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, c;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (const struct sockaddr *)at, sizeof(*at)) || listen(fd, 8))
        return 1;
    while ((c = accept(fd, NULL, NULL)) >= 0) {
        hurry(c);
        serve_one(c);
        close(c);
    }
    return 1;
}

int main(int argc, char **argv) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    unsigned count = argc > 4 ? (unsigned)atoi(argv[4]) : 0;
    int fd, bad;

    if (argc < 3)
        return 2;
    at.sin_port = htons((unsigned short)atoi(argv[2]));
    if (!strcmp(argv[1], "serve")) {
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return serve(&at);
    }
    if (argc != 5)
        return 2;
    at.sin_addr.s_addr = inet_addr(argv[1]);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    hurry(fd);
    if (connect(fd, (struct sockaddr *)&at, sizeof(at)))
        return 1;
    printf("begin\n");
    fflush(stdout);
    dprintf(fd, "%c %u\n", argv[3][0], count);
    if (argv[3][0] == 't')
        bad = ask(fd, count);
    else if (argv[3][0] == 'i')
        bad = get_all(fd, (size_t)count * MIB);
    else
        bad = send_all(fd, (size_t)count * MIB) || read(fd, piece, 1) != 1;
    printf("%s\n", bad ? "broken" : "end");
    return bad;
}
