//! Keeps sled's panics inside the catalogue.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::CatalogueError;

thread_local! {
    static IN_SLED: Cell<bool> = const { Cell::new(false) };
}

/// sled catches panics of its own threads itself, and then goes on without them.
static THREAD_PANICKED: AtomicBool = AtomicBool::new(false);

/// What sled names its threads.
const SLED_THREAD: &str = "sled-io-";

/// Whether the panic of the calling thread is sled's, and so ends a call of the catalogue with an error instead of the
/// process. For the process's panic hook, and only for it: asked by a thread of sled's, it notes that the thread is lost.
pub fn panic_is_contained() -> bool {
    if IN_SLED.try_with(Cell::get).unwrap_or(false) {
        return true;
    }
    let threads = thread::current()
        .name()
        .is_some_and(|name| name.starts_with(SLED_THREAD));
    if threads {
        THREAD_PANICKED.store(true, Ordering::Release);
    }
    threads
}

struct Inside {
    before: bool,
}

impl Drop for Inside {
    fn drop(&mut self) {
        IN_SLED.set(self.before);
    }
}

/// Calls sled. A panic in it, on this thread or one of its own, becomes an error.
pub(super) fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, CatalogueError> {
    let outcome = {
        let _inside = Inside {
            before: IN_SLED.replace(true),
        };
        // What a panic leaves half done is not looked at again: the catalogue is broken after it.
        catch_unwind(AssertUnwindSafe(call))
    };
    if THREAD_PANICKED.swap(false, Ordering::AcqRel) {
        return Err(CatalogueError::Damaged("a thread of sled panicked".into()));
    }
    match outcome {
        Ok(answer) => Ok(answer?),
        Err(panic) => Err(CatalogueError::Damaged(format!(
            "sled panicked: {}",
            message(&*panic)
        ))),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
