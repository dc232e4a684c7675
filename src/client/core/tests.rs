//! The core, driven message by message with made-up time.
