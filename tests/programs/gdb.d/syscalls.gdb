catch syscall write
handle SIGUSR1 SIGALRM nostop noprint
catch syscall exit_group
run
continue
print $rdi
continue
print $rax
continue
info breakpoints
delete
continue
