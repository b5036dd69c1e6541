#![expect(unsafe_code, reason = "functions for C")]
//! A library with a map in a `static`, for hosts that load it, use it and unload it again: nothing of it
//! may stay behind. `tests/unloading` does that with `dlopen`, a thousand times.

use pcmap::CodeMap;
use std::ffi::c_int;

static CODE: CodeMap<u32> = CodeMap::new();

/// Registers a range, looks it up, and ends it. `None`: something was not as it should be.
///
/// With a snapshot that shows the code in between, and is dropped on the calling thread, or without.
fn register_and_end(map: &CodeMap<u32>, with_snapshot: bool) -> Option<()> {
    let code = map.register(0x1000..0x2000, 7).ok()?;
    map.lookup(0x1234, |hit| *hit.value()).filter(|value| *value == 7)?;
    if with_snapshot {
        let view = map.snapshot().expect("memory");
        view.find(0x1234).filter(|code| *code.value() == 7)?;
    }
    code.unregister().wait();
    map.lookup(0x1234, |_| ()).is_none().then_some(())?;
    map.reclaim().is_empty().then_some(())
}

/// Registers code in the library's map, and ends it; gives 0. With a snapshot if that is not 0.
#[unsafe(no_mangle)]
pub extern "C" fn map_plugin_use(snapshot: c_int) -> c_int {
    register_and_end(&CODE, snapshot != 0).map_or(-1, |()| 0)
}

/// The same in a map that lives as long as the call.
#[unsafe(no_mangle)]
pub extern "C" fn map_plugin_use_another(snapshot: c_int) -> c_int {
    register_and_end(&CodeMap::new(), snapshot != 0).map_or(-1, |()| 0)
}
