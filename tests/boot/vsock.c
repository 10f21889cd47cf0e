/*
 * In the guest: sockets to the host.
 *
 *   vsock listen PORT    takes one connection; sends back what comes, until its end
 *   vsock connect PORT   to the host's; sends standard input, then prints what comes back
 */
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void copy(int from, int to) {
    char bytes[65536];
    ssize_t n;

    while ((n = read(from, bytes, sizeof(bytes))) > 0)
        for (ssize_t done = 0, w; done < n; done += w)
            if ((w = write(to, bytes + done, (size_t)(n - done))) <= 0)
                exit(3);
    if (n < 0)
        exit(4);
}

static void fail(const char *what) {
    perror(what);
    exit(2);
}

int main(int argc, char **argv) {
    struct sockaddr_vm a = {.svm_family = AF_VSOCK};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0), client;

    if (argc != 3 || fd < 0)
        fail("socket");
    a.svm_port = (unsigned)atoi(argv[2]);
    if (!strcmp(argv[1], "listen")) {
        a.svm_cid = VMADDR_CID_ANY;
        if (bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 1))
            fail("listen");
        printf("listening\n");
        fflush(stdout);
        client = accept(fd, NULL, NULL);
        if (client < 0)
            fail("accept");
        copy(client, client);
        return 0;
    }
    a.svm_cid = VMADDR_CID_HOST;
    if (connect(fd, (struct sockaddr *)&a, sizeof(a)))
        fail("connect");
    copy(0, fd);
    shutdown(fd, SHUT_WR);
    copy(fd, 1);
    return 0;
}
