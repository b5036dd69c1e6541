#![expect(unsafe_code, reason = "calls generated code")]
//! A store: what it has loaded, and calls into it.

use crate::compiler::SIGNATURE;
use pcmap::registry::{
    Engine, Module, ModuleRegistry, RegisterModuleError, RegisteredModuleId, StoreCodePc,
};

/// One tenant of the runtime. It runs on one thread at a time, as its registry does.
pub(crate) struct Store {
    pub(crate) name: &'static str,
    pub(crate) registry: ModuleRegistry,
}

/// A module in a store, ready to be called.
#[derive(Clone, Copy)]
pub(crate) struct Instance {
    pub(crate) id: RegisteredModuleId,
    /// Where the store's code for it starts.
    base: StoreCodePc,
}

impl Store {
    pub(crate) fn new(name: &'static str, engine: &Engine) -> Self {
        Self { name, registry: ModuleRegistry::new(engine) }
    }

    /// Loads the module's code, if it is not there yet, and makes the module known.
    ///
    /// # Errors
    ///
    /// What the registry says.
    pub(crate) fn instantiate(&mut self, module: &Module) -> Result<Instance, RegisterModuleError> {
        let id = self.registry.register_module(module)?;
        let base = self.registry.store_code_base_or_register(module)?;
        Ok(Instance { id, base: base.expect("modules here have functions") })
    }

    /// Where a function is in this store, by its index in the module.
    pub(crate) fn function(&self, instance: Instance, index: u32) -> Option<StoreCodePc> {
        let function = self.registry.module_by_id(instance.id)?.function(index)?;
        instance.base.checked_add(function.range.start().get() as usize)
    }

    /// Calls a function with three numbers, through the trampoline of its signature.
    pub(crate) fn call(&self, instance: Instance, index: u32, numbers: [i64; 3]) -> Option<i64> {
        type Trampoline = unsafe extern "C" fn(*const u8, *mut [i64; 3]);
        let function = self.function(instance, index)?.as_ptr();
        let trampoline = self.registry.wasm_to_array_trampoline(SIGNATURE)?.as_ptr();
        let mut numbers = numbers;
        // SAFETY: the trampoline is compiled code of this signature, mapped and executable as long
        // as the registry has it; pointers to data and to functions are alike here.
        let trampoline = unsafe { std::mem::transmute::<*const u8, Trampoline>(trampoline) };
        // SAFETY: as above; it calls a function of the signature that it is for, reads three
        // numbers and writes one. The store is borrowed, so its code is not patched meanwhile.
        unsafe { trampoline(function, &raw mut numbers) };
        Some(numbers[0])
    }
}
