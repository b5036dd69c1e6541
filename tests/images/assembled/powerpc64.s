# The ELF ABI 1.9 of 64-bit PowerPC: symbols stand for descriptors.
 .abiversion 1
 .macro descriptor name
 .section ".opd","aw"
 .align 3
 .globl \name
 .type \name, @function
\name: .quad .L.\name, .TOC.@tocbase, 0
 .text
.L.\name:
 .endm
 descriptor first
 li 3, 1
 blr
 .size first, .-.L.first
 descriptor second
 li 3, 2
 nop
 blr
 .size second, .-.L.second
# As compilers did it before: a symbol for the code, and one of 24 bytes for the descriptor.
 .section ".opd","aw"
 .align 3
 .globl third
 .type third, @function
third: .quad .third, .TOC.@tocbase, 0
 .size third, 24
 .text
 .globl .third
 .type .third, @function
.third:
 blr
 .size .third, .-.third
