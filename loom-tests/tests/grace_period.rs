//! When no reader can hold what was displaced: the read sections alone.

use crate::index::read_section::{Grace, ReadSections};
use crate::model::check;
use crate::sync::{AtomicPtr, Liveness, edge, fork, use_shard};
use loom::sync::Arc;
use loom::thread;
use std::ptr;

/// Something that is published: its life, and a content that is written before.
struct Item {
    life: Liveness,
    content: loom::cell::UnsafeCell<usize>,
    name: usize,
}

impl Item {
    fn new(name: usize) -> Self {
        let item = Self { life: Liveness::new(), content: loom::cell::UnsafeCell::new(0), name };
        item.fill();
        item
    }

    #[expect(unsafe_code, reason = "writes the cell that loom watches")]
    fn fill(&self) {
        // SAFETY: loom has checked that nobody reads meanwhile.
        self.content.with_mut(|content| unsafe { *content = self.name });
    }

    #[expect(unsafe_code, reason = "reads the cell that loom watches")]
    fn read(&self) {
        self.life.read();
        // SAFETY: loom has checked that nobody writes meanwhile.
        let content = self.content.with(|content| unsafe { *content });
        assert_eq!(content, self.name, "not whole");
    }
}

/// Three items, of which the first is published.
struct World {
    sections: ReadSections,
    published: AtomicPtr<Item>,
    items: [Item; 3],
}

impl World {
    fn new() -> Arc<Self> {
        let world = Arc::new(Self {
            sections: ReadSections::new(),
            published: AtomicPtr::new(ptr::null_mut()),
            items: [Item::new(1), Item::new(2), Item::new(3)],
        });
        world.sections.follow_fork().expect("memory"); // the domain belongs to this process
        world.publish(0);
        world
    }

    fn publish(&self, item: usize) {
        let item = ptr::from_ref(&self.items[item]).cast_mut();
        self.published.swap(item, edge::publish());
    }

    /// Enters, runs `between` after the count and before the load, and reads what was published.
    #[expect(unsafe_code, reason = "follows the published pointer, as handlers do")]
    fn read(&self, between: impl Fn(), inside: impl Fn()) {
        let (section, item) = self.sections.enter(|| {
            between();
            self.published.load(edge::read_published())
        });
        // SAFETY: the items live as long as the world.
        let item = unsafe { &*item };
        item.read();
        inside();
        item.read();
        drop(section);
    }

    /// Publishes `new`, then ends the life of `old` if its grace comes within three advances.
    fn replace(&self, old: usize, new: usize, born: u64) {
        self.publish(new);
        let tag = self.sections.epoch_behind_exchange();
        for _ in 0..3 {
            self.sections.try_advance();
        }
        if self.sections.grace(tag, born) == Grace::Passed {
            self.items[old].life.end();
        }
    }
}

fn nothing() {}

/// The three roles on three threads: the one who displaces does not advance the epoch itself. `epoch`
/// is how the writer reads it.
fn three_roles(name: &'static str, epoch: fn(&ReadSections) -> u64) {
    check(name, Some(4), move || {
        let world = World::new();
        let reader = thread::spawn({
            let world = world.clone();
            move || world.read(nothing, nothing)
        });
        let advancer = thread::spawn({
            let world = world.clone();
            move || {
                for _ in 0..4 {
                    world.sections.try_advance();
                }
            }
        });
        world.publish(1);
        let tag = epoch(&world.sections);
        if world.sections.grace(tag, 0) == Grace::Passed {
            world.items[0].life.end();
        }
        reader.join().unwrap();
        advancer.join().unwrap();
    });
}

#[test]
pub(crate) fn a_reader_a_writer_and_one_who_advances() {
    three_roles("a_reader_a_writer_and_one_who_advances", ReadSections::epoch_after_displacement);
}

#[test]
pub(crate) fn a_reader_the_writer_who_displaced_and_one_who_advances() {
    three_roles(
        "a_reader_the_writer_who_displaced_and_one_who_advances",
        ReadSections::epoch_behind_exchange,
    );
}

#[test]
pub(crate) fn a_reader_against_a_retirement_and_an_advance() {
    check("a_reader_against_a_retirement_and_an_advance", Some(4), || {
        let world = World::new();
        let reader = thread::spawn({
            let world = world.clone();
            move || world.read(nothing, nothing)
        });
        let advancer = thread::spawn({
            let world = world.clone();
            move || world.sections.try_advance()
        });
        world.replace(0, 1, 0);
        reader.join().unwrap();
        advancer.join().unwrap();
    });
}

#[test]
pub(crate) fn a_reader_against_two_retirements() {
    check("a_reader_against_two_retirements", Some(4), || {
        let world = World::new();
        let reader = thread::spawn({
            let world = world.clone();
            move || world.read(nothing, nothing)
        });
        world.replace(0, 1, 0);
        world.replace(1, 2, 0);
        reader.join().unwrap();
    });
}

#[test]
pub(crate) fn a_nested_reader_at_every_point_of_an_outer_one() {
    check("a_nested_reader_at_every_point_of_an_outer_one", Some(3), || {
        let world = World::new();
        let reader = thread::spawn({
            let world = world.clone();
            move || {
                let nested = || world.read(nothing, nothing);
                world.read(nested, nested);
            }
        });
        world.replace(0, 1, 0);
        reader.join().unwrap();
    });
}

#[test]
pub(crate) fn two_readers_on_one_shard() {
    check("two_readers_on_one_shard", Some(3), || {
        use_shard(Some(0));
        let world = World::new();
        let readers = [(); 2].map(|()| {
            let world = world.clone();
            thread::spawn(move || world.read(nothing, nothing))
        });
        world.replace(0, 1, 0);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
pub(crate) fn two_readers_on_two_shards() {
    check("two_readers_on_two_shards", Some(3), || {
        let world = World::new();
        let readers = [(); 2].map(|()| {
            let world = world.clone();
            thread::spawn(move || world.read(nothing, nothing))
        });
        world.replace(0, 1, 0);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

/// The thread that displaced has not noted it; another, which saw it displaced, reads the epoch.
#[test]
pub(crate) fn another_thread_notes_the_displacement() {
    check("another_thread_notes_the_displacement", Some(4), || {
        let world = World::new();
        let reader = thread::spawn({
            let world = world.clone();
            move || world.read(nothing, nothing)
        });
        let writer = thread::spawn({
            let world = world.clone();
            move || world.publish(1)
        });
        let first = ptr::from_ref(&world.items[0]);
        if !ptr::eq(world.published.load(edge::read_published()), first) {
            let tag = world.sections.epoch_after_displacement();
            for _ in 0..3 {
                world.sections.try_advance();
            }
            if world.sections.grace(tag, 0) == Grace::Passed {
                world.items[0].life.end();
            }
        }
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

/// A reader enters while the first write of a child of `fork` changes the domain, publishes and
/// displaces again: whatever it read, it keeps.
#[test]
pub(crate) fn a_reader_against_a_change_of_domain() {
    check("a_reader_against_a_change_of_domain", Some(3), || {
        let world = World::new();
        fork();
        let reader = thread::spawn({
            let world = world.clone();
            move || world.read(nothing, nothing)
        });
        world.sections.follow_fork().expect("memory");
        let (section, _) = world.sections.enter(|| ());
        let born = section.first_epoch();
        assert_ne!(born, 0, "the domain changed");
        drop(section);
        world.replace(0, 1, 0);
        world.replace(1, 2, born);
        reader.join().unwrap();
    });
}

/// Two threads of a child notice the fork at the same time.
#[test]
pub(crate) fn two_threads_follow_a_fork() {
    check("two_threads_follow_a_fork", None, || {
        let world = World::new();
        fork();
        let other = thread::spawn({
            let world = world.clone();
            move || {
                world.sections.follow_fork().expect("memory");
                world.read(nothing, nothing);
            }
        });
        world.sections.follow_fork().expect("memory");
        let (section, _) = world.sections.enter(|| ());
        assert_ne!(section.first_epoch(), 0, "in the new domain");
        drop(section);
        other.join().unwrap();
    });
}

/// A reader that the fork left behind: what it may hold stays, what came after goes.
#[test]
fn a_lost_reader_holds_back_what_is_older_than_the_fork_only() {
    check("a_lost_reader_holds_back_what_is_older_than_the_fork_only", None, || {
        let world = World::new();
        std::mem::forget(world.sections.enter(|| ()).0);
        fork();
        world.sections.follow_fork().expect("memory");
        world.publish(1);
        let old = world.sections.epoch_after_displacement();
        world.publish(2);
        let new = world.sections.epoch_after_displacement();
        let (section, _) = world.sections.enter(|| ());
        let born = section.first_epoch();
        drop(section);
        for _ in 0..3 {
            world.sections.try_advance();
        }
        assert_eq!(world.sections.grace(old, 0), Grace::HeldByOldDomain);
        assert_eq!(world.sections.grace(new, born), Grace::Passed);
    });
}
