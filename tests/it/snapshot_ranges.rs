//! Every range of a small space asked of one snapshot, empty ones included.

use pcmap::{CodeMap, CodeRange};

#[test]
fn every_range_of_a_snapshot() {
    const CODE: [(usize, usize); 6] = [(2, 5), (5, 6), (9, 12), (12, 20), (25, 26), (30, 40)];
    let map = CodeMap::new();
    let _held = map.register_all(CODE.map(|(start, end)| (start..end, ()))).expect("no conflict");
    let snapshot = map.snapshot().expect("memory");
    let mut asked = 0;
    for start in 0..=42_usize {
        for end in start..=42 {
            let range = CodeRange::try_from(start..end).expect("in order");
            let found =
                snapshot.range(range).map(|code| (code.range().start(), code.range().end()));
            // They share an address: the highest start lies below the lowest end.
            let shared = CODE.into_iter().filter(|code| code.0.max(start) < code.1.min(end));
            assert!(found.eq(shared), "{range}");
            asked += 1;
        }
    }
    println!("{asked} ranges of one snapshot");
}
