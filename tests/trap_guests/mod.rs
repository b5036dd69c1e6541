#![expect(unsafe_code, reason = "calls guests")]
//! Guests that trap, for tests of traps: compiled, loaded, and called by name.

use super::compiler::compile;
use pcmap::registry::{
    CodeImage, Engine, EngineCode, EngineConfig, Function, Module, ModuleRegistry,
};
use pcmap::trap::{Activation, GuestThread, Trap, TrapHandler, TrapOptions, Trapped};
use std::sync::LazyLock;

/// All take three numbers and give one. Where they call, they call an address that they are given.
pub(crate) const SOURCE: &str = "
function %add(i64, i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64, v2: i64):
    v3 = iadd v0, v1
    v4 = iadd v3, v2
    return v4
}
function %load(i64, i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64, v2: i64):
@0021    v3 = load.i64 user1 v0
@0022    return v3
}
function %store(i64, i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64, v2: i64):
@0031    store.i64 user2 v1, v0
@0032    return v1
}
function %unreachable(i64, i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64, v2: i64):
@0041    trap user3
}
function %divide(i64, i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64, v2: i64):
@0051    v3 = sdiv v0, v1
@0052    return v3
}
; The compiler was told that this load does not trap.
function %unknown(i64, i64, i64) -> i64 system_v {
block0(v0: i64, v1: i64, v2: i64):
    v3 = load.i64 notrap v0
    return v3
}
; v0(v1, v2, 0) + 1
function %call(i64, i64, i64) -> i64 system_v {
    sig0 = (i64, i64, i64) -> i64 system_v
block0(v0: i64, v1: i64, v2: i64):
    v3 = iconst.i64 0
@0061    v4 = call_indirect sig0, v0(v1, v2, v3)
    v5 = iconst.i64 1
    v6 = iadd v4, v5
    return v6
}
; v0(v0, v1 - 1, v2) + 1, and at 0 a load from v2.
function %descend(i64, i64, i64) -> i64 system_v {
    sig0 = (i64, i64, i64) -> i64 system_v
block0(v0: i64, v1: i64, v2: i64):
    brif v1, block1, block2
block1:
    v3 = iconst.i64 1
    v4 = isub v1, v3
@0071    v5 = call_indirect sig0, v0(v0, v4, v2)
    v6 = iadd v5, v3
    return v6
block2:
@0072    v7 = load.i64 user4 v2
    return v7
}
; v0(v0, v1 - 1, v2) + 1, and at 0 v2(0, 0, 0).
function %descend_and_call(i64, i64, i64) -> i64 system_v {
    sig0 = (i64, i64, i64) -> i64 system_v
block0(v0: i64, v1: i64, v2: i64):
    brif v1, block1, block2
block1:
    v3 = iconst.i64 1
    v4 = isub v1, v3
    v5 = call_indirect sig0, v0(v0, v4, v2)
    v6 = iadd v5, v3
    return v6
block2:
    v7 = iconst.i64 0
    v8 = call_indirect sig0, v2(v7, v7, v7)
    return v8
}
; The same, without an end.
function %forever(i64, i64, i64) -> i64 system_v {
    sig0 = (i64, i64, i64) -> i64 system_v
block0(v0: i64, v1: i64, v2: i64):
    v3 = iadd v1, v2
    v4 = call_indirect sig0, v0(v0, v3, v2)
    v5 = iadd v4, v1
    return v5
}
; v1(0, 0, 0), and the same, without an end.
function %visits(i64, i64, i64) -> i64 system_v {
    sig0 = (i64, i64, i64) -> i64 system_v
block0(v0: i64, v1: i64, v2: i64):
    v3 = iconst.i64 0
    v4 = call_indirect sig0, v1(v3, v3, v3)
    v5 = call_indirect sig0, v0(v0, v1, v2)
    v6 = iadd v4, v5
    return v6
}
; The same, in long strides.
function %strides(i64, i64, i64) -> i64 system_v {
    ss0 = explicit_slot 3000
    sig0 = (i64, i64, i64) -> i64 system_v
block0(v0: i64, v1: i64, v2: i64):
    v3 = stack_addr.i64 ss0
    store.i64 notrap v1, v3
    v4 = call_indirect sig0, v0(v0, v3, v2)
    v5 = load.i64 notrap v3
    v6 = iadd v4, v5
    return v6
}
; The same, in strides of many pages, each of which is touched on the way.
function %leaps(i64, i64, i64) -> i64 system_v {
    ss0 = explicit_slot 50000
    sig0 = (i64, i64, i64) -> i64 system_v
block0(v0: i64, v1: i64, v2: i64):
    v3 = stack_addr.i64 ss0
    store.i64 notrap v1, v3
    v4 = call_indirect sig0, v0(v0, v3, v2)
    v5 = load.i64 notrap v3
    v6 = iadd v4, v5
    return v6
}
";

/// A guest's signature.
pub(crate) type Guest = unsafe extern "C" fn(i64, i64, i64) -> i64;

/// Guests in memory, and a store that knows them.
pub(crate) struct Guests {
    pub(crate) code: EngineCode,
    pub(crate) module: Module,
    pub(crate) registry: ModuleRegistry,
}

impl Guests {
    pub(crate) fn load() -> Self {
        Self::with(EngineConfig::new())
    }

    pub(crate) fn with(config: EngineConfig) -> Self {
        static IMAGE: LazyLock<CodeImage> =
            LazyLock::new(|| compile(&[SOURCE]).expect("the source is right"));
        let engine = Engine::new(config).expect("memory");
        let code = EngineCode::load(&engine, IMAGE.clone()).expect("memory");
        let module = Module::new(&code, 0).expect("memory");
        let mut registry = ModuleRegistry::new(&engine);
        registry.register_module(&module).expect("memory");
        Self { code, module, registry }
    }

    pub(crate) fn function(&self, name: &str) -> Function<'_> {
        let mut functions = self.module.functions();
        functions.find(|function| function.name == Some(name)).expect("a guest of that name")
    }

    /// Where a guest starts.
    pub(crate) fn address(&self, name: &str) -> i64 {
        let start = self.registry.store_code_base(&self.code).expect("it is loaded").address();
        (start + self.function(name).range.start().get() as usize) as i64
    }

    /// A guest, to be called.
    pub(crate) fn guest(&self, name: &str) -> Guest {
        let start = std::ptr::with_exposed_provenance::<u8>(self.address(name) as usize);
        // SAFETY: all guests are such functions; code and data pointers are alike here.
        unsafe { std::mem::transmute::<*const u8, Guest>(start) }
    }

    /// Calls a guest through an activation.
    pub(crate) fn enter<'a>(
        &self,
        activation: &Activation<'a>,
        name: &str,
        [a, b, c]: [i64; 3],
    ) -> Result<i64, Trapped<'a>> {
        // SAFETY: (`call`) 1. a guest, kept by `self`; 2. its frames are its own; 3. host functions of
        // these tests are in `host_call`; 4. it runs here.
        unsafe { activation.call(self.guest(name), (a, b, c)) }
    }

    /// Calls a guest in an activation of its own.
    pub(crate) fn run(
        &self,
        thread: &GuestThread,
        name: &str,
        with: [i64; 3],
    ) -> Result<i64, Trap> {
        thread.catch_traps(|activation| self.enter(activation, name, with))
    }
}

/// A thread that is prepared.
pub(crate) fn prepared() -> GuestThread {
    let handler = TrapHandler::install(TrapOptions::new()).expect("installed");
    GuestThread::prepare(&handler).expect("prepared")
}
