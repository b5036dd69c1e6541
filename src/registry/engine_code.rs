//! The original of some code, shared by all stores of an engine.

use super::code_image::CodeImage;
use super::code_memory::{CodeMemory, LoadImageError};
use super::code_tables::CodeTables;
use super::engine::{Engine, LoadError};
use super::pc::EngineCodePc;
use super::residence::CodeClaim;
use crate::memory::OutOfMemory;
use crate::memory::Shared;
use core::fmt;
use core::ops::Range;

/// The original of some code: in memory, and in the code map for as long as a handle to it exists.
///
/// A handle, cheap to clone. What a store runs is made of it: [`StoreCode`](super::StoreCode). The
/// methods that only ask are constant time, without errors or panics, and signal-safe; dropping the
/// last handle unregisters the code, and is not.
///
/// The same mapping can be registered by several engines, and several times by one
/// ([`EngineCode::share_with`]): it stays in the map until the last of them lets go of it.
#[derive(Clone)]
pub struct EngineCode {
    original: Shared<Original>,
}

struct Original {
    engine: Engine,
    memory: Shared<CodeMemory>,
    /// None without text.
    _claim: Option<CodeClaim>,
}

/// Code in memory could not be registered; the memory comes back.
#[non_exhaustive]
pub struct RegisterMemoryError {
    /// Why.
    pub reason: LoadError,
    /// The memory.
    pub memory: CodeMemory,
}

/// An image could not be loaded; it comes back, in memory if it was put there.
#[derive(thiserror::Error)]
#[expect(clippy::large_enum_variant, reason = "what was given comes back, and without memory")]
#[non_exhaustive]
pub enum LoadCodeError {
    /// The image could not be put into memory, and comes back.
    #[error(transparent)]
    Publish(#[from] LoadImageError),
    /// The memory could not be registered, and comes back: [`EngineCode::register`] tries once more.
    #[error(transparent)]
    Register(#[from] RegisterMemoryError),
}

impl EngineCode {
    /// Puts an image into memory and registers it: [`CodeMemory::publish`] and then
    /// [`EngineCode::register`].
    ///
    /// # Errors
    ///
    /// Of either, with what they hand back; nothing has changed.
    #[expect(clippy::result_large_err, reason = "what was given comes back, and without memory")]
    pub fn load(engine: &Engine, image: CodeImage) -> Result<Self, LoadCodeError> {
        Ok(Self::register(engine, CodeMemory::publish(engine, image)?)?)
    }

    /// Registers code that is in memory already.
    ///
    /// When this returns, every lookup in the engine's code map finds it.
    ///
    /// **Cost**: as [`CodeMap::register`](crate::CodeMap::register). **Progress**: lock-free.
    /// **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`LoadError::Refused`]: out of memory, or an entry of the map is in the way. That is other
    /// code, which can be only if an allocator gave memory away twice.
    /// [`LoadError::Memory`] if the code is unpublished and cannot be published. The memory comes
    /// back, unpublished if it was, and nothing has changed. (If the system then does not let it be made
    /// writable, it stays executable: [`CodeMemory::is_executable`].)
    pub fn register(engine: &Engine, mut memory: CodeMemory) -> Result<Self, RegisterMemoryError> {
        let was_executable = memory.is_executable();
        if let Err(error) = memory.republish() {
            return Err(RegisterMemoryError { reason: error.into(), memory });
        }
        let refused = match Shared::try_new(memory) {
            Ok(memory) => Self::with(engine, memory)
                .map_err(|(reason, memory)| RegisterMemoryError { reason, memory: only(memory) }),
            Err(memory) => {
                let reason = OutOfMemory::of::<CodeMemory>(1).into();
                Err(RegisterMemoryError { reason, memory })
            }
        };
        refused.map_err(|mut refused| {
            if !was_executable {
                // The reason that is told is the first; the memory tells its state.
                let _ = refused.memory.unpublish();
            }
            refused
        })
    }

    /// Registers the same mapping once more, for another engine or for the same.
    ///
    /// Each of the two is code of its own engine, and keeps the mapping registered there.
    ///
    /// **Cost**: a lookup; as [`EngineCode::register`], if the engine has another code map.
    /// **Progress**: lock-free. **Panics**: none. **Signal-safe**: no.
    ///
    /// # Errors
    ///
    /// [`LoadError::Refused`], for the reasons that [`EngineCode::register`] has, and nothing has
    /// changed.
    pub fn share_with(&self, engine: &Engine) -> Result<Self, LoadError> {
        Self::with(engine, self.original.memory.clone()).map_err(|(reason, _)| reason)
    }

    fn with(
        engine: &Engine,
        memory: Shared<CodeMemory>,
    ) -> Result<Self, (LoadError, Shared<CodeMemory>)> {
        let claim = match memory.mapping() {
            None => Ok(None),
            Some(mapping) => {
                CodeClaim::on(engine.map_handle(), mapping, memory.shared_tables()).map(Some)
            }
        };
        match claim {
            Ok(claim) => {
                Shared::try_new(Original { engine: engine.clone(), memory, _claim: claim })
                    .map(|original| Self { original })
                    .map_err(|original| (OutOfMemory::of::<Original>(1).into(), original.memory))
            }
            Err(refused) => Err((refused.into(), memory)),
        }
    }

    /// The engine that the code belongs to.
    pub fn engine(&self) -> &Engine {
        &self.original.engine
    }

    /// Where the original's text is: half-open; empty without text.
    pub fn text_range(&self) -> Range<EngineCodePc> {
        let range = self.original.memory.text_range();
        EngineCodePc::new(range.start())..EngineCodePc::new(range.end())
    }

    /// The original's text: as it was in the memory that was registered, so as the compiler made it,
    /// unless that memory was patched before. It does not change any more. The addresses are not
    /// those that a store with private copies runs.
    pub fn text(&self) -> &[u8] {
        self.original.memory.text()
    }

    /// The tables of the image that the code was made of.
    pub fn tables(&self) -> &CodeTables {
        self.original.memory.tables()
    }

    pub(crate) fn memory(&self) -> &Shared<CodeMemory> {
        &self.original.memory
    }
}

/// What nobody else was given.
fn only(memory: Shared<CodeMemory>) -> CodeMemory {
    memory.into_body_if_last().unwrap_or_else(|| unreachable!("nobody else was given it"))
}

impl fmt::Debug for EngineCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineCode").field("text_range", &self.text_range()).finish_non_exhaustive()
    }
}

impl From<LoadCodeError> for LoadError {
    fn from(error: LoadCodeError) -> Self {
        match error {
            LoadCodeError::Publish(error) => error.reason,
            LoadCodeError::Register(error) => error.reason,
        }
    }
}

impl fmt::Debug for LoadCodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish(error) => error.fmt(f),
            Self::Register(error) => error.fmt(f),
        }
    }
}

impl From<RegisterMemoryError> for LoadError {
    fn from(error: RegisterMemoryError) -> Self {
        error.reason
    }
}

impl fmt::Display for RegisterMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl fmt::Debug for RegisterMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterMemoryError")
            .field("reason", &self.reason)
            .field("memory", &self.memory)
            .finish()
    }
}

impl core::error::Error for RegisterMemoryError {}
