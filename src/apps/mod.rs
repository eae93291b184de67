//! What ships in the binary, written against the public API like anyone's application.

pub mod demo;
pub mod page;
