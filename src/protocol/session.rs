//! The Engine.IO session: decides what happens next, and does none of it.
