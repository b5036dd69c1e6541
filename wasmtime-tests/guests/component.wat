;; Two modules in one artifact, linked to each other and, through adapters, to the world outside.
(component
  (import "print" (func $print (param "text" string)))
  (core module $allocator
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 1024))
    (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (global.get $next))
      (global.set $next (i32.add (global.get $next) (local.get 3)))
      (if (i32.gt_u (global.get $next) (i32.const 65536)) (then unreachable))
      (local.get $at)))
  (core instance $allocated (instantiate $allocator))
  (core func $lowered_print
    (canon lower (func $print)
      (memory (core memory $allocated "memory"))
      (realloc (core func $allocated "realloc"))))
  (core module $worker
    (import "world" "print" (func $print (param i32 i32)))
    (import "allocator" "memory" (memory 1))
    (func $work (export "work") (param i32 i32) (result i32)
      (call $print (local.get 0) (local.get 1))
      (i32.div_u (i32.load8_u (local.get 0)) (local.get 1))))
  (core instance $working (instantiate $worker
    (with "world" (instance (export "print" (func $lowered_print))))
    (with "allocator" (instance $allocated))))
  (func (export "work") (param "text" string) (result u32)
    (canon lift (core func $working "work")
      (memory (core memory $allocated "memory"))
      (realloc (core func $allocated "realloc")))))
