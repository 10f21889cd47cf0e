# Execution is recorded, then undone and done again.
handle SIGUSR1 SIGALRM nostop noprint
break count
run
record full
break 35 if i == 12
continue
print counter
print wide
reverse-continue
print counter
reverse-stepi
stepi
break 37
continue
continue
print half
reverse-next
reverse-next
reverse-finish
info record
record stop
delete
continue
