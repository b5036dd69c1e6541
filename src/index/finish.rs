#![expect(unsafe_code, reason = "takes apart what nobody else has")]
//! The end of a map: everything goes at once.

use super::Index;
use super::entry::Entry;
use super::era::Sort;
use super::limbo::Chain;
use super::node::Node;
use super::slot::Slot;
use super::tree::Tree;
use super::version::Version;
use super::view::View;
use crate::memory::Shared;
use crate::sync::{Panics, edge};

impl<T> Drop for Index<T> {
    /// Destructors run: if one panics, the others run all the same, and then the panic goes on.
    fn drop(&mut self) {
        let mut panics = Panics::none();
        // Calls and sections borrow the map: nobody else is here.
        let view = self.view.load(edge::see_view());
        if !view.is_null() {
            // SAFETY: (`Shared::from_raw`) 1. the count of the cell.
            panics.contain(|| drop(unsafe { Shared::<View<T>>::from_raw(view) }));
        }
        // Values first: some of what they were in is retired by that.
        panics.contain(|| self.destroy(self.due.take()));
        for era in self.eras.iter() {
            panics.contain(|| self.destroy(era.take_all(Sort::Values)));
        }
        for era in self.eras.iter() {
            let mut memory: Chain = era.take_all(Sort::Memory);
            while let Some(garbage) = memory.pop() {
                // SAFETY: (`Index::free`) 1. retired memory, and no reader is left.
                unsafe { self.free(garbage) };
            }
        }
        let published = self.published.load(edge::read_published());
        // SAFETY: (`Version::peek`) 1. published last.
        if let Some(tree) = unsafe { Version::peek(published) }.map(|version| version.tree) {
            self.finish_node(&tree, &tree.root, tree.height, &mut panics);
        }
        panics.resume();
    }
}

impl<T> Index<T> {
    fn finish_node(&self, tree: &Tree<T>, slot: &Slot<T>, height: u8, panics: &mut Panics) {
        for below in tree.below(slot).iter() {
            if height == 0 {
                panics.contain(|| finish_entry(below.entry()));
            } else {
                self.finish_node(tree, &below, height - 1, panics);
            }
        }
        // SAFETY: (`Node::discard`) 1. nobody else has it, and the slots were gone through.
        unsafe { Node::discard(slot.node(), &self.free_list) };
    }
}

/// Lets go of an entry that the last version shows.
fn finish_entry<T>(entry: *mut Entry<T>) {
    /// Goes on also when a destructor panics.
    struct End<T>(*mut Entry<T>);

    impl<T> Drop for End<T> {
        fn drop(&mut self) {
            // SAFETY: (`Entry::make_unreachable`) 1. no reader is left; it was not omitted.
            unsafe { Entry::make_unreachable(self.0) };
        }
    }

    let _end = End(entry);
    // SAFETY: alive: `_end` has it.
    let header = unsafe { &*entry };
    match (header.is_removed(), header.is_released()) {
        (_, true) => {}
        // SAFETY: (`Entry::let_go`) 1. the map's hold.
        (false, false) => unsafe { Entry::let_go(entry) },
        // The caller that removed it has forgotten what came back.
        // SAFETY: (`Entry::release`) 1. and nobody can remember it: it borrowed the map.
        (true, false) => unsafe { Entry::release(entry, |_| ()) },
    }
}
