//! What the targets have of the process that they run in: how much memory they take, and what a panic is.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    panic,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Counts what is allocated.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST_HELD: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is done by the system's own allocator, as it was asked for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST_HELD.fetch_max(held, Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(place, layout) }
    }
}

/// What any input may take, however short it is.
const MOST_FOR_NOTHING: usize = 256 << 10;
/// What one byte of input may take: a small item of a message is a node of a tree.
const MOST_FOR_A_BYTE: usize = 1 << 10;

/// Runs `target`, which never holds more memory than the input explains: no length that is only declared is believed.
pub fn bounded(input: &[u8], target: fn(&[u8])) {
    let before = HELD.load(Relaxed);
    MOST_HELD.store(before, Relaxed);
    target(input);
    let held = MOST_HELD.load(Relaxed) - before;
    let allowed = MOST_FOR_NOTHING + input.len() * MOST_FOR_A_BYTE;
    assert!(
        held <= allowed,
        "{held} bytes of memory for {} of input",
        input.len()
    );
}

/// Panics inside of sled are none of the server's, which goes on without its catalogue.
pub fn let_sled_panic() {
    let ends = panic::take_hook();
    panic::set_hook(Box::new(move |about| {
        if !infotainer::datalog::panic_is_contained() {
            ends(about);
        }
    }));
}
