# Watchpoints in debug registers: writes, reads, accesses, of each size, conditional, several.
handle SIGUSR1 SIGALRM nostop noprint
break count
run
watch counter
continue
continue
info watchpoints
delete 2
rwatch byte
continue
continue
delete 3
awatch half
continue
continue
continue
delete 4
watch wide if wide > 1000
continue
print wide
print counter
delete 5
delete 1
watch table[5]
watch *(char *)&table[60]
watch *(short *)((char *)table + 242)
watch -l list
continue
continue
continue
info watchpoints
continue
continue
continue
continue
continue
delete
break x87
continue
watch $rsp
continue
continue
delete
continue
