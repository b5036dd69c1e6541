;; Names that symbols cannot have as they are: long ones, two alike, none, letters that are not
;; ASCII, and one that looks like a symbol of another function.
(module
  (func $"wasm[0]::function[3]::liar" (result i32) (i32.const 1))
  (func $"größer als ein name aus buchstaben und leerzeichen" (result i32) (i32.const 2))
  (func $a_name_that_is_much_longer_than_what_fits_into_a_symbol_and_is_therefore_cut_off_somewhere_behind_its_ninety_sixth_letter
    (result i32) (i32.const 3))
  (func (result i32) (i32.const 4))
  (func $"]" (param i32 i32) (result i32) (i32.div_u (local.get 0) (local.get 1)))
  (func $"::" (param i32) (if (local.get 0) (then unreachable))))
