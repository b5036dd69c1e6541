# microMIPS and plain functions: bit 0 of symbols.
 .text
 .set noreorder
 .set micromips
 .globl first
 .ent first
 .type first, @function
first:
 addiu $2, $0, 1
 jrc $31
 .end first
 .size first, .-first
 .set nomicromips
 .align 2
 .globl second
 .ent second
 .type second, @function
second:
 jr $31
 nop
 .end second
 .size second, .-second
