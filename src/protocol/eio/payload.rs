//! Polling payloads: packets joined by the record separator.
