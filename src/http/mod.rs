//! HTTP: what one asks for over it, and what one gets.

pub mod client_script;
