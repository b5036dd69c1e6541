//! From retired to freed: once, in time, and never under a reader.

use crate::index::Index;
use crate::index::entry::Item;
use crate::index::era::Sort;
use crate::index::free_list::{FreeList, rounded};
use crate::index::retired::Retired;
use crate::model::{Drops, Value, check, finds, item, reclaim_all, step};
use crate::sync::{fill_eras, fork, use_shard};
use loom::sync::Arc;
use loom::thread;
use std::alloc::Layout;

/// An index with one range, and what it takes to remove it.
fn one_range(drops: &std::sync::Arc<Drops>) -> (Arc<Index<Value>>, [Item<Value>; 1]) {
    let index = Arc::new(Index::new());
    let code = [item(0x10, drops)];
    index.insert_items(&code).expect("nothing in the way");
    (index, code)
}

fn begin(index: &Index<Value>) {
    assert!(index.eras.begin(&index.eras.current(), true));
}

/// Garbage that one caller has in its hands.
fn remove(index: &Index<Value>, code: [Item<Value>; 1]) -> Retired {
    let mut retired = Retired::nothing();
    let [item] = code;
    index.remove(item, &mut retired);
    retired
}

#[test]
pub(crate) fn deferred_destruction_that_meets_a_reader() {
    check("deferred_destruction_that_meets_a_reader", Some(3), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        let reader = thread::spawn({
            let index = index.clone();
            move || finds(&index, 0x10)
        });
        index.remove_items(&code);
        drop(code);
        (0..4).for_each(|_| step(&index));
        reader.join().unwrap();
        reclaim_all(&index);
        assert_eq!(drops.count(), 1, "destroyed once, now that no reader is left");
        drop(index);
        assert_eq!(drops.count(), 1);
    });
}

/// A thread is about to take the list that is due, when another advances the epoch and puts on that same list
/// what a reader holds.
#[test]
pub(crate) fn a_list_is_taken_while_another_thread_advances_and_retires() {
    check("a_list_is_taken_while_another_thread_advances_and_retires", Some(3), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        let reader = thread::spawn({
            let index = index.clone();
            move || finds(&index, 0x10)
        });
        let other = thread::spawn({
            let index = index.clone();
            move || {
                index.eras.current().era.try_advance();
                index.remove_items(&code);
            }
        });
        step(&index);
        reader.join().unwrap();
        other.join().unwrap();
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
    });
}

/// The same across a change of era: the object is in use again when the list is taken.
#[test]
pub(crate) fn a_list_of_a_drained_era_is_taken_while_its_object_is_used_again() {
    check("a_list_of_a_drained_era_is_taken_while_its_object_is_used_again", Some(2), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        // Something on a list of the first object, whose era has drained.
        index.insert_items(&[item(0x20, &drops)]).expect("nothing in the way");
        begin(&index);
        index.eras.iter().for_each(|era| index.eras.drain(era));
        let reader = thread::spawn({
            let index = index.clone();
            move || finds(&index, 0x10)
        });
        let other = thread::spawn({
            let index = index.clone();
            move || {
                begin(&index);
                index.eras.iter().for_each(|era| index.eras.drain(era));
                index.remove_items(&code);
            }
        });
        step(&index);
        reader.join().unwrap();
        other.join().unwrap();
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
pub(crate) fn two_reclaimers_free_everything_once() {
    check("two_reclaimers_free_everything_once", Some(1), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        index.insert_items(&[item(0x20, &drops)]).expect("nothing in the way");
        index.remove_items(&code);
        drop(code);
        let reclaim = |index: &Index<Value>| (0..4).for_each(|_| step(index));
        let other = thread::spawn({
            let index = index.clone();
            move || reclaim(&index)
        });
        reclaim(&index);
        other.join().unwrap();
        index.insert_items(&[item(0x30, &drops)]).expect("nothing in the way");
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
        let backlog = index.backlog();
        assert_eq!((backlog.items, backlog.bytes), (0, 0));
    });
}

/// One thread retires, and another frees: what the first did with the garbage comes before.
#[test]
pub(crate) fn garbage_of_a_thread_that_ended() {
    check("garbage_of_a_thread_that_ended", Some(3), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        let gone = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || {
                code[0].value().assert_of(code[0].range);
                index.remove_items(&code);
                drop(code);
                index
                    .insert_items(&[item(0x20, &drops), item(0x30, &drops)])
                    .expect("nothing in the way");
            }
        });
        (0..4).for_each(|_| step(&index));
        gone.join().unwrap();
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
        assert_eq!(index.backlog().items, 0);
    });
}

/// Reclaiming while the first write of all is under way.
#[test]
fn reclaiming_before_anything_is_published() {
    check("reclaiming_before_anything_is_published", Some(2), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let writer = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || index.insert_items(&[item(0x10, &drops)]).expect("nothing in the way")
        });
        index.reclaim();
        finds(&index, 0x10);
        writer.join().unwrap();
        index.reclaim();
        assert_eq!(index.backlog().items, 0);
    });
}

/// Every write finds its era full, beside a reader: eras follow each other, and nothing that is held is freed.
#[test]
pub(crate) fn writers_that_find_eras_full() {
    check("writers_that_find_eras_full", Some(1), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        fill_eras();
        let reader = thread::spawn({
            let index = index.clone();
            move || finds(&index, 0x10)
        });
        let writer = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || index.insert_items(&[item(0x20, &drops)]).expect("nothing in the way")
        });
        index.remove_items(&code);
        drop(code);
        index.insert_items(&[item(0x30, &drops)]).expect("nothing in the way");
        step(&index);
        reader.join().unwrap();
        writer.join().unwrap();
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
    });
}

// Garbage in the hands of a caller.

/// Who is told that it is complete comes after the destruction, and what readers did comes before it.
#[test]
pub(crate) fn complete_means_destroyed() {
    check("complete_means_destroyed", Some(2), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        let reader = thread::spawn({
            let index = index.clone();
            move || finds(&index, 0x10)
        });
        let other = thread::spawn({
            let index = index.clone();
            move || step(&index)
        });
        let mut retired = remove(&index, code);
        if index.try_complete(&mut retired, false) {
            assert_eq!(drops.count(), 1, "not destroyed");
            drops.assert_ordered_before_here();
        }
        reader.join().unwrap();
        other.join().unwrap();
        let complete = (0..4).any(|_| index.try_complete(&mut retired, false));
        assert!(complete && drops.count() == 1);
    });
}

/// Who insists begins an era, beside a reader that enters: complete when the reader has left.
#[test]
pub(crate) fn who_insists_against_a_reader() {
    check("who_insists_against_a_reader", Some(3), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        let reader = thread::spawn({
            let index = index.clone();
            move || finds(&index, 0x10)
        });
        let mut retired = remove(&index, code);
        for _ in 0..3 {
            if index.try_complete(&mut retired, true) {
                drops.assert_ordered_before_here();
                break;
            }
        }
        reader.join().unwrap();
        let complete = (0..4).any(|_| index.try_complete(&mut retired, true));
        assert!(complete && drops.count() == 1);
    });
}

/// One thread adopts all garbage, and another sweeps, beside a reader: each piece is freed once. Who has
/// adopted it is complete when what it adopted is destroyed.
#[test]
pub(crate) fn who_adopts_against_a_sweeper() {
    check("who_adopts_against_a_sweeper", Some(1), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        index.remove_items(&code);
        drop(code);
        let sweeper = thread::spawn({
            let index = index.clone();
            move || (0..4).for_each(|_| step(&index))
        });
        let reader = thread::spawn({
            let index = index.clone();
            move || finds(&index, 0x10)
        });
        let mut adopted = index.adopt();
        let has_any = !adopted.is_empty();
        for _ in 0..2 {
            if index.try_complete(&mut adopted, false) && has_any {
                assert_eq!(drops.count(), 1);
                drops.assert_ordered_before_here();
            }
        }
        sweeper.join().unwrap();
        reader.join().unwrap();
        index.leave_to_others(&mut adopted);
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
    });
}

/// One thread adopts all garbage while another retires, one piece upon the other: none is mislaid.
#[test]
pub(crate) fn who_adopts_against_a_thread_that_retires() {
    check("who_adopts_against_a_thread_that_retires", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops), item(0x20, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        let other = thread::spawn({
            let index = index.clone();
            move || {
                index.remove_items(&code[..1]);
                index.remove_items(&code[1..]);
            }
        });
        thread::yield_now();
        let mut adopted = index.adopt();
        other.join().unwrap();
        index.leave_to_others(&mut adopted);
        reclaim_all(&index);
        assert_eq!(drops.count(), 2, "mislaid");
    });
}

// Garbage that waits for older eras.

fn nothing_waits(index: &Index<Value>) -> bool {
    index.eras.iter().all(|era| Sort::ALL.into_iter().all(|sort| era.waiting(sort).is_empty()))
}

fn advance(index: &Index<Value>, times: usize) {
    (0..times).for_each(|_| assert!(index.eras.current().era.try_advance()));
}

/// One thread leaves garbage to an era, while the last reader of that era leaves and another thread sees it
/// drained: one of the two takes the garbage. (The era is the parent's: a child that was forked inside a
/// section, which it leaves later, leaves to it what only that section can hold.)
#[test]
pub(crate) fn parking_against_draining() {
    check("parking_against_draining", Some(4), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        let reading = index.enter();
        fork();
        let mut retired = remove(&index, code);
        advance(&index, 3);
        let parker = thread::spawn({
            let index = index.clone();
            move || assert!(index.try_complete(&mut retired, false))
        });
        drop(reading);
        index.tend(0, true);
        parker.join().unwrap();
        assert!(nothing_waits(&index), "left behind");
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
    });
}

/// A reader that never leaves: what was born before is kept, what is born later goes, in the midst of other
/// readers.
#[test]
pub(crate) fn a_stalled_reader_keeps_what_is_older_only() {
    check("a_stalled_reader_keeps_what_is_older_only", Some(2), || {
        let (old, new) = (Drops::new(), Drops::new());
        let (index, code) = one_range(&old);
        let stalled = index.enter();
        begin(&index);
        let reader = thread::spawn({
            let index = index.clone();
            move || {
                finds(&index, 0x10);
                finds(&index, 0x20);
            }
        });
        index.remove_items(&code);
        drop(code);
        let own = [item(0x20, &new)];
        index.insert_items(&own).expect("nothing in the way");
        index.remove_items(&own);
        drop(own);
        (0..3).for_each(|_| step(&index));
        reader.join().unwrap();
        (0..5).for_each(|_| step(&index));
        assert_eq!((old.count(), new.count()), (0, 1));
        // It has found what it has found.
        if let Some((_, value)) = stalled.find(0x11.into()) {
            value.assert_of(crate::model::range(0x10));
        }
        drop(stalled);
        reclaim_all(&index);
        assert_eq!((old.count(), new.count()), (1, 1));
    });
}

/// An era drains, and its object begins another one before anybody has taken what waited there: that is
/// freed all the same, without an end of the later era.
#[test]
pub(crate) fn what_waited_at_an_object_that_is_used_again() {
    check("what_waited_at_an_object_that_is_used_again", Some(2), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        let reading = index.enter();
        begin(&index);
        index.remove_items(&code);
        drop(code);
        advance(&index, 2);
        index.tend(0, true);
        assert!(!nothing_waits(&index), "for era 1");
        drop(reading);
        let other = thread::spawn({
            let index = index.clone();
            move || begin(&index)
        });
        index.eras.iter().for_each(|era| index.eras.drain(era));
        other.join().unwrap();
        begin(&index);
        reclaim_all(&index);
        assert_eq!(drops.count(), 1, "it waits for an era that is none of its");
    });
}

// Children of `fork`.

/// A child inherits garbage and a lost reader: new garbage goes, the old stays until the map does.
#[test]
pub(crate) fn a_child_reclaims_what_it_retires() {
    check("a_child_reclaims_what_it_retires", Some(2), || {
        let (old, new) = (Drops::new(), Drops::new());
        let (index, inherited) = one_range(&old);
        std::mem::forget(index.enter());
        fork();
        let reader = thread::spawn({
            let index = index.clone();
            move || {
                finds(&index, 0x10);
                finds(&index, 0x20);
            }
        });
        index.remove_items(&inherited);
        drop(inherited);
        let own = [item(0x20, &new)];
        index.insert_items(&own).expect("nothing in the way");
        index.remove_items(&own);
        drop(own);
        (0..3).for_each(|_| step(&index));
        reader.join().unwrap();
        (0..6).for_each(|_| step(&index));
        assert_eq!((old.count(), new.count()), (0, 1));
        drop(index);
        assert_eq!((old.count(), new.count()), (1, 1));
    });
}

/// Two threads of the child, each finding what only the lost reader could hold; who waits does not wait for
/// that.
#[test]
pub(crate) fn two_reclaimers_leave_what_a_lost_reader_may_hold() {
    check("two_reclaimers_leave_what_a_lost_reader_may_hold", Some(2), || {
        let drops = Drops::new();
        let (index, code) = one_range(&drops);
        std::mem::forget(index.enter());
        fork();
        let mut retired = remove(&index, code);
        let other = thread::spawn({
            let index = index.clone();
            move || (0..4).for_each(|_| step(&index))
        });
        let complete = (0..4).any(|_| index.try_complete(&mut retired, true));
        other.join().unwrap();
        assert!(complete || (0..4).any(|_| index.try_complete(&mut retired, true)));
        assert_eq!(drops.count(), 0, "the lost reader may hold it");
        drop(index);
        assert_eq!(drops.count(), 1, "nothing was mislaid");
    });
}

// Of two maps, and of blocks of memory.

#[test]
fn two_maps_do_not_disturb_each_other() {
    check("two_maps_do_not_disturb_each_other", Some(3), || {
        let drops = Drops::new();
        let one = Index::<Value>::new();
        let stays_inside = one.enter();
        let (two, code) = one_range(&drops);
        let reader = thread::spawn({
            let two = two.clone();
            move || finds(&two, 0x10)
        });
        two.remove_items(&code);
        drop(code);
        reader.join().unwrap();
        reclaim_all(&two);
        assert_eq!(drops.count(), 1);
        drop(stays_inside);
    });
}

/// What one thread did with a block of memory is before what the next one does with it.
#[test]
#[expect(unsafe_code, reason = "hands over blocks of memory")]
pub(crate) fn a_free_block_changes_hands() {
    check("a_free_block_changes_hands", None, || {
        use_shard(Some(0));
        let layout = rounded(Layout::from_size_align(2000, align_of::<usize>()).expect("a size"));
        let free_list = Arc::new(FreeList::new());
        // Stands for the block's contents; each block is the same one here.
        let contents = Arc::new(loom::cell::UnsafeCell::new(0));
        let block = free_list.allocate(layout).expect("memory").as_ptr();
        let other = thread::spawn({
            let (free_list, contents) = (free_list.clone(), contents.clone());
            move || {
                let got = free_list.allocate(layout).expect("memory");
                if got.as_ptr().addr() == block.addr() {
                    contents.with_mut(|_| ());
                }
                // SAFETY: (`FreeList::free`) 1. allocated above.
                unsafe { free_list.free(got.as_ptr(), layout) };
            }
        });
        contents.with_mut(|_| ());
        // SAFETY: (`FreeList::free`) 1. allocated above.
        unsafe { free_list.free(block, layout) };
        other.join().unwrap();
    });
}
