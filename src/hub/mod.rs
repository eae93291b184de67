//! Who is where, and who hears what: namespaces, rooms, broadcasts, acknowledgements and the application's handlers.

mod options;

pub use options::Options;
