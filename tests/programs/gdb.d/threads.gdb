# Threads: stopped together, switched, each with a breakpoint; locked stepping.
handle SIGUSR1 SIGALRM nostop noprint
break dbg.c:thread if arg == 2
run
print arg
set scheduler-locking step
next
thread 1
set scheduler-locking off
delete
break pthread_join
continue
print wide
delete
continue
