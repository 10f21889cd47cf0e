/* The agent as a program of its own, for guests that are not `bivisor exec`'s (`bivisor
 * agent` writes it): a service starts it, as root. */
#include "agent.h"

#include "command.h"

_Noreturn void fail(const char *what, const char *which, long rc) {
    struct text t = {.len = 0};

    add(&t, "bivisor agent: ");
    add(&t, what);
    add(&t, which);
    if (rc) {
        add(&t, ": error ");
        add_number(&t, (unsigned long)-rc);
    }
    add(&t, "\n");
    write_all(2, t.s, t.len);
    sys(SYS_exit, 1, 0, 0, 0, 0);
    for (;;)
        ;
}

_Noreturn void alone_main(void) {
    fail("the kernel has no sockets to its host (vmw_vsock_virtio_transport)", "",
         agent_serve());
}

__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    and $-16, %rsp\n"
        "    call alone_main\n");
