#![expect(unsafe_code, reason = "functions for C, and machine code")]
//! A library for C programs that runs generated code and catches its traps: what a plugin with a
//! runtime inside looks like to a host that knows nothing of it, and may have signal handlers of its
//! own. `tests/embedding` loads it with `dlopen`.
//!
//! All functions give a negative number if something failed.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod plugin {
    use pcmap::registry::{CodeImage, Engine, EngineCode, EngineConfig, FuncKey, TrapCode};
    use pcmap::trap::{Cause, GuestThread, TrapHandler, TrapOptions, sample_guest};
    use std::error::Error;
    use std::ffi::{c_int, c_void};

    /// A byte is loaded from where the argument points.
    #[cfg(target_arch = "x86_64")]
    const LOAD: &[u8] = &[0x0f, 0xb6, 0x07, 0xc3]; // movzx eax, byte ptr [rdi]; ret
    #[cfg(target_arch = "aarch64")]
    const LOAD: &[u8] = &[0x00, 0x00, 0x40, 0x39, 0xc0, 0x03, 0x5f, 0xd6]; // ldrb w0, [x0]; ret

    type Load = unsafe extern "C" fn(*const u8) -> c_int;

    /// What a host has of it: opaque, and of the thread that opened it.
    pub(crate) struct Plugin {
        handler: TrapHandler,
        thread: GuestThread,
        /// The same function twice: the first may trap, and the compiler knows.
        code: EngineCode,
    }

    fn open() -> Result<Plugin, Box<dyn Error>> {
        let mut image = CodeImage::builder([LOAD, LOAD].concat());
        image.function(FuncKey::new(0, 0), 0..LOAD.len(), "load")?.trap(0_u32, TrapCode::new(5))?;
        image.function(FuncKey::new(0, 1), LOAD.len()..2 * LOAD.len(), "careless")?;
        let engine = Engine::new(EngineConfig::new())?;
        let code = EngineCode::load(&engine, image.finish()?)?;
        let handler = TrapHandler::install(TrapOptions::new())?;
        let thread = GuestThread::prepare(&handler)?;
        Ok(Plugin { handler, thread, code })
    }

    impl Plugin {
        /// The byte at an address, or 1000 and the trap code.
        fn load(&self, offset: usize, from: *const u8) -> Result<c_int, Box<dyn Error>> {
            let start = self.code.text_range().start.checked_add(offset).ok_or("no address")?;
            // SAFETY: the text is such a function there.
            let guest = unsafe { std::mem::transmute::<*const u8, Load>(start.as_ptr()) };
            let result = self.thread.catch_traps(|activation| {
                // SAFETY: (`call`) 1. kept by `code`; a load that fails traps; 2. to 4. it only loads.
                unsafe { activation.call(guest, (from,)) }
            });
            match result {
                Ok(byte) => Ok(byte),
                Err(trap) => match trap.cause() {
                    Cause::Code(code) => Ok(1000 + c_int::from(code.get())),
                    _ => Err(trap.into()),
                },
            }
        }
    }

    /// Takes the fault signals over, and prepares this thread. Null if that failed.
    #[unsafe(no_mangle)]
    pub(crate) extern "C" fn plugin_open() -> *mut c_void {
        match open() {
            Ok(plugin) => Box::into_raw(Box::new(plugin)).cast(),
            Err(_) => std::ptr::null_mut(),
        }
    }

    /// Loads a byte in a guest that may trap (`careless`: and whose compiler said that it cannot).
    ///
    /// # Safety
    ///
    /// `plugin` is from [`plugin_open`] on this thread, and not closed.
    #[unsafe(no_mangle)]
    pub(crate) unsafe extern "C" fn plugin_load(
        plugin: *mut c_void,
        careless: c_int,
        from: *const u8,
    ) -> c_int {
        // SAFETY: by the caller's promise.
        let plugin = unsafe { &*plugin.cast::<Plugin>() };
        let offset = if careless == 0 { 0 } else { LOAD.len() };
        plugin.load(offset, from).unwrap_or(-1)
    }

    /// Puts the program counters of the guest that a signal has interrupted into `frames`, for a profiler of the
    /// host's; gives how many. Signal-safe.
    ///
    /// # Safety
    ///
    /// `context` is what the kernel gave the handler that is running, and there is room for `most` frames.
    #[unsafe(no_mangle)]
    pub(crate) unsafe extern "C" fn plugin_sample(
        context: *mut c_void,
        frames: *mut usize,
        most: usize,
    ) -> usize {
        // SAFETY: by the caller's promise.
        let frames = unsafe { std::slice::from_raw_parts_mut(frames, most) };
        // SAFETY: (`sample_guest`) 1. by the caller's promise.
        unsafe { sample_guest(context, frames) }
    }

    /// Ends it; gives 1 if the signals are the host's again, and 0 if others still need them.
    ///
    /// # Safety
    ///
    /// As [`plugin_load`]; it is used no more.
    #[unsafe(no_mangle)]
    pub(crate) unsafe extern "C" fn plugin_close(plugin: *mut c_void) -> c_int {
        // SAFETY: by the caller's promise.
        let plugin = unsafe { Box::from_raw(plugin.cast::<Plugin>()) };
        let Plugin { handler, thread, code } = *plugin;
        drop((thread, code));
        c_int::from(handler.uninstall().is_ok())
    }
}
