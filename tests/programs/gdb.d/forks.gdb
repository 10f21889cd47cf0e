# A child that is followed, then the parent; system calls that are caught.
handle SIGUSR1 SIGALRM nostop noprint
set follow-fork-mode child
set detach-on-fork off
break factorial if n == 5
run
backtrace 2
finish
print counter
inferior 1
continue
