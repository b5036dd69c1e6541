# Thumb and Arm functions, and data among them: bit 0 of symbols, and the mapping symbols $t, $a, $d.
 .syntax unified
 .cpu cortex-a7
 .text
 .thumb
 .global first
 .type first, %function
 .thumb_func
first:
 movs r0, #1
 bx lr
 .size first, .-first
 .global second
 .type second, %function
 .thumb_func
second:
 ldr r0, 1f
 bx lr
 .align 2
1: .word 0x1234
 .size second, .-second
 .arm
 .global third
 .type third, %function
third:
 mov r0, #3
 bx lr
 .size third, .-third
