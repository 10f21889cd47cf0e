# A core file, and the program seen through it.
handle SIGUSR1 SIGALRM nostop noprint
break x87
run
generate-core-file /tmp/core
kill
core-file /tmp/core
backtrace
print *list
print table[20]
info registers rip rbx
print $ymm1.v4_double
x/2i $pc
