//! Every allocation of reading an artifact fails once: an error comes back, and nothing is left.

#[path = "../../tests/refusing/mod.rs"]
#[expect(dead_code, reason = "another way over every k: images are compared")]
mod refusing;

use pcmap::registry::{CodeImage, ElfError, ImageError};
use pcmap_wasmtime_tests::all;
use refusing::{Outcome, live_bytes, refusing};

#[test]
fn every_refused_allocation_is_an_error() {
    for artifact in all() {
        let expected = CodeImage::from_wasmtime_artifact(&artifact.elf).expect("an image");
        for for_good in [false, true] {
            let mut refusals = 0;
            for k in 1.. {
                let before = live_bytes();
                let Outcome { result, refused, .. } =
                    refusing(k, for_good, || CodeImage::from_wasmtime_artifact(&artifact.elf));
                match result {
                    Ok(image) => {
                        assert!(refused == 0 && image == expected, "{}: {k}", artifact.name);
                        break;
                    }
                    Err(error) => {
                        assert_eq!(error, ElfError::Image(ImageError::OutOfMemory), "{k}");
                    }
                }
                assert_eq!(live_bytes(), before, "{}: {k}: memory leaked", artifact.name);
                refusals += 1;
            }
            println!("{}, for good: {for_good}: {refusals} refusals", artifact.name);
            assert_ne!(refusals, 0, "nothing was refused, nothing was tested");
        }
    }
}
