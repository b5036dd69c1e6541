//! What an input tells is given to the builder of an image, good and bad; the outcome is compared
//! with a look at every entry beside every other one.

use crate::input::Input;
use crate::sound_tables::assert_sound;
use crate::tables::source;
use pcmap::registry::{
    CodeImage, CodeImageBuilder, FuncKey, ImageError, SignatureKey, SourceOffset, TextOffset,
    TextRange, TextRangeError, TrapCode,
};

/// Things given to a builder at most: each is compared with each.
const MOST: usize = 120;

/// What the builder was given and took.
#[derive(Default)]
struct Given {
    text_len: u32,
    align: u32,
    functions: Vec<(FuncKey, TextRange, Option<String>)>,
    traps: Vec<(TextOffset, TrapCode)>,
    addresses: Vec<(TextOffset, Option<SourceOffset>)>,
    trampolines: Vec<(SignatureKey, FuncKey)>,
    sites: Vec<(TextRange, Option<SourceOffset>)>,
}

/// Builds an image as the input tells. Tells whether it was built.
pub(crate) fn build(input: &mut Input<'_>) -> bool {
    let text_len = input.byte() * 16 + input.byte() % 16;
    let text: Vec<u8> = (0..text_len).map(|at| at as u8).collect();
    let mut builder = CodeImage::builder(text.clone());
    let mut given = Given { text_len: text_len as u32, align: 1, ..Given::default() };
    let mut end = 0;
    for _ in 0..MOST {
        if input.is_empty() {
            break;
        }
        given.one_more(&mut builder, input, &mut end);
    }
    match builder.finish() {
        Ok(image) => {
            given.assert_no_conflict();
            given.assert_is(&image, &text);
            true
        }
        Err(refused) => {
            given.assert_conflict(refused.reason);
            // Nothing is lost: the same once more.
            let again = refused.builder.finish().expect_err("as before");
            assert_eq!(again.reason, refused.reason);
            false
        }
    }
}

/// A range of the text, as a rule behind `end`, which moves on.
fn range(input: &mut Input<'_>, end: &mut usize) -> std::ops::Range<usize> {
    let (gap, len) = (input.byte(), input.byte());
    let start = match gap {
        0..=199 => *end + gap % 40,
        200..=239 => end.saturating_sub(gap - 199),
        240..=249 => (gap - 240) * 400,
        _ => u32::MAX as usize - (255 - gap),
    };
    let len = len % 64;
    // One of many is empty or reversed.
    let reversed = len == 63;
    *end = if reversed { start.saturating_sub(1) } else { start + len };
    start..*end
}

impl Given {
    /// One thing more, of a kind and at a place that the input tells.
    fn one_more(&mut self, builder: &mut CodeImageBuilder, input: &mut Input<'_>, end: &mut usize) {
        match input.byte() % 16 {
            0..=5 => self.function(builder, input, end),
            6..=8 => {
                let at = *end + input.byte() % 80;
                let code = TrapCode::new(input.byte() as u8);
                let at = at.saturating_sub(40);
                if taken(builder.trap(at, code), TextOffset::try_from(at)) {
                    self.traps.push((TextOffset::new(at as u32), code));
                }
            }
            9 | 10 => {
                let at = (*end + input.byte() % 80).saturating_sub(40);
                let source = source(input);
                if taken(builder.address(at, source), TextOffset::try_from(at)) {
                    self.addresses.push((TextOffset::new(at as u32), source));
                }
            }
            11 | 12 => {
                let signature = SignatureKey::new(input.byte() as u32);
                let key = match input.byte() {
                    unknown @ 250.. => FuncKey::new(9, unknown as u32),
                    at if self.functions.is_empty() => FuncKey::new(0, at as u32),
                    at => self.functions[at % self.functions.len()].0,
                };
                builder.trampoline(signature, key).expect("any numbers");
                self.trampolines.push((signature, key));
            }
            13 | 14 => {
                let start = end.saturating_sub(input.byte() % 64);
                let end = start + input.byte() % 8;
                let source = source(input);
                let wanted = TextRange::try_from(start..end);
                if taken(builder.breakpoint_site(start..end, source), wanted) {
                    self.sites.push((wanted.expect("it was taken"), source));
                }
            }
            _ => {
                let align = input.byte() as u32;
                match builder.text_align(align) {
                    Ok(_) => self.align = align,
                    Err(error) => {
                        assert_eq!(error, ImageError::Alignment { align: align.into() });
                    }
                }
                assert_eq!(align.is_power_of_two(), self.align == align, "alignment {align}");
            }
        }
    }

    fn function(&mut self, builder: &mut CodeImageBuilder, input: &mut Input<'_>, end: &mut usize) {
        let range = range(input, end);
        let key = match input.byte() {
            same @ 250.. => FuncKey::new(0, same as u32 - 250),
            namespace => FuncKey::new(namespace as u32 % 3, 100 + self.functions.len() as u32),
        };
        let name = match input.byte() {
            none @ 0..=99 if none % 2 == 0 => None,
            len => Some("é".repeat(len % 9)),
        };
        let wanted = TextRange::try_from(range.clone());
        if taken(builder.function(key, range, name.as_deref()), wanted) {
            self.functions.push((key, wanted.expect("it was taken"), name));
        }
    }

    /// Nothing stands in the way of anything else.
    fn assert_no_conflict(&self) {
        for (number, (key, range, _)) in self.functions.iter().enumerate() {
            assert!(!range.is_empty() && range.end().get() <= self.text_len, "{key} at {range}");
            for (other, other_range, _) in &self.functions[..number] {
                assert!(key != other && !share(*range, *other_range), "{key} and {other}");
            }
        }
        let inside = |at: TextOffset| at.get() < self.text_len;
        assert!(self.traps.iter().all(|&(at, _)| inside(at)));
        assert!(self.addresses.iter().all(|&(at, _)| inside(at)));
        assert!(all_differ(&self.traps, |trap| trap.0));
        assert!(all_differ(&self.addresses, |entry| entry.0));
        assert!(all_differ(&self.trampolines, |trampoline| trampoline.0));
        assert!(self.trampolines.iter().all(|&(_, key)| self.has(key)));
        for (number, &(site, _)) in self.sites.iter().enumerate() {
            assert!(self.is_site(site), "{site}");
            assert!(self.sites[..number].iter().all(|&(other, _)| !share(site, other)), "{site}");
        }
    }

    /// The reason is there.
    fn assert_conflict(&self, reason: ImageError) {
        let twice = |count: usize| assert!(count >= 2, "{reason}");
        let function =
            |key, range| self.functions.iter().filter(|f| (f.0, f.1) == (key, range)).count();
        match reason {
            ImageError::FunctionEmpty { key, at } => {
                assert!(
                    self.functions
                        .iter()
                        .any(|f| f.0 == key && f.1.start() == at && f.1.is_empty())
                );
            }
            ImageError::FunctionOutside { key, range, text_len } => {
                assert!(function(key, range) > 0 && range.end().get() > text_len);
                assert_eq!(text_len, self.text_len);
            }
            ImageError::FunctionsOverlap { first, first_range, second, second_range } => {
                assert!(share(first_range, second_range), "{reason}");
                if (first, first_range) == (second, second_range) {
                    twice(function(first, first_range));
                } else {
                    assert!(function(first, first_range) * function(second, second_range) > 0);
                }
            }
            ImageError::DuplicateFunction { key, first, second } => {
                assert!(first != second && function(key, first) * function(key, second) > 0);
            }
            ImageError::TrapOutside { at, .. } => {
                assert!(at.get() >= self.text_len && self.traps.iter().any(|trap| trap.0 == at));
            }
            ImageError::DuplicateTrap { at, .. } => {
                twice(self.traps.iter().filter(|trap| trap.0 == at).count());
            }
            ImageError::AddressOutside { at, .. } => {
                assert!(at.get() >= self.text_len);
                assert!(self.addresses.iter().any(|entry| entry.0 == at));
            }
            ImageError::DuplicateAddress { at } => {
                twice(self.addresses.iter().filter(|entry| entry.0 == at).count());
            }
            ImageError::UnknownTrampoline { signature, key } => {
                assert!(self.trampolines.contains(&(signature, key)) && !self.has(key));
            }
            ImageError::DuplicateTrampoline { signature, .. } => {
                twice(self.trampolines.iter().filter(|known| known.0 == signature).count());
            }
            ImageError::SiteOutside { range } => {
                assert!(self.sites.iter().any(|site| site.0 == range) && !self.is_site(range));
            }
            ImageError::SitesOverlap { first, second } => {
                assert!(share(first, second), "{reason}");
                twice(self.sites.iter().filter(|site| [first, second].contains(&site.0)).count());
            }
            other => panic!("{other}"),
        }
    }

    /// The image is of what was given, and of nothing else.
    fn assert_is(&self, image: &CodeImage, text: &[u8]) {
        let tables = image.tables();
        assert_eq!((image.text(), image.text_align()), (text, self.align));
        assert_eq!(tables.functions().count(), self.functions.len());
        for (key, range, name) in &self.functions {
            let found = tables.function(*key).expect("it was given");
            assert_eq!((found.range, found.name), (*range, name.as_deref()));
        }
        assert!(tables.trap_table().view().iter().eq(sorted(&self.traps)));
        assert!(tables.address_map().view().iter().eq(sorted(&self.addresses)));
        let trampolines =
            tables.trampolines().map(|(signature, function)| (signature, function.key));
        assert!(trampolines.eq(sorted(&self.trampolines)));
        let sites = tables.breakpoint_sites().iter().map(|site| (site.range, site.source));
        assert!(sites.eq(sorted(&self.sites)));
        assert_sound(tables);
    }

    fn has(&self, key: FuncKey) -> bool {
        self.functions.iter().any(|function| function.0 == key)
    }

    /// Whether a breakpoint may be there: inside one function.
    fn is_site(&self, site: TextRange) -> bool {
        let around = |f: &TextRange| f.start() <= site.start() && site.end() <= f.end();
        !site.is_empty() && self.functions.iter().any(|function| around(&function.1))
    }
}

/// Whether the builder took it; it takes what is a place in text.
fn taken<X, P>(outcome: Result<X, ImageError>, place: Result<P, TextRangeError>) -> bool {
    match (outcome, place) {
        (Ok(_), Ok(_)) => true,
        (Err(error), Err(why)) => {
            assert_eq!(error, ImageError::InvalidRange(why));
            false
        }
        (Ok(_), Err(why)) => panic!("it was taken: {why}"),
        (Err(error), Ok(_)) => panic!("{error}"),
    }
}

/// Whether two ranges share a byte: the highest start lies below the lowest end.
fn share(a: TextRange, b: TextRange) -> bool {
    a.start().max(b.start()) < a.end().min(b.end())
}

fn all_differ<X, K: PartialEq>(entries: &[X], key: impl Fn(&X) -> K) -> bool {
    entries
        .iter()
        .enumerate()
        .all(|(number, entry)| entries[..number].iter().all(|other| key(other) != key(entry)))
}

fn sorted<X: Copy + Ord>(entries: &[X]) -> impl Iterator<Item = X> {
    let mut sorted = entries.to_vec();
    sorted.sort_unstable();
    sorted.into_iter()
}
