//! How much memory a call takes: an allocator that counts for each thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    /// Bytes that this thread took and did not give back since it began to measure.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most that it was.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: isize) {
    // A thread that ends may allocate when its counts are gone.
    let held = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        held.get()
    });
    if let Ok(held) = held {
        _ = PEAK.try_with(|peak| peak.set(peak.get().max(held)));
    }
}

#[expect(unsafe_code, reason = "an allocator can't be written otherwise")]
// SAFETY: everything is left to the system's allocator; the counts are plain numbers of the thread, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the pointer came from the same allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `call` gives, and the most bytes that were held at once because of it.
pub(crate) fn peak_of<T>(call: impl FnOnce() -> T) -> (T, usize) {
    HELD.set(0);
    PEAK.set(0);
    let result = call();
    (result, PEAK.get().unsigned_abs())
}
