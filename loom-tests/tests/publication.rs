//! Writers, the chain they make, and what readers see of it.

use crate::index::Index;
use crate::index::Refusal;
use crate::model::{Drops, Value, check, item, range};
use loom::sync::Arc;
use loom::thread;

/// Whether a lookup finds the range that starts at `start`, and the right value with it.
fn finds(index: &Index<Value>, start: usize) -> bool {
    let reading = index.enter();
    let found = reading.version().and_then(|version| version.tree.find((start + 1).into()));
    let Some(found) = found else { return false };
    assert_eq!(found.range, range(start));
    found.entry.value.assert_of(found.range);
    true
}

#[test]
pub(crate) fn a_reader_sees_a_whole_version_or_none_of_it() {
    check("a_reader_sees_a_whole_version_or_none_of_it", Some(5), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let reader = thread::spawn({
            let index = index.clone();
            move || finds(&index, 0x10)
        });
        index.insert(&[item(0x10, &drops)]).expect("nothing in the way");
        assert!(finds(&index, 0x10));
        reader.join().unwrap();
    });
}

#[test]
pub(crate) fn two_writers_lose_nothing_and_published_never_goes_back() {
    check("two_writers_lose_nothing_and_published_never_goes_back", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        index.insert(&[item(0x10, &drops)]).expect("nothing in the way");
        let other = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || {
                index.insert(&[item(0x20, &drops)]).expect("nothing in the way");
                assert!(finds(&index, 0x20), "found by the thread that registered it");
            }
        });
        let reader = thread::spawn({
            let index = index.clone();
            move || {
                let first = index.sequence();
                let found = finds(&index, 0x20);
                assert!(index.sequence() >= first, "published went back");
                assert!(!found || finds(&index, 0x20), "a registration was lost again");
                assert!(finds(&index, 0x10));
            }
        });
        index.insert(&[item(0x30, &drops)]).expect("nothing in the way");
        assert!(finds(&index, 0x30), "found by the thread that registered it");
        other.join().unwrap();
        reader.join().unwrap();
        assert!(finds(&index, 0x10) && finds(&index, 0x20) && finds(&index, 0x30));
        assert_eq!((index.sequence(), index.size().0), (3, 3));
    });
}

/// The first write of all, by two threads.
#[test]
pub(crate) fn two_first_writers() {
    check("two_first_writers", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let other = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || index.insert(&[item(0x20, &drops)])
        });
        index.insert(&[item(0x30, &drops)]).expect("nothing in the way");
        other.join().unwrap().expect("nothing in the way");
        assert!(finds(&index, 0x20) && finds(&index, 0x30));
        assert_eq!(index.sequence(), 2);
        drop(index);
        assert_eq!(drops.count(), 2);
    });
}

#[test]
pub(crate) fn of_two_that_overlap_one_wins_and_the_other_can_look_it_up() {
    check("of_two_that_overlap_one_wins_and_the_other_can_look_it_up", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let register = |index: &Index<Value>, drops: &std::sync::Arc<Drops>| match index
            .insert(&[item(0x10, drops)])
        {
            Ok(_) => 1,
            Err(Refusal::Overlap { existing, .. }) => {
                assert_eq!(existing, range(0x10));
                assert!(finds(index, 0x10), "refused for what no lookup finds");
                0
            }
            Err(Refusal::OutOfMemory) => panic!("there is memory"),
        };
        let other = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || register(&index, &drops)
        });
        let won = register(&index, &drops);
        assert_eq!(won + other.join().unwrap(), 1);
        assert_eq!(index.sequence(), 1);
    });
}

/// The owned snapshot and the lookup tell one story.
#[test]
pub(crate) fn snapshots_and_lookups_agree() {
    check("snapshots_and_lookups_agree", Some(3), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let shows = |index: &Index<Value>| {
            index.snapshot().is_some_and(|version| version.tree.find(0x11.into()).is_some())
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
        index.insert(&[item(0x10, &drops)]).expect("nothing in the way");
        assert!(shows(&index));
        viewer.join().unwrap();
    });
}
