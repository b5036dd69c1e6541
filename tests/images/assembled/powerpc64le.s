# The ELF ABI 2 of 64-bit PowerPC: a function has a second entry, and the symbol stands for the first.
 .abiversion 2
 .text
 .globl first
 .type first, @function
first:
 lis 2, 1
 addi 2, 2, 2
 .localentry first, .-first
 blr
 .size first, .-first
 .globl second
 .type second, @function
second:
 blr
 .size second, .-second
