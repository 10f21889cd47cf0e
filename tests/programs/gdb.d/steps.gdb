# Single steps: by instruction, with registers and flags, through calls, strings and vectors.
handle SIGUSR1 SIGALRM nostop
break fill
run
set $n = 0
while $n < 380
  stepi
  printf "%lx %lx %lx %lx %x\n", $pc, $rax, $rcx, $rsi, $eflags
  set $n = $n + 1
end
delete
break vectors
continue
set $n = 0
while $n < 14
  nexti
  print $ymm0.v8_float
  x/i $pc
  set $n = $n + 1
end
break x87
continue
set $n = 0
while $n < 60
  stepi
  set $n = $n + 1
end
info float
print $mxcsr
step
step
next
next
until
advance signals
info registers rip eflags cs ss
delete
continue
