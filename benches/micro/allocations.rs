//! How often an operation allocates: the system's allocator, and a count for each thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    hint::black_box,
};

thread_local! {
    /// Allocations of this thread, and their bytes.
    static COUNTED: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: usize) {
    // A thread that ends allocates without its counter.
    let _ = COUNTED.try_with(|counted| {
        let (times, before) = counted.get();
        counted.set((times + 1, before + bytes as u64));
    });
}

#[expect(unsafe_code, reason = "std has no other way to see allocations")]
// SAFETY: everything is handed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the same promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the same promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps the same promises.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the same promises.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Allocations of an operation, on average.
pub(crate) struct Allocations {
    pub(crate) times: f64,
    pub(crate) bytes: f64,
}

/// Counted while `work` runs, which does so many operations.
pub(crate) fn during(operations: u64, work: impl FnOnce()) -> Allocations {
    let (times, bytes) = COUNTED.get();
    work();
    let (times_after, bytes_after) = COUNTED.get();
    Allocations {
        times: (times_after - times) as f64 / operations as f64,
        bytes: (bytes_after - bytes) as f64 / operations as f64,
    }
}

/// While `work`, which does so many operations, is done again and again: what it grows once is there already.
pub(crate) fn of_each<T>(operations: u64, work: &mut impl FnMut() -> T) -> Allocations {
    const TIMES: u64 = 100;
    for _ in 0..TIMES {
        black_box(work());
    }
    during(TIMES * operations, || {
        for _ in 0..TIMES {
            black_box(work());
        }
    })
}
