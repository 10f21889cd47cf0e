/* One byte to and fro over TCP: `rr serve PORT`, or `rr ADDRESS PORT SECONDS`, which
 * prints round trips a second. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int serve(const struct sockaddr_in *at) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, c;
    char byte;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (const struct sockaddr *)at, sizeof(*at)) || listen(fd, 8))
        return 1;
    while ((c = accept(fd, NULL, NULL)) >= 0) {
        setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        while (read(c, &byte, 1) == 1 && write(c, &byte, 1) == 1)
            ;
        close(c);
    }
    return 1;
}

int main(int argc, char **argv) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    unsigned long trips = 0;
    double start, limit;
    int fd, one = 1;
    char byte = 0;

    if (argc < 3)
        return 2;
    at.sin_port = htons((unsigned short)atoi(argv[2]));
    if (!strcmp(argv[1], "serve")) {
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        return serve(&at);
    }
    at.sin_addr.s_addr = inet_addr(argv[1]);
    limit = argc > 3 ? atof(argv[3]) : 5;
    fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, (struct sockaddr *)&at, sizeof(at)))
        return 1;
    for (start = now(); now() - start < limit; trips++)
        if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
            return 1;
    printf("%.0f\n", (double)trips / (now() - start));
    return 0;
}
