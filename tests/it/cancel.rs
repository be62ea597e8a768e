//! A turn that nobody waits for any more is gone, with everything it started.
