#![expect(unsafe_code, reason = "asks the loader")]
//! `_dl_find_object`: since glibc 2.35, what finds unwind tables. Lock-free, wherever it is
//! called.

use crate::contender::{Lookup, answer};
use std::ffi::{c_int, c_void};
use std::mem::{self, MaybeUninit};
use std::ops::Range;
use std::ptr;

/// `struct dl_find_object`.
#[repr(C)]
struct Found {
    flags: u64,
    map_start: *mut c_void,
    map_end: *mut c_void,
    link_map: *mut c_void,
    eh_frame: *mut c_void,
    reserved: [u64; 7],
}

type Function = unsafe extern "C" fn(*mut c_void, *mut Found) -> c_int;

/// The function of the glibc that this process runs on. Its value is the loader's record of the object.
#[derive(Debug)]
pub(crate) struct DlFindObject {
    function: Function,
}

impl DlFindObject {
    /// `None` if this glibc is older.
    pub(crate) fn resolve() -> Option<Self> {
        // SAFETY: a name that ends in zero.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_find_object".as_ptr()) };
        if symbol.is_null() {
            return None;
        }
        // SAFETY: the name belongs to glibc, and this is the function's type.
        let function = unsafe { mem::transmute::<*mut c_void, Function>(symbol) };
        Some(Self { function })
    }
}

impl Lookup for DlFindObject {
    const NAME: &'static str = "dl_find_object";

    /// What it knows is what is loaded.
    fn holding(_loaded: &[Range<usize>]) -> Self {
        Self::resolve().expect("asked before")
    }

    #[inline]
    fn find(&self, pc: usize) -> Option<usize> {
        let mut found = MaybeUninit::<Found>::uninit();
        let address = ptr::without_provenance_mut(pc);
        // SAFETY: any address may be asked for, and what was found is written here.
        if unsafe { (self.function)(address, found.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: zero means it was written; every bit pattern is valid.
        let found = unsafe { found.assume_init() };
        // SAFETY: the loader's record of an object that is loaded; its first word is an address.
        let first_word = unsafe { found.link_map.cast::<usize>().read() };
        Some(answer(first_word as u64, pc - found.map_start.addr()))
    }
}
