//! Writers, and what readers see of what they publish.

use crate::index::{Index, Refusal};
use crate::model::{Drops, Value, check, finds, item, range};
use loom::sync::Arc;
use loom::thread;

#[test]
pub(crate) fn a_reader_sees_a_whole_version_or_none_of_it() {
    check("a_reader_sees_a_whole_version_or_none_of_it", Some(5), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let reader = thread::spawn({
            let index = index.clone();
            move || finds(&index, 0x10)
        });
        index.insert_items(&[item(0x10, &drops)]).expect("nothing in the way");
        assert!(finds(&index, 0x10));
        reader.join().unwrap();
    });
}

#[test]
pub(crate) fn two_writers_lose_nothing_and_published_never_goes_back() {
    check("two_writers_lose_nothing_and_published_never_goes_back", Some(2), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        index.insert_items(&[item(0x10, &drops)]).expect("nothing in the way");
        let other = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || {
                index.insert_items(&[item(0x20, &drops)]).expect("nothing in the way");
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
        index.insert_items(&[item(0x30, &drops)]).expect("nothing in the way");
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
            move || index.insert_items(&[item(0x20, &drops)])
        });
        index.insert_items(&[item(0x30, &drops)]).expect("nothing in the way");
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
            .insert_items(&[item(0x10, drops)])
        {
            Ok(_) => 1,
            Err(Refusal::Overlap { existing, .. }) => {
                assert_eq!(existing, range(0x10));
                assert!(finds(index, 0x10), "refused for what no lookup finds");
                0
            }
            Err(Refusal::OutOfMemory(_)) => panic!("there is memory"),
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

/// A batch that loses the exchange makes the other's change to its own tree. A reader finds all of the
/// batch or none of it, and nothing that it holds is freed.
#[test]
pub(crate) fn a_batch_against_a_small_writer_and_a_reader() {
    check("a_batch_against_a_small_writer_and_a_reader", Some(2), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        index.insert_items(&[item(0x30, &drops)]).expect("nothing in the way");
        let writer = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || {
                index.insert_items(&[item(0x40, &drops)]).expect("nothing in the way");
                index.tend(0, true);
            }
        });
        let reader = thread::spawn({
            let index = index.clone();
            move || {
                let reading = index.enter();
                let finds = |start: usize| {
                    let found = reading.find((start + 1).into());
                    found.is_some_and(|(found, value)| {
                        value.assert_of(range(start));
                        found == range(start)
                    })
                };
                assert!(finds(0x30));
                assert_eq!(finds(0x10), finds(0x50), "part of a batch");
            }
        });
        let batch = [item(0x10, &drops), item(0x50, &drops)];
        index.insert_items(&batch).expect("nothing in the way");
        index.tend(0, true);
        writer.join().unwrap();
        reader.join().unwrap();
        assert!([0x10, 0x30, 0x40, 0x50].into_iter().all(|start| finds(&index, start)));
        drop(batch);
        drop(index);
        assert_eq!(drops.count(), 4);
    });
}

/// A batch against a writer that takes a removed range out of the same leaf, and against a batch.
#[test]
pub(crate) fn two_batches_that_leave_out_the_same_removed_range() {
    check("two_batches_that_leave_out_the_same_removed_range", Some(2), || {
        let drops = Drops::new();
        let index = Arc::new(Index::new());
        let code = [item(0x30, &drops)];
        index.insert_items(&code).expect("nothing in the way");
        index.remove_items(&code);
        drop(code);
        let batch = |index: &Index<Value>, drops: &std::sync::Arc<Drops>, start: usize| {
            let items = [item(start, drops), item(start + 0x10, drops)];
            index.insert_items(&items).expect("nothing in the way");
        };
        let other = thread::spawn({
            let (index, drops) = (index.clone(), drops.clone());
            move || batch(&index, &drops, 0x40)
        });
        batch(&index, &drops, 0x10);
        other.join().unwrap();
        assert!([0x10, 0x20, 0x40, 0x50].into_iter().all(|start| finds(&index, start)));
        assert!(!finds(&index, 0x30));
        drop(index);
        assert_eq!(drops.count(), 5);
    });
}
