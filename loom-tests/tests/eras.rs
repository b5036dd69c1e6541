//! When no reader can hold what was displaced: eras and their epochs alone.

use crate::index::era::{Era, State};
use crate::index::eras::{Eras, Tag};
use crate::model::check;
use crate::sync::{AtomicPtr, Liveness, edge, fork, use_shard};
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};
use std::ptr;

/// Something that is published: its life, and a content that is written before.
struct Thing {
    life: Liveness,
    content: loom::cell::UnsafeCell<usize>,
    name: usize,
}

impl Thing {
    fn new(name: usize) -> Self {
        Self { life: Liveness::new(), content: loom::cell::UnsafeCell::new(0), name }
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

/// Three things, of which the first is published in era 1. There is a second object.
struct World {
    eras: Eras,
    published: AtomicPtr<Thing>,
    things: [Thing; 3],
}

impl World {
    fn new() -> Arc<Self> {
        let world = Arc::new(Self {
            eras: Eras::new(),
            published: AtomicPtr::new(ptr::null_mut()),
            things: [Thing::new(1), Thing::new(2), Thing::new(3)],
        });
        world.eras.follow_fork(true).expect("memory"); // the map belongs to this process
        world.publish(0);
        world
    }

    /// Publishes a thing, and has a tag for what it displaced.
    fn publish(&self, thing: usize) -> Tag {
        self.things[thing].fill();
        let thing = ptr::from_ref(&self.things[thing]).cast_mut();
        self.published.swap(thing, edge::publish());
        self.eras.tag_behind_exchange()
    }

    /// Enters, runs `between` after the count and before the load, and reads what was published.
    #[expect(unsafe_code, reason = "follows the published pointer, as handlers do")]
    fn read_with(&self, between: impl Fn(), inside: impl Fn()) {
        let (section, thing) = self.eras.enter(|| {
            between();
            self.published.load(edge::read_published())
        });
        // SAFETY: the things live as long as the world.
        let thing = unsafe { &*thing };
        thing.read();
        inside();
        thing.read();
        drop(section);
    }

    fn read(&self) {
        self.read_with(nothing, nothing);
    }

    /// The number of the era that a section would be in.
    fn number(&self) -> u64 {
        self.eras.enter(|| ()).0.era()
    }

    fn object(&self, index: usize) -> &Era {
        self.eras.iter().nth(index).expect("an object")
    }

    fn begin(&self) -> bool {
        self.eras.begin(&self.eras.current(), true)
    }

    fn drain(&self) {
        self.eras.iter().for_each(|era| self.eras.drain(era));
    }

    fn advance(&self, times: usize) {
        for _ in 0..times {
            if !self.eras.current().era.try_advance() {
                break;
            }
        }
    }

    /// Whether what was born and displaced then is freed, and ends its life if so.
    fn free(&self, thing: usize, born: u64, tag: &Tag) -> bool {
        let free = self.eras.has_passed(tag) && self.eras.holding(born, tag.era()).is_none();
        if free {
            self.things[thing].life.end();
        }
        free
    }

    /// Publishes a thing, unless what is published is not `before` any more.
    fn exchange(&self, before: *mut Thing, thing: usize) -> bool {
        self.things[thing].fill();
        let thing = ptr::from_ref(&self.things[thing]).cast_mut();
        self.published.compare_exchange(before, thing, edge::publish(), edge::lost()).is_ok()
    }

    /// Frees what was displaced just before, if that can be. All that is displaced so was born in era 1, as
    /// far as its writer knew.
    fn retire(&self, displaced: *const Thing) {
        let tag = self.eras.tag_behind_exchange();
        self.drain();
        self.advance(3);
        let thing =
            self.things.iter().position(|thing| ptr::eq(thing, displaced)).expect("one of them");
        self.free(thing, 1, &tag);
    }

    /// Publishes `new`, then ends the life of `old` if three advances allow it.
    fn replace(&self, old: usize, new: usize, born: u64) -> bool {
        let tag = self.publish(new);
        self.advance(3);
        self.free(old, born, &tag)
    }
}

fn nothing() {}

fn spawn(world: &Arc<World>, run: impl FnOnce(&World) + 'static) -> JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || run(&world))
}

// Within an era.

/// The three roles on three threads: the one who displaces does not advance the epoch itself.
#[test]
pub(crate) fn a_reader_the_writer_who_displaced_and_one_who_advances() {
    check("a_reader_the_writer_who_displaced_and_one_who_advances", Some(4), || {
        let world = World::new();
        let reader = spawn(&world, World::read);
        let advancer = spawn(&world, |world| world.advance(4));
        let tag = world.publish(1);
        world.free(0, 1, &tag);
        reader.join().unwrap();
        advancer.join().unwrap();
    });
}

#[test]
pub(crate) fn a_reader_against_a_retirement_and_an_advance() {
    check("a_reader_against_a_retirement_and_an_advance", Some(2), || {
        let world = World::new();
        let reader = spawn(&world, World::read);
        let advancer = spawn(&world, |world| world.advance(1));
        world.replace(0, 1, 1);
        reader.join().unwrap();
        advancer.join().unwrap();
    });
}

#[test]
pub(crate) fn a_reader_against_two_retirements() {
    check("a_reader_against_two_retirements", Some(4), || {
        let world = World::new();
        let reader = spawn(&world, World::read);
        world.replace(0, 1, 1);
        world.replace(1, 2, 1);
        reader.join().unwrap();
    });
}

#[test]
pub(crate) fn a_nested_reader_at_every_point_of_an_outer_one() {
    check("a_nested_reader_at_every_point_of_an_outer_one", Some(3), || {
        let world = World::new();
        let reader = spawn(&world, |world| {
            let nested = || world.read();
            world.read_with(nested, nested);
        });
        world.replace(0, 1, 1);
        reader.join().unwrap();
    });
}

fn two_readers(name: &'static str, shard: Option<usize>) {
    check(name, Some(3), move || {
        use_shard(shard);
        let world = World::new();
        let readers = [(); 2].map(|()| spawn(&world, World::read));
        world.replace(0, 1, 1);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
pub(crate) fn two_readers_on_one_shard() {
    two_readers("two_readers_on_one_shard", Some(0));
}

#[test]
pub(crate) fn two_readers_on_two_shards() {
    two_readers("two_readers_on_two_shards", None);
}

// Between eras.

/// A reader enters while another thread begins an era, and this one displaces, drains and frees: the tag
/// is of either era.
#[test]
pub(crate) fn a_reader_against_a_change_of_era() {
    check("a_reader_against_a_change_of_era", Some(2), || {
        let world = World::new();
        let reader = spawn(&world, World::read);
        let other = spawn(&world, |world| {
            world.begin();
        });
        let tag = world.publish(1);
        world.drain();
        world.advance(3);
        world.free(0, 1, &tag);
        reader.join().unwrap();
        other.join().unwrap();
    });
}

/// What is born in the new era is freed whatever becomes of the old one: no reader of the old one has it.
#[test]
pub(crate) fn born_in_the_new_era() {
    check("born_in_the_new_era", Some(2), || {
        let world = World::new();
        let reader = spawn(&world, World::read);
        let other = spawn(&world, |world| {
            world.begin();
        });
        let born = world.number();
        world.publish(1);
        let tag = world.publish(2);
        world.advance(3);
        world.free(1, born, &tag);
        reader.join().unwrap();
        other.join().unwrap();
    });
}

/// A writer enters in one era and publishes in the next: what it read stays, and what it made counts as
/// old.
#[test]
#[expect(unsafe_code, reason = "follows the published pointer, as writers do")]
pub(crate) fn a_writer_against_a_change_of_era() {
    check("a_writer_against_a_change_of_era", Some(3), || {
        let world = World::new();
        let writer = spawn(&world, |world| {
            let (section, before) =
                world.eras.enter(|| world.published.load(edge::read_published()));
            let won = world.exchange(before, 1);
            // SAFETY: the things live as long as the world.
            unsafe { &*before }.read();
            drop(section);
            if won {
                world.retire(before);
            }
        });
        world.begin();
        let before = world.published.load(edge::read_published());
        if world.exchange(before, 2) {
            world.retire(before);
        }
        writer.join().unwrap();
    });
}

/// One thread sees an era drained, another frees by that.
#[test]
pub(crate) fn drained_by_another() {
    check("drained_by_another", Some(2), || {
        let world = World::new();
        let reader = spawn(&world, World::read);
        thread::yield_now();
        let tag = world.publish(1);
        let other = spawn(&world, |world| {
            world.begin();
            world.drain();
        });
        thread::yield_now();
        // (No advance: its fence would order what the state has to.)
        world.free(0, 1, &tag);
        reader.join().unwrap();
        other.join().unwrap();
    });
}

/// Who sees that an era has ended sees that it began: it is not taken for one that has drained.
#[test]
pub(crate) fn an_era_that_has_ended_is_seen_to_have_begun() {
    check("an_era_that_has_ended_is_seen_to_have_begun", Some(4), || {
        let world = World::new();
        let other = spawn(&world, |world| {
            world.begin();
            world.begin();
        });
        thread::yield_now();
        let tag = world.eras.tag();
        assert!(!world.eras.has_passed(&tag), "nobody has seen it drained");
        let number = world.eras.current().number();
        assert_eq!(world.eras.holding(1, number).is_some(), number != 1, "nor the one before");
        other.join().unwrap();
    });
}

/// An object has its next life while a reader sleeps that is about to count itself in for the one before:
/// only the number in the word tells the two apart.
#[test]
pub(crate) fn a_reader_that_sleeps_through_the_reuse_of_an_object() {
    check("a_reader_that_sleeps_through_the_reuse_of_an_object", Some(3), || {
        use_shard(Some(0));
        let world = World::new();
        let reader = spawn(&world, World::read);
        world.begin();
        world.eras.drain(world.object(0));
        let born = world.number();
        world.publish(1);
        // Era 3, on the object of era 1 if that has drained.
        world.begin();
        let tag = world.publish(2);
        world.drain();
        world.advance(3);
        world.free(1, born, &tag);
        reader.join().unwrap();
    });
}

/// Two threads begin an era, one of them on an object that it adds: one era begins.
#[test]
pub(crate) fn two_who_begin_an_era() {
    check("two_who_begin_an_era", Some(4), || {
        let world = World::new();
        let current = world.eras.current();
        let other = spawn(&world, |world| {
            world.begin();
            world.read();
        });
        assert!(world.eras.begin(&current, true));
        world.read();
        other.join().unwrap();
        let number = world.number();
        assert!((2..=3).contains(&number), "era {number}");
        let active = world.eras.iter().filter(|era| matches!(era.state(), State::Active(_)));
        let mut numbers: Vec<_> = active.map(Era::state).collect();
        numbers.sort_by_key(|state| format!("{state:?}"));
        assert_eq!(numbers, (1..=number).map(State::Active).collect::<Vec<_>>(), "each once");
    });
}

/// A thread claims the one free object, and stops before the era begins: others go on without it, and the
/// object is good for a later era.
#[test]
pub(crate) fn a_claim_that_is_abandoned() {
    check("a_claim_that_is_abandoned", Some(1), || {
        let world = World::new();
        assert!(world.object(1).change(State::Free(0), State::Claimed(2)));
        assert!(world.eras.begin(&world.eras.current(), false), "the claim is carried out");
        let reader = spawn(&world, World::read);
        let other = spawn(&world, |world| {
            world.begin();
        });
        world.begin();
        let tag = world.publish(1);
        world.drain();
        world.advance(3);
        world.free(0, 1, &tag);
        other.join().unwrap();
        reader.join().unwrap();
        assert!(world.number() >= 2);
        let before = world.number();
        assert!(world.begin());
        assert_eq!(world.number(), before + 1);
    });
}

/// A reader that never leaves: what is born after its era is freed, what it may hold is not.
#[test]
pub(crate) fn a_reader_that_never_leaves() {
    check("a_reader_that_never_leaves", Some(4), || {
        let world = World::new();
        let (section, _) = world.eras.enter(|| ());
        std::mem::forget(section);
        let reader = spawn(&world, World::read);
        assert!(world.begin());
        let born = world.number();
        assert_eq!(born, 2);
        let old = world.publish(1);
        let new = world.publish(2);
        world.drain();
        world.advance(3);
        assert!(!world.free(0, 1, &old), "the reader may hold it");
        world.free(1, born, &new);
        reader.join().unwrap();
        world.advance(3);
        assert!(world.eras.has_passed(&new) && world.eras.holding(born, new.era()).is_none());
        assert!(world.eras.holding(1, new.era()).is_some());
    });
}

/// The era changes whenever the reader has counted itself in: it counts itself in everywhere, and what it
/// loads then stays. The last change adds objects.
#[test]
pub(crate) fn a_reader_that_counts_itself_in_everywhere() {
    check("a_reader_that_counts_itself_in_everywhere", Some(2), || {
        let world = World::new();
        let reader = spawn(&world, |world| {
            let changes = std::cell::Cell::new(0);
            let change = || {
                changes.set(changes.get() + 1);
                if changes.get() <= 2 {
                    world.begin();
                }
            };
            world.read_with(change, nothing);
            assert!(changes.get() >= 3);
        });
        let tag = world.publish(1);
        world.drain();
        world.advance(3);
        world.free(0, 1, &tag);
        reader.join().unwrap();
    });
}

/// The same, and an era begins on an added object just when the reader counts itself in everywhere.
#[test]
pub(crate) fn an_object_is_added_behind_a_reader_that_counts_itself_in_everywhere() {
    check("an_object_is_added_behind_a_reader_that_counts_itself_in_everywhere", Some(2), || {
        let world = World::new();
        // Eras 1 and 2 never drain, so era 3 takes an object that is added.
        std::mem::forget(world.eras.enter(|| ()).0);
        let reader = spawn(&world, |world| {
            let changes = std::cell::Cell::new(0);
            let change = || {
                changes.set(changes.get() + 1);
                if changes.get() <= 3 {
                    world.begin();
                }
            };
            world.read_with(change, nothing);
        });
        let born = world.number();
        world.publish(1);
        let tag = world.publish(2);
        world.drain();
        world.advance(3);
        world.free(1, born, &tag);
        reader.join().unwrap();
    });
}

// Eras and fork.

/// Two threads of a child notice the fork at the same time.
#[test]
pub(crate) fn two_threads_follow_a_fork() {
    check("two_threads_follow_a_fork", Some(4), || {
        let world = World::new();
        fork();
        let other = spawn(&world, |world| {
            world.eras.follow_fork(true).expect("memory");
            assert!(world.number() >= 2);
            world.read();
        });
        world.eras.follow_fork(true).expect("memory");
        assert!(world.number() >= 2, "in an era of the child");
        assert!(!world.eras.is_of_this_process(1));
        other.join().unwrap();
        assert!(world.eras.is_of_this_process(world.number()));
    });
}

/// A reader enters while the first write of a child of `fork` begins an era, publishes and displaces
/// again: whatever it read, it keeps. A reader that the fork left behind holds the old thing only.
#[test]
pub(crate) fn a_reader_in_a_child_of_fork() {
    check("a_reader_in_a_child_of_fork", Some(3), || {
        let world = World::new();
        std::mem::forget(world.eras.enter(|| ()).0);
        fork();
        let reader = spawn(&world, World::read);
        world.eras.follow_fork(true).expect("memory");
        let born = world.number();
        let old = world.publish(1);
        let new = world.publish(2);
        world.drain();
        world.advance(3);
        assert!(!world.free(0, 1, &old), "the lost reader may hold it");
        world.free(1, born, &new);
        reader.join().unwrap();
    });
}
