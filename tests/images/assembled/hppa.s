; A millicode routine, whose symbol has a type of its own.
 .LEVEL 1.1
 .text
 .EXPORT first,ENTRY
 .type first, @function
first:
 bv %r0(%r2)
 nop
 .size first, .-first
 .EXPORT $$second,MILLICODE
$$second:
 bv %r0(%r31)
 nop
 .size $$second, .-$$second
