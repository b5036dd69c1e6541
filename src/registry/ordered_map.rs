//! A plain ordered map, owned by one store: what `BTreeMap` is, but an insertion says so when there
//! is no memory.
//!
//! `BTreeMap::insert` aborts the process then, and registration promises an error that changes
//! nothing. The map is a sorted vector of sorted vectors of bounded length ("chunks"): a look-up is
//! two binary searches, an insertion moves a part of one chunk, and the vector above grows by one
//! entry for every [`MOST`]/2 insertions or so. Ten thousand entries are some five hundred chunks.
//!
//! Invariants: no chunk is empty; keys ascend inside of chunks and from one to the next.

use core::fmt;
use smallvec::SmallVec;

/// The most entries of a chunk.
const MOST: usize = 32;

/// A sorted vector of sorted vectors.
pub(crate) struct OrderedMap<K, V> {
    /// Most maps have one, and need no vector of them.
    chunks: SmallVec<[Vec<(K, V)>; 1]>,
    len: usize,
}

/// Where an entry is, or would be.
#[derive(Clone, Copy)]
struct Position {
    chunk: usize,
    at: usize,
}

impl<K: Ord + Copy, V> OrderedMap<K, V> {
    pub(crate) fn new() -> Self {
        Self { chunks: SmallVec::new(), len: 0 }
    }

    /// `Ok`: where the key is; `Err`: where it would be, in the last chunk that begins before it.
    fn position(&self, key: &K) -> Result<Position, Position> {
        let begins_before =
            |chunk: &Vec<(K, V)>| chunk.first().is_some_and(|(first, _)| first <= key);
        let chunk = self.chunks.partition_point(begins_before).saturating_sub(1);
        let entries = self.chunks.get(chunk).map_or(&[][..], Vec::as_slice);
        match entries.binary_search_by(|(known, _)| known.cmp(key)) {
            Ok(at) => Ok(Position { chunk, at }),
            Err(at) => Err(Position { chunk, at }),
        }
    }

    fn entry(&self, Position { chunk, at }: Position) -> Option<(K, &V)> {
        self.chunks.get(chunk)?.get(at).map(|(key, value)| (*key, value))
    }

    /// O(log n).
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entry(self.position(key).ok()?).map(|(_, value)| value)
    }

    /// O(log n).
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let Position { chunk, at } = self.position(key).ok()?;
        self.chunks.get_mut(chunk)?.get_mut(at).map(|(_, value)| value)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.position(key).is_ok()
    }

    /// The entry with the greatest key that is not above `key`. O(log n).
    pub(crate) fn last_up_to(&self, key: &K) -> Option<(K, &V)> {
        match self.position(key) {
            Ok(position) => self.entry(position),
            // What is below stands in the same chunk: it begins at or below the key, or it is the
            // first.
            Err(Position { chunk, at }) => self.entry(Position { chunk, at: at.checked_sub(1)? }),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.chunks.iter().flatten().map(|(key, value)| (*key, value))
    }

    /// Inserts an entry whose key is not there; if it is, or there is no memory, nothing changes,
    /// and the value comes back. (Whoever asked first knows that it is the memory.) O(log n), and a
    /// move of entries: see the head of the file.
    pub(crate) fn try_insert(&mut self, key: K, value: V) -> Result<(), V> {
        let Err(Position { mut chunk, mut at }) = self.position(&key) else { return Err(value) };
        if self.make_room(chunk).is_err() {
            return Err(value);
        }
        // The chunk may have been cut.
        if let Some(kept) = self.chunks.get(chunk).map(Vec::len)
            && at > kept
        {
            (chunk, at) = (chunk + 1, at - kept);
        }
        self.chunks[chunk].insert(at, (key, value));
        self.len += 1;
        Ok(())
    }

    /// Sees to it that the chunk can take one more entry, by cutting it in two if it is full.
    fn make_room(&mut self, chunk: usize) -> Result<(), ()> {
        match self.chunks.get_mut(chunk) {
            Some(entries) if entries.len() < MOST => entries.try_reserve(1).map_err(drop)?,
            Some(entries) => {
                let half = entries.len() / 2;
                let mut behind = Vec::new();
                behind.try_reserve(entries.len() - half + 1).map_err(drop)?;
                self.chunks.try_reserve(1).map_err(drop)?;
                behind.extend(self.chunks[chunk].drain(half..));
                self.chunks.insert(chunk + 1, behind);
            }
            None => {
                let mut first = Vec::new();
                first.try_reserve(1).map_err(drop)?;
                self.chunks.try_reserve(1).map_err(drop)?;
                self.chunks.push(first);
            }
        }
        Ok(())
    }

    /// Takes an entry out. Allocates nothing.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let Position { chunk, at } = self.position(key).ok()?;
        let (_, value) = self.chunks[chunk].remove(at);
        if self.chunks[chunk].is_empty() {
            self.chunks.remove(chunk);
        }
        self.len -= 1;
        Some(value)
    }
}

impl<K: fmt::Debug + Ord + Copy, V: fmt::Debug> fmt::Debug for OrderedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, OrderedMap};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn check(map: &OrderedMap<u16, u32>, model: &BTreeMap<u16, u32>) {
        assert_eq!(map.len, model.len());
        assert!(map.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= MOST));
        assert!(map.iter().map(|(key, &value)| (key, value)).eq(model.clone()));
    }

    proptest! {
        #[test]
        fn does_what_a_btree_map_does(
            steps in prop::collection::vec((0_u16..400, any::<bool>(), any::<u32>()), 0..1500)
        ) {
            let (mut map, mut model) = (OrderedMap::new(), BTreeMap::new());
            for (key, insert, value) in steps {
                if insert && !map.contains(&key) {
                    map.try_insert(key, value).expect("there is memory");
                    model.insert(key, value);
                } else {
                    if let Some(known) = map.get(&key).copied() {
                        prop_assert_eq!(map.try_insert(key, !known), Err(!known));
                        prop_assert_eq!(map.get(&key), Some(&known));
                    }
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
            }
            check(&map, &model);
            for key in 0..401 {
                prop_assert_eq!(map.get(&key), model.get(&key));
                prop_assert_eq!(map.get_mut(&key).copied(), model.get(&key).copied());
                let below = model.range(..=key).next_back().map(|(&key, value)| (key, value));
                prop_assert_eq!(map.last_up_to(&key), below);
            }
            let values = map.chunks.iter().flatten().map(|(_, value)| value);
            prop_assert!(values.eq(model.values()));
        }
    }

    #[test]
    fn any_order_of_many() {
        const MANY: u16 = 10_000;
        let orders: [fn(u16) -> u16; 3] =
            [|i| i, |i| MANY - 1 - i, |i| (u32::from(i) * 7919 % u32::from(MANY)) as u16];
        for order in orders {
            let (mut map, mut model) = (OrderedMap::new(), BTreeMap::new());
            for i in 0..MANY {
                map.try_insert(order(i), u32::from(i)).expect("there is memory");
                model.insert(order(i), u32::from(i));
            }
            check(&map, &model);
            assert!(map.chunks.len() <= usize::from(MANY) / (MOST / 2) + 1);
        }
    }
}
