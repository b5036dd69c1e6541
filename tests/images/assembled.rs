//! Files made by assemblers and linkers for other processors, each of which has rules of its own for
//! function symbols. `assembled/build.sh` makes them.

use pcmap::registry::{CodeImage, ElfError, TextOffset};

/// A file of the folder.
macro_rules! file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("assembled/", $name)).as_slice())
    };
}

/// Start, end and name of every function; each byte finds its own.
fn functions(file: &[u8]) -> Result<Vec<(u32, u32, String)>, ElfError> {
    let image = CodeImage::from_elf(file)?;
    let tables = image.tables();
    let listed = tables.functions().map(|function| {
        let (start, end) = (function.range.start().get(), function.range.end().get());
        for at in (start..end).map(TextOffset::new) {
            assert_eq!(tables.function_at(at), Some(function));
        }
        (start, end, function.name.expect("a name").to_owned())
    });
    Ok(listed.collect())
}

/// The file has exactly these functions.
#[track_caller]
fn check((name, file): (&str, &[u8]), expected: &[(u32, u32, &str)]) {
    let found = functions(file).unwrap_or_else(|error| panic!("{name}: {error}"));
    let found: Vec<_> = found.iter().map(|(start, end, name)| (*start, *end, &**name)).collect();
    assert_eq!(found, expected, "{name}");
}

#[test]
fn thumb_functions() {
    check(file!("arm.o"), &[(0, 4, "first"), (4, 12, "second"), (12, 20, "third")]);
    check(file!("arm.so"), &[(0, 4, "first"), (4, 12, "second"), (12, 20, "third")]);
    let old = [(0, 4, "first"), (4, 12, "second")];
    let (name, file) = file!("arm_old.o");
    check((name, file), &old);
    // Today's assembler gives Thumb functions the common type even so: their own is 13. The symbol is
    // found by its value, size and binding.
    let mut file = file.to_vec();
    let symbol = file.windows(9).position(|at| at == [1, 0, 0, 0, 4, 0, 0, 0, 0x12]);
    file[symbol.expect("the symbol") + 8] = 0x1d;
    check((name, &file), &old);
}

#[test]
fn compressed_mips_functions() {
    for file in [file!("micromips.o"), file!("mips16.o")] {
        check(file, &[(0, 6, "first"), (8, 16, "second")]);
    }
    for file in [file!("micromips.so"), file!("mips16.so")] {
        check(file, &[(0, 6, "first"), (8, 16, "second")]);
    }
}

#[test]
fn function_descriptors() {
    let expected = [(0, 8, "first"), (8, 20, "second"), (20, 24, ".third")];
    check(file!("powerpc64.so"), &expected);
    // Its descriptors wait for relocations.
    let (_, object_file) = file!("powerpc64.o");
    assert_eq!(functions(object_file), Err(ElfError::Relocations { section: 4 }));
    // A descriptor of no code is no function. They lie at this offset of the file.
    const DESCRIPTORS: usize = 0xeb8;
    let (_, linked) = file!("powerpc64.so");
    let mut file = linked.to_vec();
    let word = &mut file[DESCRIPTORS..DESCRIPTORS + 8];
    assert_eq!(word, 0x2d8_u64.to_be_bytes(), "the first function's address");
    word.copy_from_slice(&u64::MAX.to_be_bytes());
    let left = functions(&file).expect("an image");
    assert_eq!(left.iter().map(|function| &*function.2).collect::<Vec<_>>(), ["second", ".third"]);
}

#[test]
fn symbols_as_the_generic_rules_have_them() {
    check(file!("aarch64.o"), &[(0, 12, "first"), (12, 16, "second")]);
    check(file!("riscv64.o"), &[(0, 8, "first"), (8, 12, "second")]);
    check(file!("powerpc64le.o"), &[(0, 12, "first"), (12, 16, "second")]);
}

#[test]
fn millicode() {
    check(file!("hppa.o"), &[(0, 8, "first"), (8, 16, "$$second")]);
}
