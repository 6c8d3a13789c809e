//! Sessions: who the client is, and the sealing of its frames.
