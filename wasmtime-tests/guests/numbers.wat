;; Divisions, conversions and `unreachable`: traps of many kinds, several in one function.
(module
  (func $quotient (export "quotient") (param i32 i32) (result i32)
    (i32.div_s (local.get 0) (local.get 1)))
  (func $remainder (export "remainder") (param i64 i64) (result i64)
    (i64.rem_u (local.get 0) (local.get 1)))
  (func $both (export "both") (param i64 i64) (result i64)
    (i64.add
      (i64.div_s (local.get 0) (local.get 1))
      (i64.div_u (local.get 1) (local.get 0))))
  (func $truncate (export "truncate") (param f64) (result i32)
    (i32.trunc_f64_s (local.get 0)))
  (func $truncate_long (param f32) (result i64)
    (i64.trunc_f32_u (local.get 0)))
  (func $never (export "never") unreachable)
  (func $checked (export "checked") (param i32) (result i32)
    (if (i32.gt_u (local.get 0) (i32.const 9)) (then unreachable))
    (i32.div_u (i32.const 100) (local.get 0)))
  ;; Nothing here traps.
  (func $harmless (export "harmless") (param i32) (result i32)
    (i32.mul (local.get 0) (i32.const 3))))
