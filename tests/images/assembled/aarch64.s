# Data among the code: the mapping symbols $x and $d.
 .text
 .global first
 .type first, %function
first:
 ldr w0, 1f
 ret
1: .word 0x1234
 .size first, .-first
 .global second
 .type second, %function
second:
 ret
 .size second, .-second
