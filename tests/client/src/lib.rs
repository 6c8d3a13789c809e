//! A private-protocol client, written against the README only.
