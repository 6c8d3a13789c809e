//! A layout without sequence numbers: replies in the order of the requests.

use super::*;

fn warm_with(limits: Value, one_way: bool) -> Wire {
    let mut wire = Wire::new(&ordered(limits, one_way));
    wire.client(b"");
    wire.service(&opening());
    wire.sent();
    wire
}

fn warm() -> Wire {
    warm_with(json!({}), false)
}

fn frame(wire: &Wire, command: u64, body: &[u8], one_way: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let parts = [body];
    let request = Request { one_way, ..Request::new(Command::Number(command), 0, &parts) };
    wire.bridge.terms.config.layout.encode_request(request, None, &mut out).unwrap();
    out
}

impl Wire {
    fn ask(&mut self, command: u64, body: &[u8]) {
        let bytes = frame(self, command, body, false);
        self.client(&bytes);
    }

    /// Commands, statuses and bodies of the replies since the last look.
    fn told(&mut self) -> Vec<(u64, i64, String)> {
        let text = |body| String::from_utf8(body).unwrap();
        self.heard().into_iter().map(|(c, _, status, _, body)| (c, status, text(body))).collect()
    }
}

fn told(command: u64, status: i64, body: &str) -> (u64, i64, String) {
    (command, status, body.to_owned())
}

#[test]
fn replies_leave_in_the_order_of_the_requests() {
    let mut wire = warm();
    for body in [b"a", b"b", b"c"] {
        wire.ask(ECHO, body);
    }
    wire.service(&[reply(5, b"C"), reply(3, b"B")].concat());
    assert_eq!(wire.told(), [], "the first is not there");
    wire.service(&reply(1, b"A"));
    assert_eq!(wire.told(), [told(ECHO, 0, "A"), told(ECHO, 0, "B"), told(ECHO, 0, "C")]);
    assert_eq!(wire.bridge.to_client.capacity(), 0);
}

#[test]
fn a_refusal_has_its_turn_as_well_and_rings_no_bell_before_it() {
    let mut wire = warm();
    wire.ask(ECHO, b"a");
    wire.sent();
    wire.ask(UNKNOWN, b"");
    assert_eq!(wire.kinds(), [], "nothing could be said yet");
    wire.ask(ECHO, b"b");
    wire.service(&reply(3, b"B"));
    assert_eq!(wire.told(), []);
    wire.service(&reply(1, b"A"));
    let unknown = "unknown command 9999";
    assert_eq!(wire.told(), [told(ECHO, 0, "A"), told(UNKNOWN, 12, unknown), told(ECHO, 0, "B")]);
    // With nothing before it, it rings.
    wire.sent();
    wire.ask(UNKNOWN, b"");
    assert_eq!(wire.kinds(), [(Kind::Settings, 0)]);
    wire.service(&acknowledged());
    assert_eq!(wire.told(), [told(UNKNOWN, 12, unknown)]);
}

#[test]
fn a_deadline_answers_in_its_turn_and_lets_the_others_go() {
    let mut wire = warm();
    wire.ask(ECHO, b"late");
    wire.ask(ECHO, b"b");
    wire.service(&reply(3, b"B"));
    assert_eq!(wire.told(), []);
    assert_eq!(wire.sleep(), Duration::from_secs(2));
    wire.service(&acknowledged());
    let late = "the service did not answer in time";
    assert_eq!(wire.told(), [told(ECHO, 4, late), told(ECHO, 0, "B")]);

    // One that fails behind a slower one waits for it.
    wire.ask(SLOW, b"");
    wire.ask(ECHO, b"late");
    wire.sleep();
    assert!(wire.bridge.calls.len() == 1 && wire.told().is_empty());
    wire.service(&reply(5, b"S"));
    assert_eq!(wire.told(), [told(SLOW, 0, "S"), told(ECHO, 4, late)]);
}

#[test]
fn one_way_requests_have_no_turn() {
    let mut wire = warm();
    wire.ask(SAY, b"");
    wire.ask(ECHO, b"a");
    let quiet = frame(&wire, ECHO, b"", true);
    wire.client(&quiet);
    wire.ask(ECHO, b"b");
    wire.service(&[reply(7, b"B"), reply(3, b"A")].concat());
    assert_eq!(wire.told(), [told(ECHO, 0, "A"), told(ECHO, 0, "B")]);
    wire.service(&[reply(1, b""), reply(5, b"")].concat());
    assert_eq!(wire.told(), []);
}

#[test]
fn one_way_requests_are_answered_where_the_layout_says_so() {
    let mut wire = warm_with(json!({}), true);
    wire.ask(SAY, b"");
    let flagged = frame(&wire, ECHO, b"", true);
    wire.client(&flagged);
    let unknown = frame(&wire, UNKNOWN, b"", true);
    wire.client(&unknown);
    wire.service(&[reply(3, b"E"), reply(1, b"S")].concat());
    assert_eq!(
        wire.told(),
        [told(SAY, 0, "S"), told(ECHO, 0, "E"), told(UNKNOWN, 12, "unknown command 9999")]
    );
}

#[test]
fn no_more_is_read_than_may_wait_behind_one_that_is_late() {
    let mut wire = warm_with(json!({"max_in_flight": 3}), false);
    for _ in 0..5 {
        wire.ask(ECHO, b"x");
    }
    assert_eq!(wire.bridge.calls.len(), 3);
    assert!(wire.bridge.paused && !wire.held.is_empty());
    wire.service(&[reply(3, b"B"), reply(5, b"C")].concat());
    assert!(!wire.held.is_empty(), "the first still has its turn");
    wire.service(&reply(1, b"A"));
    assert!(wire.held.is_empty() && !wire.bridge.paused);
    wire.service(&[reply(9, b"E"), reply(7, b"D")].concat());
    let heard: String = wire.told().into_iter().map(|(.., body)| body).collect();
    assert_eq!(heard, "ABCDE");
}

#[test]
fn replies_that_are_too_much_to_keep_fail() {
    let mut wire = warm_with(json!({"max_response": "4KiB"}), false);
    for _ in 0..4 {
        wire.ask(ECHO, b"x");
    }
    let long = "y".repeat(4000);
    for stream in [3, 5, 7] {
        wire.service(&reply(stream, long.as_bytes()));
    }
    wire.service(&reply(1, b"A"));
    assert_eq!(
        wire.told(),
        [told(ECHO, 0, "A"), told(ECHO, 0, &long), told(ECHO, 0, &long), told(ECHO, 8, "")]
    );
}

#[test]
fn the_end_answers_every_call_in_its_order() {
    let mut wire = warm();
    for body in [b"a", b"b", b"c"] {
        wire.ask(ECHO, body);
    }
    wire.upstream(&reply(3, b"B"), true);
    let statuses: Vec<_> = wire.told().into_iter().map(|(c, status, _)| (c, status)).collect();
    assert_eq!(statuses, [(ECHO, 14), (ECHO, 0), (ECHO, 14), (GOODBYE, 14)]);
}
