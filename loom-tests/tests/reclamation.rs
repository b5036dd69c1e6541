//! From retirement to destruction: once, in time, and never under a reader.

use crate::index::Index;
use crate::index::reclamation::Settling;
use crate::index::shared::Shared;
use crate::index::spares::{Spares, rounded};
use crate::model::{Drops, Value, check, item, range};
use crate::sync::fork;
use loom::sync::Arc;
use loom::thread;
use std::alloc::Layout;

/// Looks an address up, and reads what is found twice, as long as the section lasts.
fn look_up(index: &Index<Value>, start: usize) {
    let reading = index.enter();
    let found = reading.version().and_then(|version| version.tree.find((start + 1).into()));
    if let Some(found) = found {
        found.entry.value.assert_of(range(start));
        assert_eq!(found.range, range(start));
        found.entry.value.assert_of(range(start));
    }
}

#[test]
pub(crate) fn deferred_destruction_that_meets_a_reader() {
    check("deferred_destruction_that_meets_a_reader", Some(4), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert(&code).expect("nothing in the way");
        let reader = thread::spawn({
            let index = index.clone();
            move || look_up(&index, 0x10)
        });
        index.remove(&code);
        drop(code);
        index.reclaim();
        reader.join().unwrap();
        index.reclaim();
        assert_eq!(drops.count(), 1, "destroyed once, now that no reader is left");
        drop(index);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
pub(crate) fn two_reclaimers_destroy_each_version_once() {
    check("two_reclaimers_destroy_each_version_once", Some(1), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert(&code).expect("nothing in the way");
        index.remove(&code);
        drop(code);
        let other = thread::spawn({
            let index = index.clone();
            move || index.reclaim()
        });
        index.reclaim();
        other.join().unwrap();
        index.reclaim();
        assert_eq!(drops.count(), 1);
        assert_eq!(index.backlog().map(|backlog| (backlog.versions, backlog.bytes)), Some((0, 0)));
    });
}

/// One thread goes on writing and reclaims, another reclaims: the head of the chain is passed on.
#[test]
pub(crate) fn a_writer_that_reclaims_against_a_reclaimer() {
    check("a_writer_that_reclaims_against_a_reclaimer", Some(2), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        index.insert(&[item(0x10, &drops)]).expect("nothing in the way");
        let writer = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || {
                index.insert(&[item(0x20, &drops)]).expect("nothing in the way");
                index.reclaim();
            }
        });
        index.reclaim();
        writer.join().unwrap();
        index.reclaim();
        assert_eq!(index.backlog().map(|backlog| backlog.versions), Some(0));
        assert_eq!((drops.count(), index.size().0), (0, 2));
    });
}

/// One thread unregisters and goes; what it retired is destroyed by another.
#[test]
pub(crate) fn garbage_of_a_thread_that_ended() {
    check("garbage_of_a_thread_that_ended", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert(&code).expect("nothing in the way");
        let gone = thread::spawn({
            let index = index.clone();
            move || {
                index.remove(&code);
            }
        });
        index.reclaim();
        gone.join().unwrap();
        index.reclaim();
        assert_eq!(drops.count(), 1);
    });
}

/// Who is told that all is settled comes after the destruction, whoever did it.
#[test]
pub(crate) fn settled_means_destroyed() {
    check("settled_means_destroyed", Some(4), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert(&code).expect("nothing in the way");
        index.remove(&code);
        drop(code);
        let mut settling = Settling::before(index.sequence());
        let other = thread::spawn({
            let index = index.clone();
            move || index.reclaim()
        });
        if index.has_settled(&mut settling) {
            assert_eq!(drops.count(), 1, "not destroyed");
            drops.assert_ordered_before_here();
        }
        other.join().unwrap();
        assert_eq!(drops.count(), 1);
        assert!(index.has_settled(&mut settling));
    });
}

/// An owned snapshot keeps what it shows, and nothing else; the last owner destroys it.
#[test]
pub(crate) fn a_snapshot_against_reclamation() {
    check("a_snapshot_against_reclamation", Some(4), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert(&code).expect("nothing in the way");
        let view = index.snapshot().expect("something was written");
        let viewer = thread::spawn(move || {
            let found = view.tree.find(0x11.into()).expect("shown for as long as it is held");
            found.entry.value.assert_of(range(0x10));
        });
        index.remove(&code);
        drop(code);
        index.reclaim();
        viewer.join().unwrap();
        index.reclaim();
        assert_eq!(drops.count(), 1);
    });
}

/// Two owners read what they share and let go of it at once: one of them is given it, and what the
/// other one did is over.
#[test]
pub(crate) fn the_last_of_two_owners_is_given_the_body() {
    check("the_last_of_two_owners_is_given_the_body", None, || {
        let drops = Drops::new();
        let value = Value::of(range(0x10), &drops);
        let one = Shared::try_new(value).expect("memory");
        let let_go = |owner: Shared<Value>| {
            owner.assert_of(range(0x10));
            usize::from(owner.into_body_if_last().is_some())
        };
        let other = thread::spawn({
            let owner = one.clone();
            move || let_go(owner)
        });
        let given = let_go(one);
        assert_eq!(given + other.join().unwrap(), 1, "neither none nor both");
        assert_eq!(drops.count(), 1);
    });
}

/// A snapshot of a tree of two levels, while the leaves that it shows are rewritten one after the
/// other and what they were is taken out: it keeps what it shows, and lets go of it.
#[test]
pub(crate) fn a_snapshot_against_rewritten_leaves() {
    check("a_snapshot_against_rewritten_leaves", Some(2), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code: Vec<_> = (1..10).map(|i| item(i * 0x10, &drops)).collect();
        index.insert(&code).expect("nothing in the way");
        let view = index.snapshot().expect("something was written");
        assert_eq!(view.tree.height, 1, "two leaves");
        let viewer = thread::spawn(move || {
            for start in [0x10, 0x90] {
                let found = view.tree.find((start + 1).into()).expect("as long as it is held");
                found.entry.value.assert_of(range(start));
            }
        });
        index.remove(&code[..1]);
        index.remove(&code[8..]);
        drop(code);
        index.reclaim();
        viewer.join().unwrap();
        index.reclaim();
        assert_eq!((drops.count(), index.size().0), (2, 7));
        drop(index);
        assert_eq!(drops.count(), 9);
    });
}

/// A snapshot is taken while what it may show is displaced and dismantled.
#[test]
pub(crate) fn a_snapshot_that_is_taken_beside_reclamation() {
    check("a_snapshot_that_is_taken_beside_reclamation", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert(&code).expect("nothing in the way");
        let viewer = thread::spawn({
            let index = index.clone();
            move || {
                let view = index.snapshot().expect("something was written");
                if let Some(found) = view.tree.find(0x11.into()) {
                    found.entry.value.assert_of(range(0x10));
                }
            }
        });
        index.remove(&code);
        drop(code);
        index.reclaim();
        viewer.join().unwrap();
        index.reclaim();
        assert_eq!(drops.count(), 1, "the cell does not keep it");
    });
}

/// A child of `fork` inherits garbage and a lost reader: new garbage goes, the old stays until the
/// map does.
#[test]
pub(crate) fn a_child_reclaims_what_it_retires() {
    check("a_child_reclaims_what_it_retires", Some(2), || {
        let (old, new) = (Drops::new(), Drops::new());
        let index = Arc::new(Index::new());
        let inherited = [item(0x10, &old)];
        index.insert(&inherited).expect("nothing in the way");
        std::mem::forget(index.enter());
        fork();
        let reader = thread::spawn({
            let index = index.clone();
            move || {
                look_up(&index, 0x10);
                look_up(&index, 0x20);
            }
        });
        index.remove(&inherited);
        drop(inherited);
        let own = [item(0x20, &new)];
        index.insert(&own).expect("nothing in the way");
        index.remove(&own);
        drop(own);
        index.reclaim();
        reader.join().unwrap();
        index.reclaim();
        assert_eq!((old.count(), new.count()), (0, 1));
        drop(index);
        assert_eq!((old.count(), new.count()), (1, 1));
    });
}

/// Two threads of the child, each finding what only the lost reader could hold.
#[test]
pub(crate) fn two_reclaimers_set_aside_what_a_lost_reader_may_hold() {
    check("two_reclaimers_set_aside_what_a_lost_reader_may_hold", Some(1), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert(&code).expect("nothing in the way");
        std::mem::forget(index.enter());
        fork();
        index.remove(&code);
        drop(code);
        let other = thread::spawn({
            let index = index.clone();
            move || index.reclaim()
        });
        index.reclaim();
        other.join().unwrap();
        assert_eq!(drops.count(), 0, "the lost reader may hold it");
        drop(index);
        assert_eq!(drops.count(), 1, "nothing was mislaid");
    });
}

/// Buried code is invisible at once, and left out by whoever writes next; who asks for a version
/// without it is not given one that has it.
#[test]
pub(crate) fn a_buried_entry_against_a_writer_and_one_who_tidies() {
    check("a_buried_entry_against_a_writer_and_one_who_tidies", Some(5), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert(&code).expect("nothing in the way");
        let writer = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || index.insert(&[item(0x20, &drops)]).expect("nothing in the way")
        });
        index.bury(&code);
        let sequence = index.tidy().expect("memory");
        let reading = index.enter();
        let version = reading.version().expect("published");
        assert!(version.sequence >= sequence);
        assert!(version.tree.find(0x11.into()).is_none(), "the entry is still there");
        drop(reading);
        drop(code);
        writer.join().unwrap();
        index.reclaim();
        assert_eq!((drops.count(), index.size().0), (1, 1));
    });
}

/// Reclaiming while the first write of all is under way: the first version is displaced from
/// nothing yet.
#[test]
fn reclaiming_before_anything_is_published() {
    check("reclaiming_before_anything_is_published", Some(2), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let writer = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || index.insert(&[item(0x10, &drops)]).expect("nothing in the way")
        });
        index.reclaim();
        look_up(&index, 0x10);
        writer.join().unwrap();
        index.reclaim();
        assert_eq!(index.backlog().map(|backlog| backlog.versions), Some(0));
    });
}

/// In a child of `fork`, one thread is in the midst of a call that began in the old domain, while
/// another writes in the new one and reclaims: the first must not follow the chain to what its
/// section does not keep alive.
#[test]
fn a_call_from_before_the_change_of_domain_against_writes_after_it() {
    check("a_call_from_before_the_change_of_domain_against_writes_after_it", Some(2), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        index.insert(&[item(0x10, &drops)]).expect("nothing in the way");
        fork();
        let tidying = thread::spawn({
            let index = index.clone();
            move || index.tidy().expect("memory")
        });
        index.insert(&[item(0x20, &drops)]).expect("nothing in the way");
        index.insert(&[item(0x30, &drops)]).expect("nothing in the way");
        index.reclaim();
        tidying.join().unwrap();
        assert_eq!(index.size().0, 3);
    });
}

/// What one thread did with a block of memory is before what the next one does with it.
#[test]
#[expect(unsafe_code, reason = "hands over blocks of memory")]
pub(crate) fn a_spare_block_changes_hands() {
    check("a_spare_block_changes_hands", None, || {
        let layout = rounded(Layout::from_size_align(2000, align_of::<usize>()).expect("a size"));
        let spares = Arc::new(Spares::new());
        // Stands for the block's contents; each block is the same one here.
        let contents = Arc::new(loom::cell::UnsafeCell::new(0));
        let block = spares.allocate(layout).expect("memory").as_ptr();
        let other = thread::spawn({
            let (spares, contents) = (spares.clone(), contents.clone());
            move || {
                let got = spares.allocate(layout).expect("memory");
                if got.as_ptr().addr() == block.addr() {
                    contents.with_mut(|_| ());
                }
                // SAFETY: (`Spares::free`) 1. allocated above.
                unsafe { spares.free(got.as_ptr(), layout) };
            }
        });
        contents.with_mut(|_| ());
        // SAFETY: (`Spares::free`) 1. allocated above.
        unsafe { spares.free(block, layout) };
        other.join().unwrap();
    });
}

#[test]
fn two_maps_do_not_disturb_each_other() {
    check("two_maps_do_not_disturb_each_other", Some(4), || {
        let drops = Drops::new();
        let (one, two) = (Index::<Value>::new(), Arc::new(Index::new()));
        let stays_inside = one.enter();
        let code = [item(0x10, &drops)];
        two.insert(&code).expect("nothing in the way");
        let reader = thread::spawn({
            let two = two.clone();
            move || look_up(&two, 0x10)
        });
        two.remove(&code);
        drop(code);
        reader.join().unwrap();
        two.reclaim();
        assert_eq!(drops.count(), 1);
        drop(stays_inside);
    });
}
