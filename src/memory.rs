//! Memory that was freed goes back to the operating system.
//!
//! The C library keeps it, for the thread that freed it alone. After work that takes much for a moment, on a thread that
//! seldom does such work, that would be held for ever.

/// Gives back what is free, of all threads. Takes as long as there is much of it, some milliseconds for 100 MB.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    trim();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "std does not offer this call")]
fn trim() {
    // SAFETY: it takes no pointers, locks what it works on, and leaves alone what is in use.
    unsafe { libc::malloc_trim(0) };
}
