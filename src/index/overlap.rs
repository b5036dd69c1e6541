//! What is added must overlap nothing.

use super::Refusal;
use super::address_range::CodeRange;
use super::entry::Item;
use super::tree::Tree;

pub(super) fn refuse_overlap(added: CodeRange, existing: CodeRange) -> Result<(), Refusal> {
    if added.overlaps(existing) { Err(Refusal::Overlap { added, existing }) } else { Ok(()) }
}

/// Refuses a tree in which what was added overlaps something. O(n), as tidying is.
///
/// Asking entries again whether they are buried would not do: one that was kept a moment ago may
/// be buried by now, and stands in the way all the same.
pub(super) fn check_apart<T>(tree: &Tree<T>, added: &[Item<T>]) -> Result<(), Refusal> {
    let is_added = |range: CodeRange| added.binary_search_by_key(&range, |i| i.range).is_ok();
    let mut last: Option<CodeRange> = None;
    for found in tree.iter() {
        if let Some(last) = last {
            let (one, other) = (found.range, last);
            let (added, existing) = if is_added(one) { (one, other) } else { (other, one) };
            refuse_overlap(added, existing)?;
        }
        last = Some(found.range);
    }
    Ok(())
}
