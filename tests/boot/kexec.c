/* `kexec KERNEL INITRD COMMAND-LINE`: starts another kernel out of this one, without a
 * reset of the machine (kexec_file_load(2)), as kexec-tools' `kexec -s` does. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINUX_REBOOT_CMD_KEXEC 0x45584543

int main(int argc, char **argv) {
    int kernel, initrd;

    if (argc != 4)
        return 2;
    kernel = open(argv[1], O_RDONLY);
    initrd = open(argv[2], O_RDONLY);
    if (kernel < 0 || initrd < 0 ||
        syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1, argv[3], 0ul)) {
        perror("kexec");
        return 1;
    }
    sync();
    reboot(LINUX_REBOOT_CMD_KEXEC);
    perror("kexec");
    return 1;
}
