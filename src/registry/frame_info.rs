//! What is at a program counter in a store's code.

use super::code_tables::Function;
use super::module::Module;
use super::module_registry::RegisteredModuleId;
use super::store_code::StoreCode;
use super::text_offset::{SourceOffset, TextOffset};
use core::fmt;

/// A place in a function of a registered module.
///
/// From [`ModuleRegistry::lookup_frame_info`](super::ModuleRegistry::lookup_frame_info). All
/// methods: no allocation, no errors, no panics; constant time, but for what says otherwise.
#[derive(Clone, Copy)]
pub struct FrameInfo<'r> {
    pub(crate) id: RegisteredModuleId,
    pub(crate) module: &'r Module,
    pub(crate) code: &'r StoreCode,
    pub(crate) function: Function<'r>,
    pub(crate) offset: TextOffset,
}

impl<'r> FrameInfo<'r> {
    /// The module's identity in the store.
    pub fn module_id(&self) -> RegisteredModuleId {
        self.id
    }

    /// The module.
    pub fn module(&self) -> &'r Module {
        self.module
    }

    /// The code that the store runs for it.
    pub fn store_code(&self) -> &'r StoreCode {
        self.code
    }

    /// The function: its key, its place in the text, its name.
    pub fn function(&self) -> Function<'r> {
        self.function
    }

    /// How far the place is behind the function's start, in bytes.
    pub fn function_offset(&self) -> u32 {
        self.offset.get() - self.function.range.start().get()
    }

    /// How far the place is behind the start of the module's text (of the component's, for a module
    /// of one), in bytes.
    pub fn module_offset(&self) -> TextOffset {
        self.offset
    }

    /// The place in the source, if the image has an address map that knows. O(log n).
    pub fn source_offset(&self) -> Option<SourceOffset> {
        self.code.engine_code().tables().source_at(self.offset)
    }

    /// Whether the image has debug information that nobody has parsed, which would tell more.
    pub fn has_unparsed_debug_info(&self) -> bool {
        self.code.engine_code().tables().has_unparsed_debug_info()
    }
}

impl fmt::Debug for FrameInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameInfo")
            .field("module", &self.id)
            .field("function", &self.function)
            .field("function_offset", &self.function_offset())
            .field("source_offset", &self.source_offset())
            .finish_non_exhaustive()
    }
}
