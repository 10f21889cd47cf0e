# The program dies of a signal.
handle SIGUSR1 SIGALRM nostop noprint
run 4
print $_siginfo.si_signo
print $_siginfo.si_code
x/i $pc
info registers rip eflags
backtrace 3
continue
continue
