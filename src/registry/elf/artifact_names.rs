//! The symbols of wasmtime's artifacts: which function each of them names.
//!
//! ```text
//! wasm[M]::function[I]::NAME            function I of module M, imported ones counted
//! wasm[M]::function[I]                  the same, without a name
//! wasm[M]::array_to_wasm_trampoline[I]  the trampoline to it
//! module_start[M]::ABI                  what initialises module M
//! signatures[S]::wasm_to_array_trampoline
//! component-trampolines[C]-ABI-NAME     ABI: wasm-call, array-call, patchable-call
//! unsafe-intrinsics-ABI-NAME
//! resource_drop_trampoline
//! wasmtime_builtin_NAME
//! wasmtime_patchable_builtin_NAME
//! ```

use crate::registry::keys::{FuncKey, FuncKind};
use crate::registry::little_endian::widen;

/// Reads symbols one after the other, and numbers those that tell no number.
#[derive(Debug, Default)]
pub(super) struct Names {
    builtins: u32,
    patchable_builtins: u32,
    /// By calling convention.
    intrinsics: [u32; 3],
    others: u32,
}

/// The calling conventions by their numbers in keys, and as symbols spell them.
const ABIS: [[&str; 2]; 3] =
    [["wasm-call-", "Wasm"], ["array-call-", "Array"], ["patchable-call-", "Patchable"]];

impl Names {
    /// The key of the function with this symbol, and what to call it.
    pub(super) fn read<'n>(&mut self, symbol: Option<&'n str>) -> (FuncKey, Option<&'n str>) {
        let numbered = symbol.and_then(numbered);
        numbered.unwrap_or_else(|| (self.next_of(symbol.unwrap_or("")), symbol))
    }

    /// The key of a function whose symbol tells no number.
    fn next_of(&mut self, symbol: &str) -> FuncKey {
        let next = |count: &mut u32| {
            let index = *count;
            *count += 1;
            index
        };
        if symbol.starts_with("wasmtime_builtin_") {
            return FuncKey::of_kind(FuncKind::WASM_TO_BUILTIN, next(&mut self.builtins));
        }
        if symbol.starts_with("wasmtime_patchable_builtin_") {
            let index = next(&mut self.patchable_builtins);
            return FuncKey::of_kind(FuncKind::PATCHABLE_TO_BUILTIN, index);
        }
        let abi = symbol.strip_prefix("unsafe-intrinsics-").and_then(|rest| abi(rest, 0));
        if let Some(key) = abi.and_then(|abi| {
            let count = self.intrinsics.get_mut(widen(abi))?;
            FuncKey::of_module(FuncKind::UNSAFE_INTRINSIC, abi, next(count))
        }) {
            return key;
        }
        FuncKey::of_kind(FuncKind::OTHER, next(&mut self.others))
    }
}

/// The key and the name in a symbol that tells a number.
fn numbered(symbol: &str) -> Option<(FuncKey, Option<&str>)> {
    if symbol == "resource_drop_trampoline" {
        return Some((FuncKey::of_kind(FuncKind::RESOURCE_DROP, 0), Some(symbol)));
    }
    if let Some((signature, rest)) = number(symbol, "signatures[") {
        let known = rest == "::wasm_to_array_trampoline";
        return known.then(|| (FuncKey::of_kind(FuncKind::WASM_TO_ARRAY, signature), Some(symbol)));
    }
    if let Some((trampoline, rest)) = number(symbol, "component-trampolines[") {
        let abi = abi(rest.strip_prefix('-')?, 0)?;
        return Some((FuncKey::of_module(FuncKind::COMPONENT, abi, trampoline)?, Some(symbol)));
    }
    if let Some((module, rest)) = number(symbol, "module_start[") {
        let abi = abi(rest.strip_prefix("::")?, 1)?;
        return Some((FuncKey::of_module(FuncKind::STARTUP, module, abi)?, Some(symbol)));
    }
    let (module, rest) = number(symbol, "wasm[")?;
    if let Some((index, rest)) = number(rest, "::function[") {
        let name = if rest.is_empty() { None } else { Some(rest.strip_prefix("::")?) };
        return Some((FuncKey::of_module(FuncKind::DEFINED, module, index)?, name));
    }
    let (index, rest) = number(rest, "::array_to_wasm_trampoline[")?;
    let key = FuncKey::of_module(FuncKind::ARRAY_TO_WASM, module, index)?;
    rest.is_empty().then_some((key, Some(symbol)))
}

/// The number behind `prefix` and before a bracket, and what follows it.
fn number<'n>(symbol: &'n str, prefix: &str) -> Option<(u32, &'n str)> {
    let (digits, rest) = symbol.strip_prefix(prefix)?.split_once(']')?;
    // `parse` would take a sign.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain).map(|number| (number, rest))
}

/// The calling convention that `rest` starts with, in one of its spellings.
fn abi(rest: &str, spelling: usize) -> Option<u32> {
    (0..).zip(ABIS).find(|(_, abi)| rest.starts_with(abi[spelling])).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_that_tell_a_number() {
        let of = |kind, module, index| FuncKey::of_module(kind, module, index).expect("a key");
        let cases = [
            ("wasm[2]::function[17]::a::b", of(FuncKind::DEFINED, 2, 17), Some("a::b")),
            ("wasm[0]::function[3]", of(FuncKind::DEFINED, 0, 3), None),
            ("wasm[0]::function[3]::", of(FuncKind::DEFINED, 0, 3), Some("")),
            ("wasm[1]::array_to_wasm_trampoline[4]", of(FuncKind::ARRAY_TO_WASM, 1, 4), Some("")),
            ("module_start[5]::Wasm", of(FuncKind::STARTUP, 5, 0), Some("")),
            ("module_start[5]::Array", of(FuncKind::STARTUP, 5, 1), Some("")),
            (
                "signatures[6]::wasm_to_array_trampoline",
                of(FuncKind::WASM_TO_ARRAY, 0, 6),
                Some(""),
            ),
            ("component-trampolines[7]-array-call-x", of(FuncKind::COMPONENT, 1, 7), Some("")),
            ("resource_drop_trampoline", of(FuncKind::RESOURCE_DROP, 0, 0), Some("")),
        ];
        for (symbol, key, name) in cases {
            // Where no name is told apart, it is the symbol.
            let whole = key.kind() != FuncKind::DEFINED;
            let name = if whole { Some(symbol) } else { name };
            assert_eq!(Names::default().read(Some(symbol)), (key, name), "{symbol}");
        }
    }

    #[test]
    fn others_are_numbered_as_they_come() {
        let mut names = Names::default();
        let mut key = |symbol| names.read(symbol).0;
        let of = |kind, index| FuncKey::of_kind(kind, index);
        assert_eq!(key(Some("wasmtime_builtin_memory_grow")), of(FuncKind::WASM_TO_BUILTIN, 0));
        assert_eq!(
            key(Some("wasmtime_patchable_builtin_x")),
            of(FuncKind::PATCHABLE_TO_BUILTIN, 0)
        );
        assert_eq!(key(Some("wasmtime_builtin_trap")), of(FuncKind::WASM_TO_BUILTIN, 1));
        let intrinsic = FuncKey::of_module(FuncKind::UNSAFE_INTRINSIC, 1, 0);
        assert_eq!(Some(key(Some("unsafe-intrinsics-array-call-u8-load"))), intrinsic);
        let unknown = [
            None,
            Some(""),
            Some("main"),
            Some("wasm[0]"),
            Some("wasm[+1]::function[2]"),
            Some("wasm[]::function[2]"),
            Some("wasm[268435456]::function[2]"), // more than 28 bits
            Some("wasm[0]::function[4294967296]"),
            Some("wasm[0]::function[1]x"),
            Some("module_start[0]::"),
            Some("component-trampolines[1]"),
            Some("unsafe-intrinsics-"),
        ];
        for (index, symbol) in (0..).zip(unknown) {
            assert_eq!(key(symbol), of(FuncKind::OTHER, index), "{symbol:?}");
        }
    }
}
