//! Owned snapshots: sorted vectors that hold values, the last of which the map keeps.

use crate::index::Index;
use crate::index::view::View;
use crate::memory::Shared;
use crate::model::{Drops, Value, check, finds, item, range, reclaim_all, step};
use loom::sync::Arc;
use loom::thread;

/// Whether a view shows the range; reads its value.
fn shows(view: &View<Value>, start: usize) -> bool {
    let row = view.rows().iter().find(|row| row.start() == start);
    row.is_some_and(|row| {
        let (found, value) = view.registered(row);
        value.assert_of(found);
        found == range(start)
    })
}

fn view(index: &Index<Value>) -> Shared<View<Value>> {
    index.view().expect("memory").expect("something was written")
}

/// A snapshot keeps what it shows, and nothing else; the last owner destroys it.
#[test]
pub(crate) fn a_snapshot_against_reclamation() {
    check("a_snapshot_against_reclamation", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        let view = view(&index);
        let viewer = thread::spawn(move || {
            assert!(shows(&view, 0x10), "shown for as long as it is held");
        });
        index.remove_items(&code);
        drop(code);
        (0..4).for_each(|_| step(&index));
        viewer.join().unwrap();
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
    });
}

/// A snapshot is taken while what it may show is removed and reclaimed; nothing keeps it when it is gone.
#[test]
pub(crate) fn a_snapshot_that_is_taken_beside_a_removal() {
    check("a_snapshot_that_is_taken_beside_a_removal", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        let viewer = thread::spawn({
            let index = index.clone();
            move || {
                let view = view(&index);
                let shown = shows(&view, 0x10);
                assert!(!shown || view.made_of.1 == 0, "it counts a removal that it does not know");
            }
        });
        index.remove_items(&code);
        drop(code);
        (0..3).for_each(|_| step(&index));
        viewer.join().unwrap();
        reclaim_all(&index);
        assert_eq!(drops.count(), 1, "the cell does not keep it");
    });
}

/// Who sees a removal counted sees the entry removed: so a view that knows of it lacks the entry.
#[test]
pub(crate) fn a_counted_removal_is_seen() {
    check("a_counted_removal_is_seen", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        let viewer = thread::spawn({
            let index = index.clone();
            move || {
                let view = view(&index);
                let shown = shows(&view, 0x10);
                assert!(!shown || view.made_of.1 == 0, "it counts a removal that it does not know");
            }
        });
        index.remove_items(&code);
        viewer.join().unwrap();
    });
}

/// Two threads take a snapshot at once, and one displaces it: each has a whole one.
#[test]
pub(crate) fn two_who_take_a_snapshot() {
    check("two_who_take_a_snapshot", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        index.insert_items(&[item(0x10, &drops)]).expect("nothing in the way");
        let viewer = thread::spawn({
            let index = index.clone();
            move || assert!(shows(&view(&index), 0x10))
        });
        assert!(shows(&view(&index), 0x10));
        viewer.join().unwrap();
        drop(index);
        assert_eq!(drops.count(), 1);
    });
}

/// One thread takes the snapshot that is kept, while another displaces it and reclaims.
#[test]
pub(crate) fn a_kept_snapshot_against_its_displacement() {
    check("a_kept_snapshot_against_its_displacement", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        drop(view(&index));
        let viewer = thread::spawn({
            let index = index.clone();
            move || drop(view(&index))
        });
        index.remove_items(&code);
        drop(code);
        (0..3).for_each(|_| step(&index));
        viewer.join().unwrap();
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
    });
}

/// A thread is about to take the snapshot that is kept, and entered in an older era than the one that this
/// snapshot is made, displaced and destroyed in.
#[test]
pub(crate) fn a_kept_snapshot_that_is_born_later_than_the_section() {
    check("a_kept_snapshot_that_is_born_later_than_the_section", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x10, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        let viewer = thread::spawn({
            let index = index.clone();
            move || drop(view(&index))
        });
        index.eras.begin(&index.eras.current(), true);
        drop(view(&index));
        index.remove_items(&code);
        drop(code);
        (0..3).for_each(|_| step(&index));
        viewer.join().unwrap();
        reclaim_all(&index);
        assert_eq!(drops.count(), 1);
    });
}

/// The snapshot and the lookup tell one story.
#[test]
pub(crate) fn snapshots_and_lookups_agree() {
    check("snapshots_and_lookups_agree", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let shows = |index: &Index<Value>| {
            let view = index.view().expect("memory");
            view.is_some_and(|view| shows(&view, 0x10))
        };
        let viewer = thread::spawn({
            let index = index.clone();
            move || {
                if finds(&index, 0x10) {
                    assert!(shows(&index), "looked up, but not in a later snapshot");
                } else if shows(&index) {
                    assert!(finds(&index, 0x10), "in a snapshot, but not looked up later");
                }
            }
        });
        index.insert_items(&[item(0x10, &drops)]).expect("nothing in the way");
        assert!(shows(&index));
        viewer.join().unwrap();
    });
}

/// Two owners of a counted block read what they share and let go of it at once: one of them is given it, and
/// what the other one did is over.
#[test]
pub(crate) fn the_last_of_two_owners_is_given_the_body() {
    check("the_last_of_two_owners_is_given_the_body", None, || {
        let drops = Drops::new();
        let value = Value::of(range(0x10), &drops);
        let one = Shared::try_new(value).unwrap_or_else(|_| panic!("memory"));
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
