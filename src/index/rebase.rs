//! What a large batch does when another write came first: it makes that write's change to its own tree,
//! instead of its own change to the other one's tree.
//!
//! The other changes are small, and are found without a look at what both trees share ([`difference`]). So
//! a batch does not start from nothing, however often it loses, and comes through beside small writers.
//!
//! [`difference`]: super::difference

use super::Refusal;
use super::difference::{Side, between};
use super::edit::{Change, Edit, push};
use super::slot::Slot;
use super::tree::Tree;
use super::try_box::OutOfMemory;
use crate::sync::SmallVec;

impl<T> Edit<'_, T> {
    /// Goes from the version with the tree `from`, with which the edit began, to a later one: both are kept
    /// alive by the caller.
    pub(crate) fn rebase(&mut self, from: &Tree<T>, to: &Tree<T>) -> Result<(), Refusal> {
        let (gone, new) = between(from, to)?;
        let visit = self.forget(&gone)?;
        for node in &new.nodes {
            push(&mut self.replaced, node.node())?;
        }
        let mut add = Vec::new();
        reserve(&mut add, new.ranges.len())?;
        for slot in &new.ranges {
            // What is removed already is left out, as in any leaf that is rewritten.
            match to.is_removed(slot) {
                true => push(&mut self.omitted, slot.entry())?,
                false => add.push(*slot),
            }
        }
        self.apply(Change { add: &add, visit: &visit }).map_err(|refusal| match refusal {
            // To them it was the batch that is in the way; but they came first.
            Refusal::Overlap { added, existing } => {
                Refusal::Overlap { added: existing, existing: added }
            }
            refusal => refusal,
        })
    }

    /// Forgets what others displaced, in place of displacing it; gives the places where the tree shows it
    /// still.
    fn forget(&mut self, gone: &Side<T>) -> Result<Vec<Slot<T>>, OutOfMemory> {
        let mut visit = Vec::new();
        reserve(&mut visit, gone.nodes.len() + gone.ranges.len())?;
        let nodes = sorted(&gone.nodes, Slot::node)?;
        let known = take_out(&mut self.replaced, &nodes)?;
        let shown = gone.nodes.iter().filter(|node| known.binary_search(&node.node()).is_err());
        visit.extend(shown.map(|node| Slot::of_place(node.start())));
        // (An entry that this write omitted is omitted by the other one.)
        let known = take_out(&mut self.omitted, &sorted(&gone.ranges, Slot::entry)?)?;
        let shown = gone.ranges.iter().filter(|slot| known.binary_search(&slot.entry()).is_err());
        visit.extend(shown);
        self.displaced_by_others = nodes;
        visit.sort_unstable_by_key(Slot::start);
        Ok(visit)
    }
}

fn sorted<T, P: Ord>(
    slots: &[Slot<T>],
    pointer: impl Fn(&Slot<T>) -> P,
) -> Result<Vec<P>, OutOfMemory> {
    let mut pointers = Vec::new();
    reserve(&mut pointers, slots.len())?;
    pointers.extend(slots.iter().map(pointer));
    pointers.sort_unstable();
    Ok(pointers)
}

/// Takes out of `list` what is in `gone`, which is sorted; gives what that was, sorted.
fn take_out<A: smallvec::Array>(
    list: &mut SmallVec<A>,
    gone: &[A::Item],
) -> Result<Vec<A::Item>, OutOfMemory>
where
    A::Item: Copy + Ord,
{
    let mut taken = Vec::new();
    reserve(&mut taken, gone.len())?;
    list.retain(|pointer| {
        let is_gone = gone.binary_search(pointer).is_ok();
        if is_gone {
            taken.push(*pointer);
        }
        !is_gone
    });
    taken.sort_unstable();
    Ok(taken)
}

fn reserve<V>(list: &mut Vec<V>, more: usize) -> Result<(), OutOfMemory> {
    list.try_reserve(more).map_err(|_| OutOfMemory::of::<V>(list.len() + more))
}
