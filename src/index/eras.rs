#![expect(unsafe_code, reason = "follows the pointers to era objects, which are never freed early")]
//! Eras: why a thread that stalls holds back no more than what the map contained when it stalled.
//!
//! The epoch of an era stands still while a reader stays inside, and garbage waits. When too much
//! of it waits, a new era begins: on another [`Era`] object, with reader counts of its own. Which era
//! is current says one word, its number and the index of its object together.
//!
//! - A reader counts itself in, loads the published pointer, and looks at the word again. If the
//!   era changed, the reader leaves and enters anew. So no reader of an era ever holds what was *born*
//!   in a later one: the writer of a later era had seen the change, and a reader that sees what
//!   it published sees the change too.
//! - Garbage that was displaced in era *r* may go when the epoch of *r* has advanced three times since
//!   (see `era`), or *r* has ended and *drained*: all its readers have left. And every era
//!   from the one it was born in up to *r* must have drained, but *r* itself.
//!
//! The word is compared whole. (If only the object were compared, a reader that slept through the
//! object's next life would be taken for one of that life.) An object is reused once its era has
//! drained. So there are never many more objects than threads that stall at the same time.
//!
//! A child of `fork` begins an era of its own: readers that the fork left behind are readers that
//! stall.
//!
//! The idea is that of hazard eras (Ramalhete and Correia, 2017) and of interval-based reclamation (Wen
//! and others, 2018), with counts in place of what each thread announces.

use super::era::{Era, Sort, State};
use super::limbo::Limbo;
use super::section::Section;
use crate::memory::OutOfMemory;
use crate::sync::{
    AtomicPtr, AtomicU64, AtomicUsize, Statistic, coarse_nanos, const_fn, edge, filled,
    fork_generation, shard_hint,
};
use core::ptr;

/// Objects beside the first two are allocated in chunks of 2, 4, 8, .. objects.
const CHUNKS: usize = 11;

/// How often a reader enters anew before it counts itself in everywhere.
const TRIES: usize = 2;

/// The number of an era and the index of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const INDEX_BITS: u32 = 16;

    const fn new(number: u64, index: usize) -> Self {
        Self(number << Self::INDEX_BITS | index as u64)
    }

    #[inline(always)]
    const fn number(self) -> u64 {
        self.0 >> Self::INDEX_BITS
    }

    #[inline(always)]
    const fn index(self) -> usize {
        self.0 as usize & ((1 << Self::INDEX_BITS) - 1)
    }
}

/// When something was displaced: after that, this was the era, and this its epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    word: Word,
    epoch: u64,
}

impl Tag {
    /// The number of the era.
    pub(crate) fn era(&self) -> u64 {
        self.word.number()
    }
}

/// The current era, as a thread saw it.
#[derive(Clone, Copy)]
pub(crate) struct Current<'a> {
    word: Word,
    pub(crate) era: &'a Era,
}

impl Current<'_> {
    pub(crate) fn number(&self) -> u64 {
        self.word.number()
    }
}

/// The eras of one map.
#[repr(C)] // what a lookup reads comes first: the word, and the epoch of the first object
pub(crate) struct Eras {
    word: AtomicU64,
    first: Era,
    /// So that the first era which must end does not need memory, and a map that is not used takes none.
    second: Era,
    chunks: [AtomicPtr<Era>; CHUNKS],
    /// The process that the current era began in, as `fork_generation` says; 0 before the first write.
    generation: AtomicUsize,
    /// The first era that began in this process.
    first_of_process: Statistic,
    /// For `some`.
    looked_at: Statistic,
}

impl Eras {
    const_fn! {
        pub(crate) fn new() -> Self {
            Self {
                word: AtomicU64::new(Word::new(1, 0).0),
                first: Era::new(State::Active(1)),
                second: Era::new(State::Free(0)),
                chunks: filled!(AtomicPtr::new(ptr::null_mut()); CHUNKS),
                generation: AtomicUsize::new(0),
                first_of_process: Statistic::new(0),
                looked_at: Statistic::new(0),
            }
        }
    }

    #[inline(always)]
    fn word(&self) -> Word {
        // Ordering [read_era]: Acquire; pairs with Release in `begin`.
        //   seen:     the object is there, and the era before is marked as active;
        //   not seen: the era before is used, and a reader looks again.
        Word(self.word.load(edge::read_era()))
    }

    /// The object of this index, if it exists.
    ///
    /// Signal-safe: follows a pointer.
    #[inline(always)]
    fn object(&self, index: usize) -> Option<&Era> {
        match index {
            0 => Some(&self.first),
            1 => Some(&self.second),
            _ => self.added(index),
        }
    }

    /// The same, of one that does not lie in the map. Signal-safe: follows a pointer.
    #[inline(always)]
    fn added(&self, index: usize) -> Option<&Era> {
        // Chunk 0 begins with object 2, chunk 1 with object 4.
        let chunk = index.ilog2().wrapping_sub(1);
        // Ordering [installed]: Acquire; pairs with Release in `grow`.
        //   seen:     the objects of the chunk are whole;
        //   not seen: no word that this thread saw names one of them.
        let objects = self.chunks.get(chunk as usize)?.load(edge::installed());
        if objects.is_null() {
            return None;
        }
        // SAFETY: a chunk holds as many objects as the index of its first one.
        let object = unsafe { objects.add(index.wrapping_sub(2 << chunk)) };
        // SAFETY: made by `grow`, whole by [installed], and freed by `drop` only.
        Some(unsafe { &*object })
    }

    /// The object that a word names.
    ///
    /// Signal-safe.
    #[inline(always)]
    fn named(&self, word: Word) -> &Era {
        match word.index() {
            0 => &self.first,
            // (A word names what exists: there is no other case.)
            index => self.object(index).unwrap_or(&self.first),
        }
    }

    /// How many objects exist: those with lower indices. Signal-safe.
    fn objects(&self) -> usize {
        let chunks =
            self.chunks.iter().take_while(|chunk| !chunk.load(edge::installed()).is_null());
        2_usize.wrapping_shl(chunks.count() as u32)
    }

    /// All objects that exist.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Era> {
        (0..self.objects()).filter_map(|index| self.object(index))
    }

    /// Enters a section and loads a pointer in it: by `load`, from where displaced ones are exchanged,
    /// with Acquire.
    ///
    /// Wait-free: a fixed number of additions, and a fence. Signal-safe: atomics of the map only.
    #[inline(always)]
    pub(crate) fn enter<P>(&self, load: impl Fn() -> P) -> (Section<'_>, P) {
        match self.try_enter(&load) {
            Some(entered) => entered,
            None => self.enter_anew(load),
        }
    }

    /// One attempt; `None` if the era changed in between.
    #[inline(always)]
    fn try_enter<P>(&self, load: impl Fn() -> P) -> Option<(Section<'_>, P)> {
        let word = self.word();
        let readers = self.named(word).announce();
        let section = Section::here(self, readers, word.number());
        let pointer = load();
        (self.word() == word).then_some((section, pointer))
    }

    /// A few more attempts; then the reader counts itself in on every object. That holds whatever is
    /// current when the pointer is loaded.
    #[cold]
    fn enter_anew<P>(&self, load: impl Fn() -> P) -> (Section<'_>, P) {
        for _ in 1..TRIES {
            if let Some(entered) = self.try_enter(&load) {
                return entered;
            }
        }
        let shard = shard_hint();
        loop {
            // The number first: what is born in this section may be as old as this.
            let number = self.word().number();
            let objects = self.objects();
            for era in (0..objects).filter_map(|index| self.object(index)) {
                for readers in era.both_sides(shard) {
                    // Ordering [announce]: Relaxed; ordered by the fence that follows.
                    readers.fetch_add(1, edge::announce());
                }
            }
            // Ordering [reader_announces]: SeqCst; as in `Era::announce`.
            edge::reader_announces();
            let section = Section::everywhere(self, shard, objects, number);
            let pointer = load();
            // If an object was added, an era on it may have begun before the load. There are few chunks
            // to add.
            if self.objects() == objects {
                return (section, pointer);
            }
        }
    }

    /// Signal-safe.
    #[cold]
    pub(super) fn leave_everywhere(&self, shard: usize, objects: usize) {
        for era in (0..objects).filter_map(|index| self.object(index)) {
            for readers in era.both_sides(shard) {
                // Ordering [leave]: Release; as in `Section::drop`.
                readers.fetch_sub(1, edge::leave());
            }
        }
    }

    #[inline]
    pub(crate) fn current(&self) -> Current<'_> {
        let word = self.word();
        Current { word, era: self.named(word) }
    }

    /// Whether the era is still this one.
    #[inline]
    pub(crate) fn is_current(&self, current: &Current<'_>) -> bool {
        self.word() == current.word
    }

    /// A tag for what the caller displaced by an exchange just before.
    #[inline]
    pub(crate) fn tag_behind_exchange(&self) -> Tag {
        // Ordering [writer_displaces]: SeqCst; meets [reader_announces] and [scanner_looks]. Some
        // machines make it of the exchange.
        //   this fence first:      readers behind theirs see the displacement, scanners behind
        //                          theirs are measured against an epoch no older than this one;
        //   a reader's first:      scanners behind this one see the reader;
        //   a scanner's first:     one advance may rest on it; that is why the grace is three.
        // The word is read behind the fence too: a reader that is counted in a newer era, and saw what
        // was displaced, would have made that newer one visible here.
        edge::writer_displaces();
        self.tag()
    }

    /// A tag for what other threads displaced, and this one has taken off their lists: theirs was read before
    /// that, so this one is no older.
    #[inline]
    pub(crate) fn tag(&self) -> Tag {
        let current = self.current();
        Tag { word: current.word, epoch: current.era.epoch_for_tag() }
    }

    /// The object of a tag's era.
    #[inline]
    pub(crate) fn tagged(&self, tag: &Tag) -> &Era {
        self.named(tag.word)
    }

    /// Where garbage with this tag goes.
    #[inline]
    pub(crate) fn limbo(&self, tag: &Tag, sort: Sort) -> &Limbo {
        self.named(tag.word).limbo(sort, tag.epoch)
    }

    /// Whether every reader has left that was counted in the tag's era and entered before.
    pub(crate) fn has_passed(&self, tag: &Tag) -> bool {
        let era = self.named(tag.word);
        if self.word() == tag.word {
            return era.epoch() >= tag.epoch + 3;
        }
        // It has ended, so it was marked as active.
        era.state() != State::Active(tag.era())
    }

    /// An era from `born` up to `displaced`, but not that one, that has not drained: a reader in it may
    /// hold what was born and displaced then. All of them must have ended.
    #[inline]
    pub(crate) fn holding(&self, born: u64, displaced: u64) -> Option<(&Era, u64)> {
        self.iter().find_map(|era| match era.state() {
            State::Active(number) if (born..displaced).contains(&number) => Some((era, number)),
            _ => None,
        })
    }

    /// Whether that era began in this process (if not, its readers may have been lost in a `fork`).
    pub(crate) fn is_of_this_process(&self, number: u64) -> bool {
        number >= self.first_of_process.load(edge::statistic())
    }

    /// Some objects that exist, others each time; or all.
    pub(crate) fn some(&self, at_most: usize) -> impl Iterator<Item = &Era> {
        let objects = self.objects();
        let count = objects.min(at_most);
        let first = self.looked_at.fetch_add(count as u64, edge::statistic()) as usize;
        (0..count).filter_map(move |i| self.object(first.wrapping_add(i) % objects))
    }

    /// Notes that an era has drained, if it has ended and no reader is left in it.
    ///
    /// Once drained it stays so: a late reader that counts itself in looks at the word again.
    pub(crate) fn drain(&self, era: &Era) {
        if let State::Active(number) = era.state()
            && number < self.word().number()
            && era.is_empty()
            && era.change(State::Active(number), State::Free(number))
        {
            // Ordering [drainer_looks]: SeqCst; meets [parker_looks].
            edge::drainer_looks();
        }
    }

    /// Begins an era if a reader stays inside, so that what comes now is not born in that reader's era.
    pub(crate) fn leave_stalled_behind(&self) {
        let current = self.current();
        // (One side may be empty by chance.)
        if !(current.era.try_advance() && current.era.try_advance()) {
            self.begin(&current, true);
        }
    }

    /// Begins a new era, unless another thread did since `current` was read. Says whether the era is
    /// another one now: not so if no object is free, and none may or can be allocated.
    ///
    /// Lock-free.
    pub(crate) fn begin(&self, current: &Current<'_>, may_allocate: bool) -> bool {
        let word = current.word;
        // The thread that began the current era may have stopped before it said so.
        self.activate(word);
        let next = match self.claim(word) {
            None if may_allocate && self.grow().is_ok() => self.claim(word),
            claimed => claimed,
        };
        let Some(next) = next else { return self.word() != word };
        // Ordering [begin_era]: Release; pairs with Acquire in `word`.
        //   failed: another thread began an era. The object is as good as free: see `claim`.
        let begun = self.word.compare_exchange(word.0, next.0, edge::begin_era(), edge::lost());
        if begun.is_ok() {
            self.named(next).began.store(coarse_nanos(), edge::statistic());
            self.activate(next);
            // One is kept for those who may not allocate.
            let is_spare = |era: &Era| !matches!(era.state(), State::Active(_));
            if may_allocate && !self.iter().any(is_spare) {
                let _ = self.grow();
            }
        }
        true
    }

    /// Says of the object that the era of `word` began there.
    fn activate(&self, word: Word) {
        let number = word.number();
        self.named(word).change(State::Claimed(number), State::Active(number));
    }

    /// An object for the era after that of `word`, as the word to begin it with.
    fn claim(&self, word: Word) -> Option<Word> {
        let next = word.number() + 1;
        let claim = |index: usize| {
            let object = self.object(index).filter(|_| index != word.index())?;
            let state = object.state();
            let is_free = match state {
                // (Not if its number is higher: then the word that this thread saw is an old one, and the
                // numbers of an object only grow.)
                State::Free(number) => number < next,
                // The thread that claimed it came too late, for that era is here, and elsewhere: an era that has
                // ended is active or drained. Or it is claimed for the same era: then the thread that is first with
                // the word begins that.
                State::Claimed(number) => number <= next,
                State::Active(_) => false,
            };
            (is_free && object.change(state, State::Claimed(next))).then(|| Word::new(next, index))
        };
        // Rather one that nobody is counted on, as a reader may be that was lost there.
        let is_empty = |index: &usize| self.object(*index).is_some_and(Era::is_empty);
        let indices = || 0..self.objects();
        indices().filter(is_empty).find_map(claim).or_else(|| indices().find_map(claim))
    }

    /// Adds objects. Lock-free, except the allocator.
    fn grow(&self) -> Result<(), OutOfMemory> {
        let objects = self.objects();
        let chunk = (objects / 2).ilog2() as usize;
        let chunk = self.chunks.get(chunk).ok_or(OutOfMemory::of::<Era>(objects))?;
        let mut made = Vec::new();
        made.try_reserve_exact(objects).map_err(|_| OutOfMemory::of::<Era>(objects))?;
        made.extend((0..objects).map(|_| Era::new(State::Free(0))));
        let made = Box::into_raw(made.into_boxed_slice());
        // Ordering [install]: Release; pairs with Acquire in `object`.
        //   failed: another thread added some.
        let installed =
            chunk.compare_exchange(ptr::null_mut(), made.cast(), edge::install(), edge::lost());
        if installed.is_err() {
            // SAFETY: from `Box::into_raw` above, and handed to nobody.
            drop(unsafe { Box::from_raw(made) });
        }
        Ok(())
    }

    /// Begins an era if this process was forked since the last call.
    ///
    /// Lock-free: it goes round again if another thread decided, or the process was forked meanwhile.
    #[inline]
    pub(crate) fn follow_fork(&self, may_allocate: bool) -> Result<(), OutOfMemory> {
        match self.generation.load(edge::claim_generation()) == fork_generation() {
            true => Ok(()),
            false => self.follow(may_allocate),
        }
    }

    #[cold]
    fn follow(&self, may_allocate: bool) -> Result<(), OutOfMemory> {
        loop {
            let known = self.generation.load(edge::claim_generation());
            let generation = fork_generation();
            if known == generation {
                return Ok(());
            }
            // Before the first write there is no garbage to be held back by a reader that was lost
            // before, unless there was one.
            if known != 0 || !self.first.is_empty() {
                // After the generation: an era that begins behind that is one of this process.
                let current = self.current();
                if !self.begin(&current, may_allocate) {
                    return Err(OutOfMemory::of::<Era>(self.objects()));
                }
                // Ordering [follower_looks]: SeqCst; meets itself below.
                //   this fence first: the thread below sees the era that began here, and writes in it;
                //   this one second:  the generation is seen, and this process has written before: the era
                //                     that began here is not its first.
                edge::follower_looks();
                if self.generation.load(edge::claim_generation()) == known {
                    self.first_of_process.fetch_max(current.number() + 1, edge::statistic());
                }
            }
            // Ordering [claim_generation]: Relaxed; a number that is compared for equality.
            let claim = edge::claim_generation();
            let _ = self.generation.compare_exchange(known, generation, claim, edge::lost());
            edge::follower_looks();
        }
    }
}

impl Drop for Eras {
    fn drop(&mut self) {
        for (chunk, objects) in self.chunks.iter().enumerate() {
            let objects = objects.load(edge::installed());
            if !objects.is_null() {
                let objects = ptr::slice_from_raw_parts_mut(objects, 2 << chunk);
                // SAFETY: from `Box::into_raw` in `grow`, with this length; no section is left, for each
                // borrows `self`.
                drop(unsafe { Box::from_raw(objects) });
            }
        }
    }
}
