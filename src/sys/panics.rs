//! Panics of destructors, kept until all of them have run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The first panic, if there was one.
pub(crate) struct Panics(Option<Box<dyn Any + Send>>);

impl Panics {
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Runs a destructor.
    pub(crate) fn contain(&mut self, run: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            if self.0.is_none() {
                self.0 = Some(panic);
            } else if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                // What it panicked with panics when it is dropped: it is left alone.
                core::mem::forget(another);
            }
        }
    }

    /// Goes on with the first panic, unless this thread panics already.
    pub(crate) fn resume(self) {
        match self.0 {
            Some(panic) if !std::thread::panicking() => resume_unwind(panic),
            other => core::mem::forget(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Panics;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    #[test]
    fn the_first_panic_goes_on_when_all_have_run() {
        let mut runs = 0;
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let mut panics = Panics::none();
            for number in 0..3 {
                panics.contain(|| {
                    runs += 1;
                    resume_unwind(Box::new(number));
                });
            }
            panics.contain(|| runs += 1);
            panics.resume();
        }));
        let first = caught.expect_err("three panicked");
        assert_eq!((first.downcast_ref(), runs), (Some(&0), 4));
    }
}
