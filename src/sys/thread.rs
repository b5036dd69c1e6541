//! Telling threads apart.

use core::cell::Cell;

/// A number that no other thread has, alive or gone, in this process or in those it was forked from,
/// but for the thread that forked it, which keeps its own; below 2^48.
///
/// A thread-local, of a type that needs neither initialisation nor a destructor, for calls that are
/// not made in handlers. The thread's descriptor would not do: the C library gives the memory of
/// threads that a fork left behind to new ones.
pub(crate) fn identity() -> u64 {
    thread_local! {
        static IDENTITY: Cell<u64> = const { Cell::new(0) };
    }
    if IDENTITY.get() == 0 {
        IDENTITY.set(crate::sync::unique_number());
    }
    IDENTITY.get()
}

#[cfg(test)]
mod tests {
    use super::identity;
    use std::collections::BTreeSet;

    #[test]
    fn no_thread_gets_the_number_of_one_that_is_gone() {
        let own = identity();
        let others = (0..50).map(|_| std::thread::spawn(identity).join().expect("no panic"));
        let numbers: BTreeSet<_> = others.chain([own]).collect();
        assert_eq!((numbers.len(), identity()), (51, own));
    }
}
