//! Any bytes as a sequence of calls on several maps, each compared with a plain ordered map.
//!
//! Shared by the fuzz target and by the test that replays its corpus. Each call begins with a
//! byte that picks the map (two bits) and the call; its operands follow. So every input is a
//! sequence, and a sequence stays one when bytes are put in or cut out.

use crate::input::Input;
use crate::oracle::Bounds;
use crate::tracked::{Tally, Tracked};
use crate::world::{Counts, World};
use pcmap::CodeMap;

const MAPS: usize = 3;
/// Calls per input at most: an input is to be run in milliseconds.
const MOST_CALLS: usize = 400;

impl Input<'_> {
    /// An address: low, high, in one of 64 arenas far from each other, or in a dense region.
    fn address(&mut self) -> usize {
        let (high, low) = (self.byte(), self.byte());
        let (kind, high) = (high >> 6, high & 63);
        match kind {
            0 => high * 0x100 + low,
            1 => usize::MAX - (high * 0x100 + low),
            2 => (high << 36) + low * 0x100,
            _ => 0x1000_0000 + high * 0x1000 + low * 0x10,
        }
    }

    /// Start and length, in bytes, or start and end: not always a range.
    fn bounds(&mut self) -> Bounds {
        let start = self.address();
        match self.byte() {
            len @ 0..=99 => Bounds::Bytes(start, len),
            len @ 100..=199 => Bounds::Bytes(start, (len - 100) * 0x40),
            len @ 200..=239 => Bounds::Bytes(start, 1 << (len - 200)),
            len @ 240..=247 => Bounds::Bytes(start, usize::MAX - (len - 240) * 0x1000),
            less @ 248..=251 => Bounds::UpTo(start, start.saturating_sub(less - 247)),
            more => Bounds::UpTo(start, start.saturating_add((more - 252) * 8)),
        }
    }
}

fn one_call(worlds: &mut [World<'_, '_>; MAPS], input: &mut Input<'_>) {
    let first = input.byte();
    let which = (first >> 6) % MAPS;
    let other = worlds[(which + 1) % MAPS].map;
    let world = &mut worlds[which];
    match first % 16 {
        0..=3 => world.register(input.bounds()),
        4 => {
            let batch = (0..input.byte() % 8).map(|_| input.bounds()).collect();
            world.register_all(batch);
        }
        // A run of ranges at a distance from each other, touching or apart: trees grow tall.
        5 | 6 => {
            let (start, count) = (input.address(), 1 + input.byte() * 2);
            let (len, apart) = (1 + input.byte() % 64, input.byte() % 4 * 32);
            let starts = (0..count).map(|i| start.saturating_add(i * (len + apart)));
            world.register_all(starts.map(|start| Bounds::Bytes(start, len)).collect());
        }
        7 | 8 => world.unregister(input.byte() * 7, input.byte()),
        9 => world.unregister_all(input.byte(), input.byte() * 2),
        10 => world.leak(input.byte()),
        11 | 12 => world.keep_or_let_go(input.byte(), input.byte()),
        13 => world.view_range(input.bounds()),
        14 => world.synchronize(),
        _ => world.go_astray(input.byte(), other),
    }
    world.counts.calls += 1;
}

/// Runs an input; panics where a map and its oracle differ. After each call the addresses in `always`
/// are looked up, beside those that the call was about.
pub(crate) fn run(input: &[u8], always: &[usize]) -> Counts {
    let tallies = [const { Tally::new() }; MAPS];
    let mut total = Counts::default();
    {
        let maps: [CodeMap<Tracked<'_>>; MAPS] = Default::default();
        let mut worlds: [World<'_, '_>; MAPS] =
            std::array::from_fn(|i| World::new(&maps[i], &tallies[i]));
        let mut input = Input(input);
        for call in 1..=MOST_CALLS {
            if input.is_empty() {
                break;
            }
            one_call(&mut worlds, &mut input);
            for world in &mut worlds {
                always.iter().for_each(|&pc| world.look_at(pc));
            }
            if call % 32 == 0 {
                worlds.iter().for_each(World::look_at_all);
            }
        }
        for (world, tally) in worlds.into_iter().zip(&tallies) {
            let map = world.map;
            total += world.close();
            // What is leaked stays, and each value else was dropped once.
            assert_eq!(tally.alive(), map.stats().entries);
        }
    }
    assert!(tallies.iter().all(|tally| tally.alive() == 0), "a value outlives its map");
    total
}
