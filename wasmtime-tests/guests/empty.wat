;; No function, no text.
(module (memory 1))
