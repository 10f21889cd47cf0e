# A watchpoint without hardware: every instruction is stepped.
handle SIGUSR1 SIGALRM nostop noprint
set can-use-hw-watchpoints 0
break count
run
watch counter
continue
continue
watch byte
continue
continue
continue
info watchpoints
delete
continue
