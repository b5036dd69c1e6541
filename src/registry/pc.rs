//! Addresses in code: in the original that an engine owns, and in what a store runs.
//!
//! A store may run the original itself or a copy of it at another address. The two kinds are
//! different types, so that an address in one is not taken for an address in the other.

use crate::Pc;
use core::fmt;
use core::ops::Range;

macro_rules! pc_kind {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        ///
        /// All methods: constant time, no errors, no panics, signal-safe.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(usize);

        impl $name {
            /// From an absolute address, as a signal frame or a stack walk gives it.
            pub const fn new(address: usize) -> Self {
                Self(address)
            }

            /// The absolute address.
            pub const fn address(self) -> usize {
                self.0
            }

            /// The address so many bytes on; `None` past the end of the address space.
            pub const fn checked_add(self, bytes: usize) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(address) => Some(Self(address)),
                    None => None,
                }
            }

            /// The address so many bytes back; `None` before the start of the address space.
            pub const fn checked_sub(self, bytes: usize) -> Option<Self> {
                match self.0.checked_sub(bytes) {
                    Some(address) => Some(Self(address)),
                    None => None,
                }
            }

            /// How many bytes this lies behind the start of `range`; `None` outside of it.
            pub const fn offset_in(self, range: &Range<Self>) -> Option<usize> {
                if range.start.0 <= self.0 && self.0 < range.end.0 {
                    Some(self.0 - range.start.0)
                } else {
                    None
                }
            }

            /// As a pointer to the instruction. It carries the provenance that was exposed when
            /// the code was mapped.
            pub fn as_ptr(self) -> *const u8 {
                core::ptr::with_exposed_provenance(self.0)
            }
        }

        impl From<$name> for Pc {
            fn from(pc: $name) -> Self {
                Self::new(pc.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

pc_kind! {
    /// An absolute address in an engine's original of some code: [`EngineCode`](super::EngineCode).
    ///
    /// ```
    /// use pcmap::registry::EngineCodePc;
    ///
    /// let start = EngineCodePc::new(0x1000);
    /// let pc = start.checked_add(0x20).expect("an address");
    /// let end = start.checked_add(0x100).expect("an address");
    /// assert_eq!(pc.offset_in(&(start..end)), Some(0x20));
    /// assert_eq!(end.offset_in(&(start..end)), None);
    /// assert_eq!(EngineCodePc::new(usize::MAX).checked_add(1), None);
    /// ```
    EngineCodePc
}

pc_kind! {
    /// An absolute address in the code that a store runs: [`StoreCode`](super::StoreCode).
    ///
    /// ```
    /// use pcmap::registry::StoreCodePc;
    ///
    /// let start = StoreCodePc::new(0x1000);
    /// assert_eq!(start.checked_sub(0x1001), None);
    /// assert_eq!(format!("{start:?}"), "StoreCodePc(0x1000)");
    /// ```
    ///
    /// The two kinds do not mix:
    ///
    /// ```compile_fail,E0308
    /// use pcmap::registry::{EngineCodePc, StoreCodePc};
    ///
    /// let pc: StoreCodePc = EngineCodePc::new(0x1000);
    /// ```
    StoreCodePc
}
