//! How the C library's allocator is set for a server.
//!
//! It would give almost every thread a heap of its own. What one thread makes and another one replaces, as happens to what is known of
//! each log, leaves holes in heaps where nobody needs them again: 100,000 subscriptions cost half as much again then.

/// Lets threads share heaps: as many as there are workers, and at least two. Has to be called before any thread is started; who
/// runs the server decides otherwise with `MALLOC_ARENA_MAX`.
pub(super) fn share_heaps(workers: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        set_arenas(workers.clamp(2, 64) as libc::c_int);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "std does not offer this setting")]
fn set_arenas(most: libc::c_int) {
    // SAFETY: it sets a number, and no other thread runs yet. If it is refused, the number is what it was.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, most) };
}
