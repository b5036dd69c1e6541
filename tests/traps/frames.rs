//! Backtraces: every frame of the guests of one call, in order.

use crate::trap_guests::{Guests, prepared};
use pcmap::registry::SourceOffset;
use pcmap::trap::MOST_FRAMES;

#[test]
fn every_frame_is_told() {
    let (guests, thread) = (Guests::load(), prepared());
    for depth in [0, 1, 5, 61, 62, 63, 64, 200_usize] {
        let (descend, call) =
            (guests.address("descend"), [guests.address("descend"), depth as i64, 0]);
        let trap = guests.run(&thread, "descend", call).expect_err("it loads from nowhere");
        let all = depth + 1;
        assert_eq!(trap.frames().len(), all.min(MOST_FRAMES));
        assert_eq!(trap.has_all_frames(), all <= MOST_FRAMES, "{depth}");
        for (i, (frame, info)) in trap.frame_infos(&guests.registry).enumerate() {
            let info = info.expect("a frame of a guest");
            assert_eq!(info.function().name, Some("descend"));
            let source = if i == 0 { 0x72 } else { 0x71 };
            assert_eq!(info.source_offset(), Some(SourceOffset::new(source)));
            assert!(frame.pc() > descend as usize);
        }
    }
}

#[test]
fn callers_of_different_functions() {
    let (guests, thread) = (Guests::load(), prepared());
    let at = |name: &str| guests.address(name);
    // `call` calls `call`, which calls `unreachable`.
    let call = [at("call"), at("unreachable"), 0];
    let trap = guests.run(&thread, "call", call).expect_err("it traps");
    let names: Vec<_> = trap
        .frame_infos(&guests.registry)
        .map(|(_, info)| info.and_then(|info| info.function().name).unwrap_or("?").to_owned())
        .collect();
    assert_eq!(names, ["unreachable", "call", "call"]);
    assert!(trap.has_all_frames());
}
