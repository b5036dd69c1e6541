//! Entries: removed, left out of a version, released, destroyed and freed, each once and in either order.

use crate::index::entry::Item;
use crate::index::retired::Retired;
use crate::index::{Index, Refusal};
use crate::model::{Drops, Value, check, finds, item, range, reclaim_all, step};
use loom::sync::Arc;
use loom::thread;

/// Nothing is retired and not freed: every value, and every block.
fn assert_nothing_retired(index: &Index<Value>) {
    let backlog = index.backlog();
    assert_eq!((backlog.items, backlog.bytes), (0, 0), "something was mislaid");
}

/// A removed range is found by nobody who comes later, and what a reader has found stays.
#[test]
pub(crate) fn a_tombstone_against_a_lookup() {
    check("a_tombstone_against_a_lookup", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        let reader = thread::spawn({
            let index = index.clone();
            move || {
                if !finds(&index, 0x10) {
                    assert!(!finds(&index, 0x10), "a removed range came back");
                }
            }
        });
        index.remove_items(&code);
        assert!(!finds(&index, 0x10), "removed");
        drop(code);
        (0..4).for_each(|_| step(&index));
        reader.join().unwrap();
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
    });
}

/// One thread removes and reclaims, another writes to the leaf: the slot is left out before the value is
/// released or after it. The block is freed once.
#[test]
pub(crate) fn a_tombstone_against_a_writer_that_leaves_it_out() {
    check("a_tombstone_against_a_writer_that_leaves_it_out", Some(2), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        let writer = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || {
                index
                    .insert_items(&[item(0x20, &drops), item(0x30, &drops)])
                    .expect("nothing in the way");
            }
        });
        index.remove_items(&code);
        drop(code);
        (0..4).for_each(|_| step(&index));
        writer.join().unwrap();
        assert!(finds(&index, 0x20) && !finds(&index, 0x10));
        index.insert_items(&[item(0x40, &drops), item(0x50, &drops)]).expect("nothing in the way");
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
        assert_nothing_retired(&index);
        drop(index);
        assert_eq!(drops.count(), 5);
    });
}

/// Values are due while a writer leaves their slots out: whichever is second retires the block, by the same
/// link that the value was retired by. A reader still finds the blocks.
#[test]
pub(crate) fn released_and_omitted_at_once() {
    check("released_and_omitted_at_once", Some(1), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops), item(0x60, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        index.remove_items(&code);
        drop(code);
        (0..4).for_each(|_| index.tend(0, true));
        let writer = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || {
                index
                    .insert_items(&[item(0x20, &drops), item(0x30, &drops)])
                    .expect("nothing in the way");
            }
        });
        let reader = thread::spawn({
            let index = index.clone();
            move || assert!(!finds(&index, 0x10) && !finds(&index, 0x60))
        });
        index.destroy_due();
        (0..3).for_each(|_| index.tend(0, true));
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(drops.count(), 2);
        reclaim_all(&index);
        assert_nothing_retired(&index);
    });
}

/// One thread compacts, another writes to the same leaf: the slot is left out once.
#[test]
pub(crate) fn a_tombstone_against_two_who_leave_it_out() {
    check("a_tombstone_against_two_who_leave_it_out", Some(2), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops), item(0x20, &drops), item(0x30, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        index.remove_items(&code[..1]);
        let other = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || index.insert_items(&[item(0x40, &drops)]).expect("nothing in the way")
        });
        index.insert_items(&[item(0x50, &drops), item(0x60, &drops)]).expect("nothing in the way");
        other.join().unwrap();
        drop(code);
        assert_eq!((index.size().0, index.size().1), (5, 0));
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
        assert_nothing_retired(&index);
    });
}

/// A range is registered anew while it is removed: in the way, or left out.
#[test]
pub(crate) fn a_tombstone_against_a_registration_of_the_same_range() {
    check("a_tombstone_against_a_registration_of_the_same_range", Some(3), || {
        let (old, new) = (Drops::new(), Drops::new());
        let index = Arc::new(Index::new());
        let code = [item(0x10, &old)];
        index.insert_items(&code).expect("nothing in the way");
        let other = thread::spawn({
            let (index, new) = (index.clone(), new.clone());
            move || {
                let mine = [item(0x10, &new)];
                match index.insert_items(&mine) {
                    Ok(_) => assert!(finds(&index, 0x10), "registered"),
                    Err(Refusal::Overlap { existing, .. }) => assert_eq!(existing, range(0x10)),
                    Err(Refusal::OutOfMemory(_)) => panic!("there is memory"),
                }
            }
        });
        index.remove_items(&code);
        drop(code);
        (0..3).for_each(|_| step(&index));
        other.join().unwrap();
        reclaim_all(&index);
        assert_eq!(old.count(), 1);
        let found = finds(&index, 0x10);
        assert_eq!(new.count(), usize::from(!found), "refused, or found");
        drop(index);
        assert_eq!((old.count(), new.count()), (1, 1));
    });
}

/// Whoever removed a range registers another over it, whatever others do.
#[test]
pub(crate) fn a_range_is_free_at_once_when_it_is_removed() {
    check("a_range_is_free_at_once_when_it_is_removed", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        let other = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || index.insert_items(&[item(0x20, &drops)]).expect("nothing in the way")
        });
        index.remove_items(&code);
        index.insert_items(&[item(0x10, &drops)]).expect("free");
        assert!(finds(&index, 0x10));
        other.join().unwrap();
        assert!(finds(&index, 0x10) && finds(&index, 0x20));
    });
}

/// Two threads remove the same entry: one of them does.
#[test]
pub(crate) fn two_who_remove_the_same_entry() {
    check("two_who_remove_the_same_entry", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = item(0x10, &drops);
        index.insert_items(std::slice::from_ref(&code)).expect("nothing in the way");
        let remove = |index: &Index<Value>, item: Item<Value>| {
            let mut retired = Retired::nothing();
            index.remove(item, &mut retired);
            let removed = usize::from(!retired.is_empty());
            index.leave_to_others(&mut retired);
            step(index);
            removed
        };
        let other = thread::spawn({
            let (index, code) = (index.clone(), code.clone());
            move || remove(&index, code)
        });
        let removed = remove(&index, code);
        assert_eq!(removed + other.join().unwrap(), 1);
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
    });
}

/// One thread reads the value by its own hold, and lets go of it, while another releases the map's: the
/// last destroys.
#[test]
pub(crate) fn the_last_hold_against_the_release() {
    check("the_last_hold_against_the_release", Some(4), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        let [held] = code.clone();
        index.remove_items(&code);
        drop(code);
        (0..4).for_each(|_| index.tend(0, true));
        let holder = thread::spawn(move || {
            held.value().assert_of(range(0x10));
            drop(held);
        });
        index.destroy_due();
        holder.join().unwrap();
        assert_eq!(drops.count(), 1);
    });
}

/// The last hold is let go of while the block becomes unreachable: whichever is second frees it, and what
/// the first did comes before.
#[test]
pub(crate) fn the_last_hold_against_the_end_of_the_block() {
    check("the_last_hold_against_the_end_of_the_block", Some(4), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        let [held] = code.clone();
        index.remove_items(&code);
        drop(code);
        (0..4).for_each(|_| step(&index));
        // Released: whoever leaves it out retires the block.
        index.insert_items(&[item(0x20, &drops), item(0x30, &drops)]).expect("nothing in the way");
        (0..2).for_each(|_| step(&index));
        let holder = thread::spawn(move || {
            held.value().assert_of(range(0x10));
            drop(held);
        });
        step(&index);
        holder.join().unwrap();
        assert_eq!(drops.count(), 1);
        reclaim_all(&index);
        assert_nothing_retired(&index);
    });
}
