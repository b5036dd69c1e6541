//! Any bytes as a file: they give images or errors, and images that were given hold together.

use crate::sound_tables::assert_sound;
use pcmap::registry::{CodeImage, SignatureKey};

/// Reads `data` in every way that there is and looks at all that came out. Panics only if pcmap is
/// wrong. Tells whether any image was given.
pub(crate) fn read_any(data: &[u8]) -> bool {
    let images = [CodeImage::from_elf(data), CodeImage::from_wasmtime_artifact(data)];
    let mut given = false;
    for mut image in images.into_iter().flatten() {
        assert!(image.text().len() <= data.len(), "no more text than there are bytes");
        assert_eq!(image.text().len(), image.tables().text_len() as usize);
        assert!(image.text_align().is_power_of_two());
        assert_sound(image.tables());
        renumber(&mut image);
        given = true;
    }
    given
}

/// Signatures by other numbers, the other way round; and all by one number, if there are several.
fn renumber(image: &mut CodeImage) {
    let count = image.tables().trampolines().count();
    let turned = image.renumber_signatures(|key| SignatureKey::new(u32::MAX - key.get()));
    turned.expect("as many numbers as before");
    assert_sound(image.tables());
    let same = image.renumber_signatures(|_| SignatureKey::new(7));
    assert_eq!(same.is_err(), count > 1, "one number for {count} signatures");
    assert_eq!(image.tables().trampolines().count(), count);
}
