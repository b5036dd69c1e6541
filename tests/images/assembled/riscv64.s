# Data among the code, and two instruction sets: the mapping symbols $x, $xrv64... and $d.
 .text
 .option arch, rv64i
 .global first
 .type first, %function
first:
 ret
 .word 0x1234
 .size first, .-first
 .option arch, +c
 .global second
 .type second, %function
second:
 c.nop
 ret
 .size second, .-second
