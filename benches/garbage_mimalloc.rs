//! All of `garbage` with mimalloc as the allocator: what the map leaves behind should not depend on what
//! keeps the memory.

#[cfg(target_arch = "x86_64")]
#[path = "garbage.rs"]
mod garbage;

#[cfg(target_arch = "x86_64")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(target_arch = "x86_64")]
fn main() {
    garbage::main();
}

#[cfg(not(target_arch = "x86_64"))]
fn main() {
    println!("skipped: mimalloc is built for x86-64 only");
}
