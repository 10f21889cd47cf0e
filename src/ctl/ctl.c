/* The command table, --help and --version. */
#include "ctl/ctl.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/os.h"
#include "base/types.h"
#include "qemu/qemu.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
};

static const struct command commands[] = {
    {"run", ctl_cmd_run, "boot a kernel with its console on this terminal"},
    {"restore", ctl_cmd_restore, "go on where a snapshot of a run was made"},
    {"exec", ctl_cmd_exec, "run a command in a machine that has this host's files"},
    {"qemu", ctl_cmd_qemu, "run what a command line of QEMU's describes"},
    {"firecracker", ctl_cmd_firecracker, "run what Firecracker's API describes"},
    {"ps", ctl_cmd_ps, "list the machines that run with a name"},
    {"do", ctl_cmd_do, "run a command in one that runs already"},
    {"cp", ctl_cmd_cp, "copy a file into one, or out of it"},
    {"agent", ctl_cmd_agent, "write the program that `do` and `cp` want in a guest"},
    {"attach", ctl_cmd_attach, "be the terminal of one that runs in the background"},
    {"stop", ctl_cmd_stop, "press the power button of one, and wait for its end"},
    {"kill", ctl_cmd_kill, "end one at once"},
    {"pause", ctl_cmd_pause, "stop its guest between two instructions"},
    {"resume", ctl_cmd_resume, "let a paused guest go on"},
    {"reset", ctl_cmd_reset, "press its reset button"},
    {"quota", ctl_cmd_quota, "bound what it uses of the host's CPUs"},
    {"forward", ctl_cmd_forward, "list or change forwarded ports"},
    {"limit", ctl_cmd_limit, "bound what its disks and network cards do"},
    {"snapshot", ctl_cmd_snapshot, "write all of it to files, for `restore`"},
    {"fork", ctl_cmd_fork, "make copies of it that go on by themselves"},
    {"stats", ctl_cmd_stats, "tell what it has done so far"},
    {"screenshot", ctl_cmd_screenshot, "write the picture on a guest's screen to a file"},
    {"translate", ctl_cmd_translate, "show what the translator makes of guest code"},
    {"compare", ctl_cmd_compare, "measure every engine at the same work, side by side"},
    {"lockstep", ctl_cmd_lockstep, "run a guest on two engines and compare every step"},
    {"check", ctl_cmd_check, "tell what this host offers to each engine"},
};

static void print_help(void) {
    printf(
        "bivisor runs unmodified x86 operating systems, with or without hardware help.\n"
        "\n"
        "usage: bivisor COMMAND [OPTION...]\n"
        "\n");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        printf("  %-12s %s\n", commands[i].name, commands[i].what);
    printf(
        "\n"
        "  bivisor COMMAND --help   options of a command\n"
        "  bivisor --version        the version\n"
        "\n"
        "example: bivisor run --kernel vmlinuz --initrd initrd --append console=ttyS0\n");
}

/* What was printed must have reached the other side, or the status says so. */
static int flush_stdout(int status) {
    if (fflush(stdout) || ferror(stdout)) {
        log_error("cannot write to standard output");
        return CTL_HOST_FAILURE;
    }
    return status;
}

/* A descriptor that we were given closed would be the next file that is opened: guest
 * memory for standard output. It is put on /dev/null, the output ones such that writing
 * is an error as it was. */
static bool hold_standard_fds(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) != fd)
            return false;
    return true;
}

int ctl_main(int argc, char **argv) {
    if (!hold_standard_fds())
        return CTL_HOST_FAILURE; /* and nowhere to say so */
    os_ignore_file_limit();
    if (argc && qemu_is_name(argv[0]))
        return flush_stdout(ctl_cmd_qemu(argc, argv));
    if (argc < 2) {
        log_error("a command is missing; `bivisor --help` lists them");
        return CTL_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
        !strcmp(argv[1], "help")) {
        print_help();
        return flush_stdout(CTL_OK);
    }
    if (!strcmp(argv[1], "--version")) {
        printf("bivisor %s\n", CTL_VERSION);
        return flush_stdout(CTL_OK);
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (!strcmp(argv[1], commands[i].name))
            return flush_stdout(commands[i].run(argc - 1, argv + 1));
    log_error("there is no command '%s'; `bivisor --help` lists them", argv[1]);
    return CTL_USAGE;
}
