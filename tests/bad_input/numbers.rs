//! Numbers that are no places, no ranges and no keys.

use pcmap::registry::{
    CodeImage, EngineCodePc, FuncKey, FuncKind, StoreCodePc, TextOffset, TextRange, TextRangeError,
    TrapTableRef, breakpoint_address,
};
use pcmap::{CodeMap, CodeRange, Pc, RangeError};

#[test]
fn ranges_of_addresses() {
    let reversed = RangeError::Reversed { start: 2, end: 1 };
    #[expect(clippy::reversed_empty_ranges, reason = "it is refused")]
    let range = CodeRange::try_from(2..1);
    assert_eq!(range, Err(reversed));
    let wraps = RangeError::Wraps { start: usize::MAX, len: 1 };
    assert_eq!(CodeRange::from_start_len(usize::MAX, 1), Err(wraps));
    assert!(CodeRange::from_start_len(usize::MAX, 0).is_ok_and(CodeRange::is_empty));
    let all = CodeRange::try_from(0..usize::MAX).expect("in order");
    assert!(all.contains(0_usize) && !all.contains(usize::MAX), "the last address is in no range");
}

#[test]
fn addresses_where_nothing_is() {
    let map = CodeMap::new();
    let _held = map.register(0x10..usize::MAX, ()).expect("free");
    for pc in [0, 0xf, usize::MAX] {
        assert!(map.lookup(pc, |_| ()).is_none());
        assert!(map.enter().lookup(Pc::new(pc)).is_none());
        assert!(map.snapshot().expect("memory").find(pc).is_none());
        let around = map.snapshot().expect("memory");
        let around = around.neighbours(pc);
        assert_eq!((around.below.is_some(), around.above.is_some()), (pc > 0x10, pc < 0x10));
    }
    let empty = CodeMap::<()>::new();
    assert!(
        empty.lookup(0_usize, |_| ()).is_none()
            && empty.snapshot().expect("memory").iter().next().is_none()
    );
}

#[test]
fn places_in_text() {
    let far = TextRangeError::TooFar { offset: 1 << 32 };
    assert_eq!(TextOffset::try_from(1_u64 << 32), Err(far));
    assert_eq!(TextOffset::try_from(1_usize << 32), Err(far));
    assert_eq!(TextRange::try_from(0..1_usize << 32), Err(far));
    let [low, high] = [TextOffset::new(1), TextOffset::new(u32::MAX)];
    assert_eq!(TextRange::from_start_len(high, 1), Err(far));
    assert_eq!(TextRange::new(high, low), Err(TextRangeError::Reversed { start: high, end: low }));
    assert_eq!((high.checked_add(1), low.checked_sub(high)), (None, None));
    let empty = TextRange::new(low, low).expect("an empty range");
    assert!(!empty.contains(low) && !empty.overlaps(empty));
}

#[test]
fn keys_and_kinds() {
    assert_eq!((FuncKind::new(16), FuncKind::new(u8::MAX)), (None, None));
    assert_eq!(FuncKey::of_module(FuncKind::DEFINED, 1 << 28, 0), None);
    assert_eq!(FuncKey::of_module(FuncKind::OTHER, u32::MAX, 0), None);
}

#[test]
fn addresses_in_code() {
    let [zero, last] = [EngineCodePc::new(0), EngineCodePc::new(usize::MAX)];
    assert_eq!((last.checked_add(1), zero.checked_sub(1)), (None, None));
    assert_eq!((last.offset_in(&(zero..last)), zero.offset_in(&(last..zero))), (None, None));
    let [zero, last] = [StoreCodePc::new(0), StoreCodePc::new(usize::MAX)];
    assert_eq!((last.checked_add(1), zero.checked_sub(1)), (None, None));
    assert_eq!((last.offset_in(&(zero..last)), zero.offset_in(&(last..zero))), (None, None));
    // Nothing stops there.
    let before = breakpoint_address(0);
    assert_eq!(before, if cfg!(target_arch = "x86_64") { usize::MAX } else { 0 });
}

/// Offsets behind the text, and keys of nothing, are asked of all tables.
#[test]
fn questions_about_nothing() {
    let mut image = CodeImage::builder(vec![0; 8]);
    image.function(FuncKey::new(0, 0), 0..4_u32, None).expect("taken");
    let image = image.finish().expect("a sound image");
    let tables = image.tables();
    for offset in [4, 8, u32::MAX].map(TextOffset::new) {
        assert_eq!(tables.function_at(offset), None);
        assert_eq!((tables.trap_at(offset), tables.source_at(offset)), (None, None));
        assert!(!tables.is_breakpoint_site(offset));
    }
    assert_eq!(tables.function(FuncKey::new(0, 1)), None);
    assert_eq!(tables.functions_in(7).count(), 0);
    assert_eq!(tables.trampoline(7.into()), None);
    let functions = tables.function_table().view();
    assert_eq!((functions.get(1), functions.get(usize::MAX)), (None, None));
    assert!(TrapTableRef::new(&[]).is_empty());
}
