//! The builder against a plain list: every offset, every conflict.

use super::*;

fn key(index: u32) -> FuncKey {
    FuncKey::new(0, index)
}

fn text_range(range: core::ops::Range<u32>) -> TextRange {
    TextRange::try_from(range).expect("a range")
}

fn builder() -> CodeImageBuilder {
    CodeImage::builder(vec![0xcc; 100])
}

/// What the builder says when it is given what `give` gives.
#[track_caller]
fn refusal(
    give: impl FnOnce(&mut CodeImageBuilder) -> Result<&mut CodeImageBuilder, ImageError>,
) -> ImageError {
    let mut builder = builder();
    builder.function(key(0), 10..20_u32, "ten").expect("taken");
    give(&mut builder).expect("taken");
    let refused = builder.finish().expect_err("a conflict");
    // What came back is refused for the same reason: it lacks nothing.
    let again = refused.builder.finish().expect_err("the same conflict");
    assert_eq!(again.reason, refused.reason);
    refused.reason
}

#[test]
fn what_was_given_is_found_at_every_offset() {
    let mut builder = builder();
    builder.text_align(64).expect("a power of two");
    let given =
        [(key(7), 50..60_u32, Some("fifty")), (key(3), 10..20, None), (key(5), 20..31, Some(""))];
    for (key, range, name) in given.clone() {
        builder.function(key, range, name).expect("taken");
    }
    builder.function(FuncKey::new(1, 0), 90..100_u32, "last").expect("taken");
    builder
        .trap(12_u32, TrapCode::new(3))
        .and_then(|b| b.trap(99_usize, TrapCode::new(0)))
        .expect("taken");
    builder
        .address(10_u32, SourceOffset::new(500))
        .and_then(|b| b.address(15_u32, None))
        .expect("taken");
    builder.trampoline(SignatureKey::new(9), key(7)).expect("taken");
    builder.breakpoint_site(50..54_u32, SourceOffset::new(600)).expect("taken");
    builder.unparsed_debug_info(true);
    let image = builder.finish().expect("nothing is wrong with it");

    assert_eq!((image.text().len(), image.text_align()), (100, 64));
    let tables = image.tables();
    for offset in 0..110 {
        let at = TextOffset::new(offset);
        let expected = given.iter().find(|(_, range, _)| range.contains(&offset));
        let expected = expected.map(|(key, range, name)| (*key, text_range(range.clone()), *name));
        let last = (90..100).contains(&offset);
        let expected =
            expected.or(last.then(|| (FuncKey::new(1, 0), text_range(90..100), Some("last"))));
        let found =
            tables.function_at(at).map(|function| (function.key, function.range, function.name));
        assert_eq!(found, expected, "{at}");
        let trap = [(12, 3), (99, 0)].iter().find(|&&(place, _)| place == offset);
        assert_eq!(tables.trap_at(at), trap.map(|&(_, code)| TrapCode::new(code)), "{at}");
        let source = (10..15).contains(&offset).then(|| SourceOffset::new(500));
        assert_eq!(tables.source_at(at), source, "{at}");
    }
    assert_eq!(tables.function(key(5)).map(|function| function.range), Some(text_range(20..31)));
    assert_eq!(tables.function(key(4)), None);
    assert_eq!(
        tables.functions().map(|function| function.range.start().get()).collect::<Vec<_>>(),
        [10, 20, 50, 90]
    );
    assert_eq!(
        tables.functions_in(0).map(|function| function.key.index()).collect::<Vec<_>>(),
        [3, 5, 7]
    );
    assert_eq!(tables.functions_in(1).count() + tables.functions_in(2).count(), 1);
    assert_eq!(tables.trampoline(SignatureKey::new(9)), tables.function(key(7)));
    assert_eq!(tables.trampoline(SignatureKey::new(8)), None);
    assert_eq!(tables.trampolines().count(), 1);
    let site = BreakpointSite { range: text_range(50..54), source: Some(SourceOffset::new(600)) };
    assert_eq!(tables.breakpoint_sites(), [site]);
    assert!(tables.has_unparsed_debug_info());
}

#[test]
fn nothing_at_all_is_an_image() {
    let image = CodeImage::builder(Vec::new()).finish().expect("an empty image");
    assert_eq!((image.text(), image.text_align()), (&[][..], 1));
    let tables = image.tables();
    assert_eq!(tables.function_at(TextOffset::new(0)), None);
    assert_eq!(tables.trap_at(TextOffset::new(0)), None);
    assert_eq!(tables.functions().count(), 0);
    assert!(!tables.has_unparsed_debug_info());
}

#[test]
fn functions_in_each_others_way() {
    let ten = text_range(10..20);
    let outside = refusal(|b| b.function(key(1), 90..101_u32, None));
    let range = text_range(90..101);
    assert_eq!(outside, ImageError::FunctionOutside { key: key(1), range, text_len: 100 });
    let empty = refusal(|b| b.function(key(1), 30..30_u32, None));
    assert_eq!(empty, ImageError::FunctionEmpty { key: key(1), at: TextOffset::new(30) });
    for range in [19..21_u32, 0..11, 0..100, 12..13, 10..20] {
        let overlap = refusal(|b| b.function(key(1), range.clone(), None));
        let range = text_range(range);
        let expected = if (range, key(1)) < (ten, key(0)) {
            ImageError::FunctionsOverlap {
                first: key(1),
                first_range: range,
                second: key(0),
                second_range: ten,
            }
        } else {
            ImageError::FunctionsOverlap {
                first: key(0),
                first_range: ten,
                second: key(1),
                second_range: range,
            }
        };
        assert_eq!(overlap, expected);
    }
    let twice = refusal(|b| b.function(key(0), 30..40_u32, None));
    assert_eq!(
        twice,
        ImageError::DuplicateFunction { key: key(0), first: ten, second: text_range(30..40) }
    );
}

#[test]
fn traps_and_sources_in_each_others_way() {
    let [code, other] = [TrapCode::new(1), TrapCode::new(2)];
    let at = TextOffset::new(100);
    assert_eq!(refusal(|b| b.trap(100_u32, code)), ImageError::TrapOutside { at, text_len: 100 });
    assert_eq!(
        refusal(|b| b.address(100_u32, None)),
        ImageError::AddressOutside { at, text_len: 100 }
    );
    let at = TextOffset::new(99);
    let twice = refusal(|b| b.trap(99_u32, other)?.trap(99_u32, code));
    assert_eq!(twice, ImageError::DuplicateTrap { at, first: code, second: other });
    let twice = refusal(|b| b.address(99_u32, None)?.address(99_u32, SourceOffset::new(1)));
    assert_eq!(twice, ImageError::DuplicateAddress { at });
}

#[test]
fn trampolines_and_sites_in_each_others_way() {
    let signature = SignatureKey::new(4);
    let unknown = refusal(|b| b.trampoline(signature, key(1)));
    assert_eq!(unknown, ImageError::UnknownTrampoline { signature, key: key(1) });
    let twice = refusal(|b| b.trampoline(signature, key(0))?.trampoline(signature, key(0)));
    assert_eq!(twice, ImageError::DuplicateTrampoline { signature, first: key(0), second: key(0) });
    for range in [19..21_u32, 9..10, 9..11, 12..12, 10..21] {
        let outside = refusal(|b| b.breakpoint_site(range.clone(), None));
        assert_eq!(outside, ImageError::SiteOutside { range: text_range(range) });
    }
    let overlap =
        refusal(|b| b.breakpoint_site(14..18_u32, None)?.breakpoint_site(10..15_u32, None));
    let [first, second] = [text_range(10..15), text_range(14..18)];
    assert_eq!(overlap, ImageError::SitesOverlap { first, second });
}

#[test]
fn signatures_are_renumbered_or_stay() {
    let mut builder = builder();
    for (i, signature) in [(0, 5), (1, 3), (2, 9)] {
        builder
            .function(key(i), i * 10..i * 10 + 10, None)
            .and_then(|b| b.trampoline(SignatureKey::new(signature), key(i)))
            .expect("taken");
    }
    let mut image = builder.finish().expect("nothing is wrong with it");
    let listed = |image: &CodeImage| -> Vec<_> {
        let all = image.tables().trampolines();
        all.map(|(signature, function)| (signature.get(), function.key.index())).collect()
    };
    let before = image.clone();
    // Two become one: it is as it was.
    let merged = |signature: SignatureKey| SignatureKey::new(u32::from(signature.get() != 3));
    let refused = image.renumber_signatures(merged).expect_err("two of one number");
    assert_eq!(
        refused,
        ImageError::DuplicateTrampoline {
            signature: SignatureKey::new(1),
            first: key(0),
            second: key(2)
        }
    );
    assert!(image == before);
    // The order turns round, and each keeps its function.
    let mut asked = Vec::new();
    let turned = |signature: SignatureKey| {
        asked.push(signature.get());
        SignatureKey::new(100 - signature.get())
    };
    assert_eq!(image.renumber_signatures(turned), Ok(()));
    assert_eq!((asked, listed(&image)), (vec![3, 5, 9], vec![(91, 2), (95, 0), (97, 1)]));
    for (signature, function) in [(91, Some(2)), (95, Some(0)), (97, Some(1)), (5, None)] {
        let found = image.tables().trampoline(SignatureKey::new(signature));
        assert_eq!(found.map(|function| function.key.index()), function);
    }
    assert_eq!(
        image.renumber_signatures(|signature| SignatureKey::new(100 - signature.get())),
        Ok(())
    );
    assert!(image == before);
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "it is refused")]
fn numbers_that_are_no_places() {
    let mut builder = builder();
    let reversed = builder.function(key(0), 3..2_u32, None).map(|_| ()).expect_err("reversed");
    assert!(matches!(reversed, ImageError::InvalidRange(TextRangeError::Reversed { .. })));
    let far = builder.trap(1_u64 << 32, TrapCode::new(1)).map(|_| ()).expect_err("too far");
    assert!(matches!(far, ImageError::InvalidRange(TextRangeError::TooFar { .. })));
    let align = builder.text_align(3).map(|_| ()).expect_err("three");
    assert_eq!(align, ImageError::Alignment { align: 3 });
    assert_eq!(
        builder.text_align(0).map(|_| ()).expect_err("zero"),
        ImageError::Alignment { align: 0 }
    );
    let image = builder.finish().expect("none of it was taken");
    assert_eq!((image.tables().functions().count(), image.text_align()), (0, 1));
}

/// Four gigabytes of zeros, which the system promises and need not have: they are read at most.
#[test]
#[cfg(target_pointer_width = "64")]
fn more_than_32_bits_count() {
    const LEN: usize = 1 << 32;
    if cfg!(miri) || Vec::<u8>::new().try_reserve_exact(LEN).is_err() {
        println!("skipped: the system does not promise so much memory");
        return;
    }
    let refused = CodeImage::builder(vec![0; LEN]).finish().expect_err("too long");
    assert_eq!(refused.reason, ImageError::TextTooLong { len: LEN as u64 });
    drop(refused);
    let name = String::from_utf8(vec![0; LEN]).expect("zeros are ASCII");
    let refused = builder().function(key(0), 0..1_u32, &*name).map(|_| ()).expect_err("too long");
    assert_eq!(refused, ImageError::TooMany);
}
