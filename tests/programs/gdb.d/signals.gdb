# Signals that are stopped at, passed, swallowed and sent.
handle SIGUSR1 stop print pass
handle SIGALRM nostop print nopass
break on_signal
run
info signals SIGUSR1
print $_siginfo.si_signo
continue
print sig
backtrace 1
up
finish
watch counter
continue
continue
signal SIGALRM
print sig
continue
delete
continue
