# MIPS16 and plain functions: bit 0 of symbols.
 .text
 .set noreorder
 .set mips16
 .globl first
 .ent first
 .type first, @function
first:
 li $2, 1
 jr $31
 nop
 .end first
 .size first, .-first
 .set nomips16
 .align 2
 .globl second
 .ent second
 .type second, @function
second:
 jr $31
 nop
 .end second
 .size second, .-second
