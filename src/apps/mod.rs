//! What ships in the binary, written against the public API like anyone's application.

pub mod page;
