use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::layout::FrameSeal;

use super::super::identity::MetadataPolicy;
use super::super::login::SessionId;
use super::super::seal::{TrafficKey, TrafficKeys, client_side};
use super::*;
use crate::call::Code;

const PEER: &str = "203.0.113.7:40112";
const LOGIN: [u8; 3] = *b"key";

fn at(seconds: u64) -> Moment {
    Moment::from_micros(1_000_000 * (100 + seconds))
}

fn keys() -> TrafficKeys {
    TrafficKeys {
        client_to_server: TrafficKey::from_slice(&[1; 32]).unwrap(),
        server_to_client: TrafficKey::from_slice(&[2; 32]).unwrap(),
    }
}

fn accepted(keys: Option<TrafficKeys>) -> Accepted {
    Accepted {
        session: SessionId::from_slice(&[7; 16]).unwrap(),
        hold: 9,
        activate: false,
        reply: b"reply".to_vec(),
        user: "ann".to_owned(),
        claims: [("level".to_owned(), "7".to_owned())].into(),
        roles: vec!["player".to_owned()],
        keys,
    }
}

fn settings(mode: Mode) -> Settings {
    Settings::new(mode)
}

fn fresh(mode: Mode) -> Session {
    Session::new(at(0), &settings(mode), PEER)
}

fn logging_in(mode: Mode) -> Session {
    let mut session = fresh(mode);
    session.login(&settings(mode), &LOGIN).unwrap();
    session
}

fn pending() -> Session {
    let mut session = logging_in(Mode::Noise);
    session.accepted(at(1), &settings(Mode::Noise), PEER, accepted(Some(keys()))).unwrap();
    session
}

fn by_ticket() -> Session {
    let mut session = logging_in(Mode::Ticket);
    session.accepted(at(1), &settings(Mode::Ticket), PEER, accepted(None)).unwrap();
    session
}

/// Resumed by ticket: nothing is sealed.
fn pending_plain() -> Session {
    let mut session = logging_in(Mode::Ticket);
    let resumed = Accepted { activate: true, ..accepted(None) };
    session.accepted(at(1), &settings(Mode::Ticket), PEER, resumed).unwrap();
    session
}

/// The client's frames, numbered from 0.
fn from_client(count: usize) -> Vec<Vec<u8>> {
    let (mut sealer, _) = client_side(&keys());
    (0..count)
        .map(|number| {
            let mut body = format!("frame {number}").into_bytes();
            body.resize(body.len() + sealer.overhead(), 0);
            sealer.seal(&[b"header"], &mut body).unwrap();
            body
        })
        .collect()
}

fn activating() -> Session {
    let mut session = pending();
    session.open(&[b"header"], &mut from_client(1)[0]).unwrap();
    session
}

fn by_noise() -> Session {
    let mut session = activating();
    assert!(session.activated());
    session
}

fn access(login: bool, roles: &[&str], claims: &[(&str, &[&str])]) -> Access {
    Access {
        login,
        roles: roles.iter().map(|role| Box::from(*role)).collect(),
        claims: claims
            .iter()
            .map(|(name, values)| {
                (Box::from(*name), values.iter().map(|value| Box::from(*value)).collect())
            })
            .collect::<BTreeMap<_, _>>(),
    }
}

fn open_to_all() -> Access {
    access(false, &[], &[])
}

fn for_sessions() -> Access {
    access(true, &[], &[])
}

/// Every state but the established ones.
fn not_established() -> Vec<(&'static str, Session)> {
    let mut over = by_noise();
    over.end();
    vec![
        ("fresh", fresh(Mode::Noise)),
        ("logging in by ticket", logging_in(Mode::Ticket)),
        ("logging in by Noise", logging_in(Mode::Noise)),
        ("pending", pending()),
        ("activating", activating()),
        ("pending without keys", pending_plain()),
        ("over", over),
    ]
}

#[test]
fn nothing_that_asks_for_a_login_passes_before_the_session_is_established() {
    for (state, session) in not_established() {
        for access in
            [for_sessions(), access(true, &["player"], &[]), access(false, &["player"], &[])]
        {
            assert!(session.pass(&access).is_err(), "{state}");
        }
        assert!(!session.is_established(), "{state}");
    }
}

#[test]
fn what_asks_for_nothing_passes_before_the_login_and_not_during_it() {
    for (state, session) in not_established() {
        assert_eq!(session.pass(&open_to_all()).is_ok(), state == "fresh", "{state}");
    }
    let session = fresh(Mode::Ticket);
    assert!(session.pass(&open_to_all()).unwrap().identity().is_anonymous());
}

#[test]
fn who_is_told_what_says_why() {
    let denied = |session: &Session, access: &Access| session.pass(access).unwrap_err();
    assert_eq!(denied(&fresh(Mode::Ticket), &for_sessions()), Denied::LoginFirst);
    assert_eq!(denied(&fresh(Mode::Ticket), &access(false, &["gm"], &[])), Denied::LoginFirst);
    assert_eq!(denied(&pending(), &open_to_all()), Denied::NotYet);
    assert_eq!(Denied::LoginFirst.status().code, Code::Unauthenticated);
    assert_eq!(denied(&by_ticket(), &access(true, &["gm"], &[])), Denied::NotAllowed);
    assert_eq!(Denied::NotAllowed.status().code, Code::PermissionDenied);
}

#[test]
fn without_logins_everybody_is_established_and_anonymous() {
    let session = fresh(Mode::None);
    assert!(session.is_established() && !session.expects_sealed());
    assert_eq!(session.deadline(), None);
    assert!(session.pass(&for_sessions()).unwrap().identity().is_anonymous());
    assert_eq!(session.pass(&access(true, &["gm"], &[])).unwrap_err(), Denied::NotAllowed);
}

#[test]
fn a_ticket_login_establishes_a_named_session_with_plain_frames() {
    let mut session = logging_in(Mode::Ticket);
    assert!(session.is_waiting());
    let reply = session.accepted(at(1), &settings(Mode::Ticket), PEER, accepted(None)).unwrap();
    assert_eq!(reply, b"reply");
    let identity = session.pass(&for_sessions()).unwrap().identity();
    assert_eq!(identity.user(), Some("ann"));
    assert!(!session.expects_sealed() && session.sealer().is_none());
    assert_eq!(session.deadline(), None);
}

#[test]
fn a_noise_login_is_established_by_a_sealed_frame_and_the_companions_word() {
    let mut session = pending();
    assert!(session.expects_sealed() && !session.is_waiting());
    let mut frames = from_client(2);
    let opened = session.open(&[b"header"], &mut frames[0]).unwrap();
    assert_eq!(opened.body, b"frame 0");
    assert_eq!(opened.activate, Some(accepted(None).hold()));
    assert!(session.is_waiting());
    assert!(session.activated());
    assert_eq!(session.pass(&for_sessions()).unwrap().identity().user(), Some("ann"));
    let opened = session.open(&[b"header"], &mut frames[1]).unwrap();
    assert_eq!(opened.body, b"frame 1");
    assert_eq!(opened.activate, None);
}

#[test]
fn a_session_resumed_by_ticket_is_established_by_a_frame_and_the_companions_word() {
    let mut session = pending_plain();
    assert!(!session.expects_sealed() && !session.is_waiting() && session.sealer().is_none());
    assert!(session.deadline().is_some());
    assert_eq!(session.open(&[], &mut [0; 40]), Err(OpenError::Unexpected));
    assert_eq!(session.prove(), Some(accepted(None).hold()));
    assert!(session.is_waiting() && !session.expects_sealed());
    assert_eq!(session.prove(), None);
    assert!(session.activated());
    assert_eq!(session.pass(&for_sessions()).unwrap().identity().user(), Some("ann"));
    assert_eq!(session.prove(), None);

    let mut late = pending_plain();
    assert_eq!(late.expire(at(12)), Some(Expired::FirstFrame));
    assert_eq!(late.prove(), None);
}

#[test]
fn a_plain_frame_proves_nothing_where_frames_are_sealed_or_nobody_resumes() {
    for mut session in
        [fresh(Mode::Ticket), logging_in(Mode::Ticket), pending(), by_ticket(), by_noise()]
    {
        assert_eq!(session.prove(), None);
    }
}

#[test]
fn a_forged_first_frame_ends_the_session_and_activates_nothing() {
    let mut session = pending();
    let error = session.open(&[b"header"], &mut [0; 40]).unwrap_err();
    assert_eq!(error, OpenError::Forged);
    assert!(!session.activated());
    assert_eq!(session.pass(&open_to_all()).unwrap_err(), Denied::Over);
    assert_eq!(session.open(&[b"header"], &mut from_client(1)[0]), Err(OpenError::Unexpected));
}

#[test]
fn a_forged_later_frame_ends_the_session() {
    let mut session = by_noise();
    let mut frames = from_client(2);
    frames[1][0] ^= 1;
    assert_eq!(session.open(&[b"header"], &mut frames[1]), Err(OpenError::Forged));
    assert_eq!(session.pass(&for_sessions()).unwrap_err(), Denied::Over);
}

#[test]
fn no_frame_is_opened_while_the_activation_is_under_way() {
    let mut session = activating();
    let mut frames = from_client(2);
    assert_eq!(session.open(&[b"header"], &mut frames[1]), Err(OpenError::Unexpected));
    assert!(session.activated(), "and none is lost by trying");
    assert!(session.open(&[b"header"], &mut frames[1]).is_ok());
}

#[test]
fn sealed_frames_are_opened_after_a_noise_login_only() {
    for mut session in [fresh(Mode::None), fresh(Mode::Noise), logging_in(Mode::Noise), by_ticket()]
    {
        let mut frame = from_client(1).remove(0);
        assert_eq!(session.open(&[b"header"], &mut frame), Err(OpenError::Unexpected));
    }
}

#[test]
fn frames_to_the_client_can_be_sealed_from_the_login_reply_on_to_the_last_word() {
    let (_, mut client) = client_side(&keys());
    let mut session = pending();
    let mut say = |session: &mut Session| {
        let sealer = session.sealer().unwrap();
        let mut body = vec![b'x'; 1 + sealer.overhead()];
        sealer.seal(&[], &mut body).unwrap();
        assert_eq!(client.open(&[], &mut body).unwrap(), b"x");
    };
    say(&mut session);
    session.open(&[b"header"], &mut from_client(1)[0]).unwrap();
    say(&mut session);
    session.activated();
    say(&mut session);
    session.end();
    say(&mut session);
    session.end();
    say(&mut session);
}

#[test]
fn a_pending_session_that_is_refused_can_say_so_sealed() {
    for mut session in [pending(), activating()] {
        session.end();
        assert!(session.sealer().is_some());
        assert!(!session.activated(), "too late");
    }
}

#[test]
fn only_a_fresh_connection_can_log_in() {
    for mut session in [
        fresh(Mode::None),
        logging_in(Mode::Ticket),
        pending(),
        activating(),
        by_ticket(),
        by_noise(),
    ] {
        assert_eq!(session.login(&settings(Mode::Noise), &LOGIN), Err(Refusal::Repeated));
    }
}

#[test]
fn a_login_message_has_a_size() {
    let mut settings = settings(Mode::Ticket);
    settings.max_login_bytes = 10;
    for (len, verdict) in
        [(0, Err(Refusal::Malformed)), (1, Ok(())), (10, Ok(())), (11, Err(Refusal::Malformed))]
    {
        let mut session = fresh(Mode::Ticket);
        assert_eq!(session.login(&settings, &vec![0; len]), verdict, "{len} bytes");
        assert_eq!(session.is_waiting(), verdict.is_ok());
    }
}

#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    let mut session = by_ticket();
    let result = session.accepted(at(2), &settings(Mode::Ticket), PEER, accepted(None));
    assert_eq!(result, Err(AcceptError::NotLoggingIn));
    assert!(!session.activated());
    assert!(session.is_established());
    for mut session in [fresh(Mode::Noise), logging_in(Mode::Noise), pending()] {
        assert!(!session.activated());
        assert!(!session.is_established());
    }
}

#[test]
fn keys_that_do_not_go_with_the_mode_end_the_session() {
    for (mode, keys) in [(Mode::Ticket, Some(keys())), (Mode::Noise, None)] {
        let mut session = logging_in(mode);
        let result = session.accepted(at(1), &settings(mode), PEER, accepted(keys));
        assert_eq!(result, Err(AcceptError::Keys));
        assert_eq!(session.pass(&open_to_all()).unwrap_err(), Denied::Over);
    }
}

#[test]
fn someone_who_cannot_be_named_to_services_is_not_let_in() {
    let mut session = logging_in(Mode::Ticket);
    let mut someone = accepted(None);
    someone.user = "ann\r\nx-admin: yes".to_owned();
    let result = session.accepted(at(1), &settings(Mode::Ticket), PEER, someone);
    assert!(matches!(result, Err(AcceptError::Identity(_))));
    assert_eq!(session.pass(&for_sessions()).unwrap_err(), Denied::Over);
}

#[test]
fn roles_are_any_of_and_claims_all_of() {
    let session = by_ticket();
    for (roles, passes) in [(&["player"][..], true), (&["gm", "player"], true), (&["gm"], false)] {
        assert_eq!(session.pass(&access(true, roles, &[])).is_ok(), passes, "{roles:?}");
    }
    for (claims, passes) in [
        (&[("level", &["7"][..])][..], true),
        (&[("level", &["6", "7"])], true),
        (&[("level", &["6"])], false),
        (&[("level", &[])], false),
        (&[("level", &["7"]), ("guild", &["x"])], false),
        (&[("Level", &["7"])], false),
    ] {
        assert_eq!(session.pass(&access(true, &[], claims)).is_ok(), passes, "{claims:?}");
    }
    assert_eq!(session.pass(&access(true, &["gm"], &[])).unwrap_err(), Denied::NotAllowed);
    assert_eq!(session.pass(&access(true, &[], &[("a", &["b"])])).unwrap_err(), Denied::NotAllowed);
}

#[test]
fn the_metadata_is_what_the_settings_say() {
    let mut settings = settings(Mode::Ticket);
    settings.metadata = MetadataPolicy::new(["level"]).unwrap();
    let mut session = Session::new(at(0), &settings, PEER);
    session.login(&settings, &LOGIN).unwrap();
    session.accepted(at(1), &settings, PEER, accepted(None)).unwrap();
    let block = session.pass(&for_sessions()).unwrap().identity().metadata();
    let text = String::from_utf8_lossy(block);
    for part in [PEER, "07070707070707070707070707070707", "ann", "x-meshgate-claim-level\u{1}7"] {
        assert!(text.contains(part), "{part} in {text:?}");
    }
}

#[test]
fn a_connection_that_does_not_log_in_in_time_is_over() {
    let mut session = fresh(Mode::Ticket);
    let deadline = session.deadline().unwrap();
    assert_eq!(deadline, at(0).after(Settings::LOGIN_WITHIN));
    assert_eq!(session.expire(at(0)), None);
    assert_eq!(session.expire(deadline), Some(Expired::Login));
    assert_eq!(session.expire(deadline), None, "once is enough");
    assert_eq!(session.pass(&open_to_all()).unwrap_err(), Denied::Over);
}

#[test]
fn a_pending_session_without_a_sealed_frame_in_time_is_over() {
    let mut session = pending();
    let deadline = session.deadline().unwrap();
    assert_eq!(deadline, at(1).after(Settings::FIRST_FRAME_WITHIN));
    assert_eq!(session.expire(deadline), Some(Expired::FirstFrame));
    assert_eq!(session.open(&[b"header"], &mut from_client(1)[0]), Err(OpenError::Unexpected));
}

#[test]
fn no_time_runs_out_for_what_the_link_answers_or_what_is_established() {
    let far = at(0).after(Duration::from_secs(1_000_000));
    for mut session in [logging_in(Mode::Noise), activating(), by_ticket(), by_noise()] {
        assert_eq!(session.deadline(), None);
        assert_eq!(session.expire(far), None);
        assert!(session.is_waiting() || session.is_established());
    }
}

#[test]
fn a_session_is_small_while_it_is_idle() {
    // An idle connection pays for it; the two large states are boxed.
    let size = size_of::<Session>();
    assert!(size <= 160, "{size} bytes");
}
