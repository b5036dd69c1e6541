//! What code is called by: functions, signatures, and the reasons for traps.
//!
//! All of them are numbers that the compiler chose, and mean what it says they mean.

use core::fmt;

/// Names a function of an image: a namespace and an index in it.
///
/// Any two words will do, as long as an image has each pair once. The layout is that of the keys
/// of wasmtime's artifacts: the namespace is a [`FuncKind`] in its upper four bits and the number
/// of a module in the others, where functions of that kind belong to modules.
///
/// ```
/// use pcmap::registry::{FuncKey, FuncKind};
///
/// let key = FuncKey::of_module(FuncKind::DEFINED, 2, 17).expect("a small number of modules");
/// assert_eq!((key.kind(), key.module(), key.index()), (FuncKind::DEFINED, 2, 17));
/// assert_eq!(FuncKey::new(2, 17), key);
/// ```
///
/// All methods: constant time, no panics, signal-safe (printing is not).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FuncKey {
    namespace: u32,
    index: u32,
}

/// The upper four bits of a [`FuncKey`]'s namespace. The names are those of wasmtime's artifacts;
/// "array" is the calling convention of hosts, which passes arguments in memory.
///
/// ```
/// use pcmap::registry::FuncKind;
///
/// assert_eq!(FuncKind::new(1), Some(FuncKind::ARRAY_TO_WASM));
/// assert_eq!(FuncKind::new(16), None);
/// ```
///
/// All methods: constant time, no panics, signal-safe (printing is not).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FuncKind(u8);

impl FuncKind {
    /// A function that a module defines.
    pub const DEFINED: Self = Self(0);
    /// A trampoline by which a host calls a function that a module defines.
    pub const ARRAY_TO_WASM: Self = Self(1);
    /// A trampoline by which WebAssembly calls a host function of some signature.
    pub const WASM_TO_ARRAY: Self = Self(2);
    /// A trampoline by which WebAssembly calls a routine of the runtime.
    pub const WASM_TO_BUILTIN: Self = Self(3);
    /// A trampoline by which a patched-in call (of a breakpoint) reaches the runtime.
    pub const PATCHABLE_TO_BUILTIN: Self = Self(4);
    /// A trampoline by which WebAssembly calls a routine of the component model; where other keys
    /// have a module, it has the number of a calling convention.
    pub const COMPONENT: Self = Self(6);
    /// The trampoline by which a component drops a resource.
    pub const RESOURCE_DROP: Self = Self(7);
    /// A routine of the runtime for trusted components; where other keys have a module, it has the
    /// number of a calling convention.
    pub const UNSAFE_INTRINSIC: Self = Self(8);
    /// What initialises a module; its index is the number of a calling convention.
    pub const STARTUP: Self = Self(9);
    /// Of no other kind: no compiler's, but for functions of an artifact that pcmap does not know.
    pub const OTHER: Self = Self(15);

    const BITS: u32 = 4;
    const SHIFT: u32 = u32::BITS - Self::BITS;

    /// The kind with this number; none from 16 on.
    pub const fn new(number: u8) -> Option<Self> {
        if number >> Self::BITS == 0 { Some(Self(number)) } else { None }
    }

    /// Its number, below 16.
    pub const fn get(self) -> u8 {
        self.0
    }

    const fn in_place(self) -> u32 {
        (self.0 as u32) << Self::SHIFT
    }
}

impl fmt::Debug for FuncKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FuncKind({})", self.0)
    }
}

impl FuncKey {
    /// The key of the function with this index in this namespace.
    pub const fn new(namespace: u32, index: u32) -> Self {
        Self { namespace, index }
    }

    /// The key of the function of no module with this index.
    pub const fn of_kind(kind: FuncKind, index: u32) -> Self {
        Self { namespace: kind.in_place(), index }
    }

    /// The key of a function that belongs to a module, unless the module's number needs more than
    /// 28 bits.
    pub const fn of_module(kind: FuncKind, module: u32, index: u32) -> Option<Self> {
        if module >> FuncKind::SHIFT == 0 {
            Some(Self { namespace: kind.in_place() | module, index })
        } else {
            None
        }
    }

    /// The namespace: kind and module.
    pub const fn namespace(self) -> u32 {
        self.namespace
    }

    /// The index in the namespace.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The upper four bits of the namespace.
    pub const fn kind(self) -> FuncKind {
        FuncKind((self.namespace >> FuncKind::SHIFT) as u8)
    }

    /// The lower 28 bits of the namespace: a module's number, if functions of this kind belong to
    /// modules.
    pub const fn module(self) -> u32 {
        self.namespace & ((1 << FuncKind::SHIFT) - 1)
    }
}

impl fmt::Display for FuncKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}:{}", self.namespace, self.index)
    }
}

impl fmt::Debug for FuncKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FuncKey({self})")
    }
}

/// Names a signature, for finding a trampoline: a number.
///
/// It must mean the same signature in all code of an engine, for a store asks by it whatever code
/// it has loaded, and calls what it finds. Numbers that a compiler gives out anew for each module are
/// replaced first: [`CodeImage::renumber_signatures`](super::CodeImage::renumber_signatures).
///
/// ```
/// assert_eq!(pcmap::registry::SignatureKey::new(3).get(), 3);
/// ```
///
/// All methods: constant time, no panics, signal-safe (printing is not).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignatureKey(u32);

impl SignatureKey {
    /// The signature with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl From<u32> for SignatureKey {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl fmt::Display for SignatureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "signature {}", self.0)
    }
}

/// Why an instruction traps: a byte that the compiler chose.
///
/// Every byte is a code: compilers disagree on whether zero is one (it is Cranelift's "none", and
/// wasmtime's "call stack exhausted").
///
/// ```
/// assert_eq!(pcmap::registry::TrapCode::new(7).get(), 7);
/// ```
///
/// All methods: constant time, no panics, signal-safe (printing is not).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrapCode(u8);

impl TrapCode {
    /// The code with this number.
    pub const fn new(number: u8) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl From<u8> for TrapCode {
    fn from(number: u8) -> Self {
        Self(number)
    }
}

impl fmt::Display for TrapCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trap {}", self.0)
    }
}
