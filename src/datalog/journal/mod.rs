//! The journal: where every change is first, and what a commit is.
//!
//! Owns the journal files, the format of batches, and telling a torn tail from damage. Does not own what the records mean
//! (the index does), nor when a journal is sealed.
//!
//! A journal file is preallocated and zero-written, so that a sync of a batch has no metadata to write. Each use of a file
//! is a *generation*: generations only grow, and a generation's batches follow each other from the file's beginning.
//! A start never goes on in a journal that it found: appending begins with a new generation in a free file.

pub(crate) mod format;
