//! How connections end, from either side.

use super::*;

#[test]
fn an_upstream_that_closes_answers_every_call_and_says_goodbye() {
    let mut wire = Wire::warm();
    wire.client(&[request(ECHO, 5, b"x"), request(SAY, 6, b""), request(ECHO, 7, b"y")].concat());
    wire.upstream(&[], true);
    let heard = wire.replies();
    assert_eq!(heard, [(5, 14, "error"), (7, 14, "error"), (0, 14, "push")]);
    assert!(!wire.is_closed(), "a close now would overtake the word");
    wire.sleep();
    assert!(wire.is_closed());
}

#[test]
fn replies_that_come_with_the_upstreams_end_still_count() {
    let mut wire = Wire::warm();
    wire.client(&[request(ECHO, 5, b"x"), request(ECHO, 6, b"y")].concat());
    wire.upstream(&reply(3, b"X"), true);
    assert_eq!(wire.replies(), [(5, 0, "reply"), (6, 14, "error"), (0, 14, "push")]);
}

#[test]
fn a_half_close_waits_for_the_calls_in_flight() {
    let mut wire = Wire::warm();
    wire.client(&[request(ECHO, 5, b"x"), request(ECHO, 6, b"y")].concat());
    wire.half_close();
    assert!(!wire.finished);
    wire.service(&reply(3, b"X"));
    assert!(!wire.finished);
    wire.service(&reply(5, b"Y"));
    assert!(wire.finished);
    assert_eq!(wire.replies(), [(5, 0, "reply"), (6, 0, "reply")]);
    // The service closes in turn: nobody needs to hear why.
    wire.upstream(&[], true);
    assert_eq!(wire.replies(), []);
}

#[test]
fn a_half_close_without_calls_goes_on_at_once() {
    let mut wire = Wire::warm();
    wire.half_close();
    assert!(wire.finished);
    assert!(!wire.is_closed());
}

#[test]
fn a_request_together_with_the_half_close_is_refused() {
    let mut wire = Wire::warm();
    wire.held = request(ECHO, 5, b"x");
    wire.half_close();
    assert!(wire.finished);
    assert_eq!(wire.kinds(), [(Kind::Settings, 0)]);
    wire.upstream(&acknowledged(), true);
    assert_eq!(wire.replies(), [(5, 14, "error")]);
}

#[test]
fn a_service_that_is_going_away_gets_no_new_calls_and_the_connection_ends() {
    let mut wire = Wire::warm();
    wire.client(&request(ECHO, 5, b"x"));
    let last_stream_3 = [0, 0, 0, 3, 0, 0, 0, 0];
    wire.service(&raw(Kind::GoAway, 0, 0, &last_stream_3));
    wire.sent();
    wire.client(&request(ECHO, 6, b"y"));
    assert_eq!(wire.kinds(), [], "it closes after its last answer, unread bytes would reset that");
    wire.service(&reply(3, b"X"));
    assert_eq!(wire.replies(), [(6, 14, "error"), (5, 0, "reply"), (0, 14, "push")]);
    wire.sleep();
    assert!(wire.is_closed());
}

#[test]
fn a_client_that_goes_on_asking_hears_of_a_service_that_is_going_away_to_the_end() {
    let mut wire = Wire::warm();
    wire.client(&request(ECHO, 5, b"x"));
    let last_stream_3 = [0, 0, 0, 3, 0, 0, 0, 0];
    wire.service(&raw(Kind::GoAway, 0, 0, &last_stream_3));
    // More than a client may be refused for its own faults.
    for sequence in 100..200 {
        wire.client(&request(ECHO, sequence, b"y"));
    }
    assert!(!wire.is_closed());
    wire.service(&reply(3, b"X"));
    let heard = wire.replies();
    assert_eq!(heard.len(), 102);
    assert!(heard[..100].iter().all(|(_, status, sort)| (*status, *sort) == (14, "error")));
    assert_eq!(heard[100..], [(5, 0, "reply"), (0, 14, "push")]);
}

#[test]
fn a_service_that_goes_away_and_owes_nothing_any_more_is_rung() {
    let mut wire = Wire::warm();
    wire.client(&request(ECHO, 5, b"x"));
    wire.service(&raw(Kind::GoAway, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]));
    wire.sent();
    wire.client(&request(ECHO, 6, b"y"));
    wire.sleep();
    assert_eq!(wire.kinds(), [(Kind::ResetStream, 3), (Kind::Settings, 0)]);
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(6, 14, "error"), (5, 4, "error"), (0, 14, "push")]);
}

#[test]
fn bytes_that_are_no_frame_end_the_connection_with_a_goodbye() {
    let mut wire = Wire::warm();
    wire.client(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(wire.held, b"", "they do not pile up");
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(0, 3, "push")]);
    wire.sleep();
    assert!(wire.is_closed());
}

#[test]
fn an_upstream_that_speaks_no_http2_ends_the_connection() {
    let mut wire = Wire::direct();
    wire.client(&request(ECHO, 5, b"x"));
    wire.service(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    let heard = wire.replies();
    assert_eq!(heard, [(5, 14, "error"), (0, 14, "push")]);
    wire.sleep();
    assert!(wire.is_closed());
}

#[test]
fn half_a_frame_ends_the_connection_in_time() {
    let mut wire = Wire::warm();
    wire.client(&request(ECHO, 5, b"x")[..9]);
    assert_eq!(wire.sleep(), Duration::from_secs(10));
    wire.service(&acknowledged());
    assert_eq!(wire.replies(), [(0, 4, "push")]);
}
