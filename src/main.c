/* Nothing but the door; ctl/ has the commands. */
#include "ctl/ctl.h"

int main(int argc, char **argv) {
    return ctl_main(argc, argv);
}
