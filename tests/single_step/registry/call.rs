//! The store side's calls that are stepped through.

use crate::is_long;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Puts code into memory, and registers nothing.
    Publish,
    Load,
    /// Registers code that is in memory.
    RegisterCode,
    /// Registers once more what is registered.
    Share,
    /// Registers what is registered in another map.
    ShareFromElsewhere,
    DropCode,
    /// One of two owners leaves.
    DropOneOwner,
    /// The last handle of some code.
    DropModule,
    NewStoreCode,
    DropStoreCode,
    RegisterModule,
    /// What is registered already.
    RegisterModuleAgain,
    /// Another module of code that is there.
    RegisterAnother,
    /// A module of another engine.
    RegisterForeign,
    /// The copy cannot be made executable.
    RegisterRefused,
    RegisterComponent,
    /// With what nobody else keeps.
    DropStore,
    /// While every allocation is refused.
    DropStoreWithoutMemory,
    /// All of its code is kept by others.
    DropStoreOfKept,
    LookupFrame,
    SetBreakpoint,
    ClearBreakpoint,
}
use Operation::*;

/// A call on the store side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    /// Whether stores run copies of their own.
    pub(super) private_copies: bool,
    /// How much other code is in the map; 0: it has never been written to.
    pub(super) neighbours: u8,
    /// Whether the call is the write that takes out garbage: other code, which it unmaps.
    pub(super) takes_out_garbage: bool,
    /// Fewer boundaries than this would mean that the call was not stepped through: half of what
    /// there are in optimised code.
    pub(crate) least: usize,
}

const fn shared(operation: Operation, least: usize) -> Call {
    let (private_copies, takes_out_garbage) = (false, false);
    Call { operation, private_copies, neighbours: 6, takes_out_garbage, least }
}

const fn private(operation: Operation, least: usize) -> Call {
    Call { private_copies: true, ..shared(operation, least) }
}

const fn first(call: Call) -> Call {
    Call { neighbours: 0, ..call }
}

const fn with_garbage(call: Call) -> Call {
    Call { takes_out_garbage: true, ..call }
}

/// Every call that publishes code, retracts it, or could.
pub(crate) const CALLS: &[Call] = &[
    shared(Publish, 500),
    first(shared(Load, 2000)), // the first write of the map
    shared(Load, 2000),
    with_garbage(shared(Load, 2500)),
    shared(RegisterCode, 2000),
    shared(Share, 300),
    shared(ShareFromElsewhere, 2000),
    shared(DropCode, 1200),
    with_garbage(shared(DropCode, 1500)),
    shared(DropOneOwner, 80),
    shared(DropModule, 1200),
    shared(NewStoreCode, 25),
    private(NewStoreCode, 2000),
    private(DropStoreCode, 900),
    shared(RegisterModule, 600),
    private(RegisterModule, 2500),
    with_garbage(private(RegisterModule, 3000)),
    private(RegisterModuleAgain, 40),
    private(RegisterAnother, 300),
    private(RegisterForeign, 25),
    private(RegisterRefused, 500),
    private(RegisterComponent, 2500),
    shared(DropStore, 2500),
    private(DropStore, 3500),
    with_garbage(private(DropStore, 4500)),
    private(DropStoreWithoutMemory, 1500),
    shared(DropStoreOfKept, 500),
    private(LookupFrame, 200),
    private(SetBreakpoint, 450),
    private(ClearBreakpoint, 450),
];

impl Call {
    pub(crate) fn name(&self) -> String {
        let stores = if self.private_copies { ", private copies" } else { "" };
        let garbage = if self.takes_out_garbage { ", and garbage" } else { "" };
        let first = if !self.has_neighbours() { ", first" } else { "" };
        format!("{:?}{stores}{garbage}{first}", self.operation)
    }

    /// Every so many boundaries something is done that takes long, if not all of them are wanted.
    pub(crate) fn spacing(&self) -> usize {
        match (is_long(), self.least < 500) {
            (true, _) => crate::call::FEW_BETWEEN,
            (false, true) => 5 * crate::call::FEW_BETWEEN,
            (false, false) => crate::call::MANY_BETWEEN,
        }
    }

    /// Whether a reader may be all that keeps some code mapped.
    pub(crate) fn could_unmap(&self) -> bool {
        let drops = [DropCode, DropOneOwner, DropModule, DropStoreCode, DropStore];
        self.takes_out_garbage || drops.contains(&self.operation)
    }

    /// Whether there is other code in the map; else it has never been written to.
    pub(crate) fn has_neighbours(&self) -> bool {
        self.neighbours != 0
    }

    /// Whether lookups see the change at a single moment. (The code of a store disappears piece by
    /// piece.)
    pub(super) fn is_one_publication(&self) -> bool {
        !matches!(self.operation, DropStore | DropStoreWithoutMemory)
    }
}
