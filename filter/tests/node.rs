//! The filter's own arithmetic on a 32-bit machine: runs in Node, where `usize` is four bytes as
//! it is inside Envoy. `scripts/test --only node` runs it.
#![cfg(all(target_family = "wasm", target_os = "unknown"))]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what is wrong by panicking"
)]

#[path = "node/lengths.rs"]
mod lengths;
#[path = "node/sealing.rs"]
mod sealing;

use std::time::Duration;

use meshgate_filter::time::Moment;
use wasm_bindgen_test::wasm_bindgen_test;

#[wasm_bindgen_test]
fn the_machine_has_four_byte_sizes() {
    assert_eq!(usize::BITS, 32);
}

#[wasm_bindgen_test]
fn moments_go_on_after_the_32nd_bit() {
    let over_an_hour = Duration::from_secs(4_295);
    let start = Moment::from_micros(u64::from(u32::MAX) - 1);

    let later = start.after(over_an_hour);

    assert!(later > start);
    assert_eq!(later.since(start), over_an_hour);
    assert_eq!(start.since(later), Duration::ZERO);
}

#[wasm_bindgen_test]
fn a_moment_past_the_end_of_time_is_the_end_of_time() {
    let end_of_time = Moment::from_micros(u64::MAX);

    assert_eq!(Moment::from_micros(1).after(Duration::MAX), end_of_time);
}
