#![allow(missing_docs, clippy::allow_attributes, clippy::allow_attributes_without_reason)]
use pcmap::*;
use std::sync::atomic::*;
static DROPS: AtomicUsize = AtomicUsize::new(0);
struct D(usize);
impl Drop for D { fn drop(&mut self){ DROPS.fetch_add(1, Ordering::Relaxed);} }
#[test] fn smoke() {
    static M: CodeMap<D> = CodeMap::new();
    let stop = AtomicBool::new(false);
    let made = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for t in 0..3usize { let (stop,made)=(&stop,&made); s.spawn(move || {
            let mut i=0usize; while !stop.load(Ordering::Relaxed) { let b=0x10000*(t+1)+ (i%64)*64; i+=1; made.fetch_add(1,Ordering::Relaxed);
                let r = M.register(b..b+64, D(b)).unwrap(); if i%3==0 { drop(r) } else { r.unregister(); }
                if i%1000==0 { let _ = M.snapshot().len(); }
            } }); }
        for _ in 0..2 { let stop=&stop; s.spawn(move || { let mut n=0u64; let mut i = 0usize; while !stop.load(Ordering::Relaxed) { i=i.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); let pc=(i>>30)&0x3ffff; if M.lookup(pc, |h| { assert_eq!(h.value().0, pc & !63); assert_eq!(h.offset(), pc&63); }).is_some() { n+=1 } } println!("hits {n}"); }); }
        std::thread::sleep(std::time::Duration::from_secs(2)); stop.store(true, Ordering::Relaxed);
    });
    println!("{}", M.stats());
    M.synchronize();
    println!("{} made {} drops {}", M.stats(), made.load(Ordering::Relaxed), DROPS.load(Ordering::Relaxed));
    assert_eq!(made.load(Ordering::Relaxed), DROPS.load(Ordering::Relaxed));
}
