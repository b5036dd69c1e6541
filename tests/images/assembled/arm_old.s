# Before the EABI: a Thumb function has a type of its own, and a mapping symbol may be a function by type.
 .syntax unified
 .cpu arm7tdmi
 .text
 .thumb
 .global first
 .type first, %function
 .thumb_func
first:
 movs r0, #1
 bx lr
 .size first, .-first
 .arm
 .type $a.1, %function
$a.1:
 .global second
 .type second, %function
second:
 mov r0, #2
 bx lr
 .size second, .-second
