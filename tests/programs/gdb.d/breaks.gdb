# Breakpoints with conditions, counts and commands; frames; finish; values.
handle SIGUSR1 SIGALRM nostop noprint
break factorial if n == 3
tbreak build
break fill
run
backtrace
info frame
finish
finish
up
info locals
continue
finish
print *list
continue
info breakpoints
info args
finish
print table
print $
ptype struct node
print list->next->next->name
print *list->next@1
print sqrt(2.0) * ratio
print factorial(6)
set var ratio = factorial(4) / 7.0
print ratio
x/8xw table
x/5i factorial
disassemble /r count
info line count
continue
