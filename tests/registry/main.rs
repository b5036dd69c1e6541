//! Modules and stores: real machine code in real mappings.
#![cfg(feature = "registry")]

#[path = "../guests/mod.rs"]
mod guests;
mod memory;
#[path = "../refusing/mod.rs"]
#[expect(dead_code, reason = "here memory for code is refused, too: another way over every k")]
mod refusing;

mod breakpoints;
mod churn;
mod component;
mod counted;
mod every_pc;
mod failures;
mod many;
mod protection;

use memory::Memory;
use pcmap::CodeMap;
use pcmap::registry::{Engine, EngineConfig, ResidentCode};
use std::sync::Arc;

/// An engine with a map and memory of its own.
struct Bench {
    map: Arc<CodeMap<ResidentCode>>,
    memory: Arc<Memory>,
    engine: Engine,
}

impl Bench {
    fn new(private_copies: bool) -> Self {
        let (map, memory) = (Arc::new(CodeMap::new()), Memory::new());
        let engine = Self::engine_for(private_copies, &map, &memory);
        Self { map, memory, engine }
    }

    /// One more engine with the same map and memory.
    fn another_engine(&self) -> Engine {
        Self::engine_for(self.engine.has_private_copies(), &self.map, &self.memory)
    }

    fn engine_for(
        private_copies: bool,
        map: &Arc<CodeMap<ResidentCode>>,
        memory: &Arc<Memory>,
    ) -> Engine {
        let config = EngineConfig::new()
            .private_copies(private_copies)
            .code_map(map.clone())
            .code_allocator(memory.clone());
        Engine::new(config).expect("memory")
    }

    /// Nothing is registered, and nothing is mapped.
    #[track_caller]
    fn assert_empty(&self) {
        self.map.synchronize();
        assert_eq!((self.map.stats().entries, self.memory.live()), (0, 0));
    }
}
