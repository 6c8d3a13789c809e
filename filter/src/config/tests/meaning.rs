use std::time::Duration;

use serde_json::json;

use super::super::{Connect, LoginMode, OwnedCommand, Traceparent};
use super::{named, parse, plain, ticket, with};
use crate::call::{Code, Kind};
use crate::protocol::grpc::hpack::Decoder;
use crate::protocol::layout::Command;
use crate::route::{Codec, Meaning, Part, Route, Routes};

/// The fields of a route's head.
fn head(route: &Route) -> Vec<String> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let field = |name: &[u8], value: &[u8]| fields.push(format!("{}: {}", text(name), text(value)));
    let block = route.head.parts().map(|part| part.fields).concat();
    Decoder::new(0).decode(&block, field).unwrap();
    fields
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn method(routes: &Routes, number: u64) -> Option<&str> {
    routes.lookup(Command::Number(number)).map(|route| &*route.method)
}

#[test]
fn each_form_of_entry_leads_to_its_methods() {
    let config = parse(&plain());
    let expected = [
        (1000, None),
        (1001, Some("/demo.v1.Hall/Enter")),
        (1002, Some("/demo.v1.Hall/Leave")),
        (1003, Some("/demo.v1.Hall/Talk")),
        (1004, None),
        (1999, None),
        (2000, Some("/demo.v1.Shop/List")),
        (2001, Some("/demo.v1.Shop/Buy")),
        (2002, None),
        (2999, None),
        (3000, Some("/demo.v1.Legacy/Handle")),
        (3999, Some("/demo.v1.Legacy/Handle")),
        (4000, None),
    ];
    for (number, expected) in expected {
        assert_eq!(method(&config.routes, number), expected, "{number}");
    }
    assert_eq!(config.routes.len(), 6);
    let names: Vec<&str> = config.routes.iter().map(|route| &*route.name).collect();
    let expected =
        ["1001_Enter", "1002_Leave", "1003_Talk", "2000_List", "2001_Buy", "3000_3999_Handle"];
    assert_eq!(names, expected);
}

#[test]
fn indexes_count_up_in_the_order_of_the_table() {
    let config = parse(&plain());
    for (expected, route) in config.routes.iter().enumerate() {
        assert_eq!(usize::from(route.index), expected);
        assert_eq!(config.routes.route(route.index), Some(route));
    }
}

#[test]
fn what_is_not_said_has_its_default() {
    let config = parse(&plain());
    let route = config.routes.lookup(Command::Number(1001)).unwrap();
    assert_eq!(route.kind, Kind::Unary);
    assert_eq!(route.deadline, Some(Duration::from_secs(5)));
    assert_eq!(route.max_request, 64 * 1024);
    assert_eq!(route.codec, Codec::Protobuf);
    assert!(!route.compress_reply && !route.access.login);
    assert_eq!(config.upstream.connect, Connect::AtConnect);
    assert_eq!(config.limits.max_in_flight, 128);
    assert_eq!(config.limits.idle_timeout.unless_zero(), None);
    assert_eq!(config.metrics.commands, 100);
    assert!(config.log.connections && !config.log.calls);
    assert_eq!(config.identity.traceparent, Traceparent::Off);
    assert!(config.session.login.is_none() && config.companion.is_none());
}

#[test]
fn a_head_is_complete_but_for_what_differs_from_call_to_call() {
    let config = parse(&plain());
    let expected = [
        ":path: /demo.v1.Hall/Enter",
        ":method: POST",
        ":scheme: http",
        ":authority: hall:50051",
        "te: trailers",
        "content-type: application/grpc",
        concat!("user-agent: meshgate/", env!("CARGO_PKG_VERSION")),
        "grpc-timeout: 5000000u",
    ];
    assert_eq!(head(config.routes.route(0).unwrap()), expected);
}

#[test]
fn an_entry_overrides_the_defaults_and_adds_to_their_metadata() {
    let document = with(
        ticket(),
        "defaults",
        json!({"deadline": "2s", "roles": ["player"], "metadata": {"x-game": "demo", "x-b": "1"}}),
    );
    let document = with(
        document,
        "commands/0",
        json!({"command": 1001, "method": "/demo.v1.Hall/Enter", "deadline": "100ms",
               "kind": "one_way", "codec": "bytes", "max_request": "1KiB",
               "claims": {"region": ["eu", "us"]}, "metadata": {"x-b": "2"}}),
    );
    let config = parse(&document);
    let one = config.routes.lookup(Command::Number(1001)).unwrap();
    assert_eq!((one.kind, one.codec), (Kind::OneWay, Codec::Bytes));
    assert_eq!((one.deadline, one.max_request), (Some(Duration::from_millis(100)), 1024));
    assert!(one.access.login);
    assert_eq!(*one.access.roles, ["player".into()]);
    assert!(head(one).ends_with(&strings(&["x-game: demo", "x-b: 2", "grpc-timeout: 100000u"])));

    let other = config.routes.lookup(Command::Number(1002)).unwrap();
    assert_eq!(other.deadline, Some(Duration::from_secs(2)));
    assert!(other.access.claims.is_empty());
    assert!(head(other).contains(&"x-b: 1".to_owned()));
}

#[test]
fn a_command_before_the_login_inherits_no_roles() {
    let document = with(ticket(), "defaults", json!({"roles": ["player"]}));
    let document = with(document, "commands/0/login", json!("not_required"));
    let config = parse(&document);
    let open = config.routes.lookup(Command::Number(1001)).unwrap();
    assert!(!open.access.login && open.access.roles.is_empty());
    assert!(config.routes.lookup(Command::Number(1002)).unwrap().access.login);
}

#[test]
fn roles_and_claims_are_asked_for_as_written() {
    let document = with(
        ticket(),
        "commands/0",
        json!({"command": 1001, "method": "/demo.v1.Hall/Enter", "roles": ["gm", "admin"],
               "claims": {"region": ["eu", "us"], "tier": ["gold"]}}),
    );
    let config = parse(&document);
    let access = &config.routes.lookup(Command::Number(1001)).unwrap().access;
    assert_eq!(*access.roles, ["gm".into(), "admin".into()]);
    assert_eq!(*access.claims["region"], ["eu".into(), "us".into()]);
    assert_eq!(*access.claims["tier"], ["gold".into()]);
    assert_eq!(access.claims.len(), 2);
}

#[test]
fn otherwise_takes_every_command_that_the_table_does_not_name() {
    let otherwise = json!({"method": "/demo.v1.Legacy/Any", "command_metadata": "x-command"});
    let config = parse(&with(plain(), "otherwise", otherwise));
    assert_eq!(method(&config.routes, 1001), Some("/demo.v1.Hall/Enter"));
    assert_eq!(method(&config.routes, 9), Some("/demo.v1.Legacy/Any"));
    let route = config.routes.lookup(Command::Number(u64::MAX)).unwrap();
    assert_eq!(route.command_metadata.as_deref(), Some("x-command"));
    assert_eq!(&*route.name, "otherwise");
}

#[test]
fn commands_can_be_names() {
    let document = with(
        named(),
        "commands/1",
        json!({"service": "demo.v1.Hall", "methods": {"leave": "Leave", "7": "Seven"}}),
    );
    let config = parse(&document);
    let method = |text: &str| {
        config.routes.lookup(Command::Text(text.as_bytes())).map(|route| route.method.to_string())
    };
    assert_eq!(method("enter").unwrap(), "/demo.v1.Hall/Enter");
    assert_eq!(method("leave").unwrap(), "/demo.v1.Hall/Leave");
    assert_eq!(method("7").unwrap(), "/demo.v1.Hall/Seven");
    assert_eq!(method("ente"), None);
    assert_eq!(config.routes.lookup(Command::Number(7)), None);
}

#[test]
fn commands_below_zero_are_the_bits_of_the_field() {
    let document = with(plain(), "layout/header/3/type", json!("i16"));
    let document = with(
        document,
        "commands",
        json!([
            {"command": -5, "method": "/d.S/Five"},
            {"from": -3, "to": 2, "method": "/d.S/Around"}
        ]),
    );
    let config = parse(&document);
    assert_eq!(method(&config.routes, 0xfffb), Some("/d.S/Five"));
    for bits in [0xfffd, 0xffff, 0, 2] {
        assert_eq!(method(&config.routes, bits), Some("/d.S/Around"), "{bits}");
    }
    assert_eq!(method(&config.routes, 0xfffc), None);
    assert_eq!(method(&config.routes, 3), None);
    assert_eq!(config.routes.len(), 2);
    assert_eq!(&*config.routes.route(0).unwrap().name, "-5_Five");
    assert_eq!(config.command_shape.number(0xfffb), -5);
}

#[test]
fn a_ticket_session_says_which_frame_logs_in() {
    let document = with(ticket(), "session/goodbye", json!({"command": 2}));
    let config = parse(&document);
    let login = config.session.login.unwrap();
    assert_eq!((login.mode, login.command), (LoginMode::Ticket, OwnedCommand::Number(1)));
    assert_eq!(&*login.audience, "game-live");
    assert_eq!(login.timeout, Duration::from_secs(10));
    assert_eq!(login.handshake_timeout, Duration::from_secs(3));
    assert_eq!(config.session.goodbye, Some(OwnedCommand::Number(2)));
}

#[test]
fn the_companions_authority_is_the_host_of_an_istio_cluster() {
    let istio = "outbound|9443||companion.meshgate.svc.cluster.local";
    let config = parse(&with(ticket(), "companion/cluster", json!(istio)));
    let companion = config.companion.unwrap();
    assert_eq!(&*companion.authority, "companion.meshgate.svc.cluster.local");
    assert_eq!(&*companion.cluster, istio);
}

#[test]
fn statuses_are_grpcs_own_numbers_unless_said_otherwise() {
    let statuses = parse(&plain()).statuses;
    for code in Code::ALL {
        assert_eq!(statuses.private(code), i64::from(code.number()));
    }
    let document = with(plain(), "layout/header/5/type", json!("u16"));
    let document = with(document, "statuses", json!({"offset": 1000, "codes": {"NOT_FOUND": 404}}));
    let statuses = parse(&document).statuses;
    assert_eq!(statuses.private(Code::Ok), 0);
    assert_eq!(statuses.private(Code::NotFound), 404);
    assert_eq!(statuses.private(Code::Unauthenticated), 1016);
}

#[test]
fn claims_are_handed_on_under_the_reserved_prefix() {
    let identity = json!({"claims": ["Region", "level"]});
    let identity = parse(&with(ticket(), "identity", identity)).identity;
    let headers: Vec<&str> = identity.claims.iter().map(|claim| &*claim.header).collect();
    assert_eq!(headers, ["x-meshgate-claim-region", "x-meshgate-claim-level"]);
    assert_eq!(&*identity.claims[0].claim, "Region");
}

#[test]
fn a_trace_can_come_from_a_header_field() {
    let document = with(plain(), "identity", json!({"traceparent": {"field": "zone"}}));
    assert_eq!(parse(&document).identity.traceparent, Traceparent::Field("x-zone".into()));
    let document = with(plain(), "identity", json!({"traceparent": "generate"}));
    assert_eq!(parse(&document).identity.traceparent, Traceparent::Generate);
}

#[test]
fn the_burst_is_twice_the_rate_unless_it_is_said() {
    let limits = parse(&with(plain(), "limits", json!({"frames_per_second": 50}))).limits;
    assert_eq!(limits.burst(), 100);
    let document = json!({"frames_per_second": 50, "frames_burst": 60});
    assert_eq!(parse(&with(plain(), "limits", document)).limits.burst(), 60);
}

#[test]
fn numbers_may_come_as_floats_because_istio_makes_them_so() {
    let text = plain().to_string().replace("1001", "1001.0").replace("2000", "2e3");
    let config = super::Config::parse(text.as_bytes()).unwrap();
    assert_eq!(method(&config.routes, 1001), Some("/demo.v1.Hall/Enter"));
    assert_eq!(method(&config.routes, 2001), Some("/demo.v1.Shop/Buy"));
}

#[test]
fn streams_share_the_commands_of_their_messages() {
    let chat = json!({"command": 1300, "method": "/s.S/Chat", "kind": "bidi_stream", "push": 1301});
    let more = json!({"service": "s.S", "methods": {"1310": "Up", "1311": "Load"},
        "kind": "client_stream", "when_full": "pause", "stream_idle": "5s", "deadline": "60s"});
    let document = with(plain(), "commands", json!([chat, more]));
    let config = parse(&with(document, "defaults", json!({"send": 1302, "close": 1303})));
    let found = |command| config.routes.find(Command::Number(command));
    assert_eq!(found(1302), Some(Meaning::Part(Part::Message)));
    assert_eq!(found(1303), Some(Meaning::Part(Part::Close)));
    assert_eq!(found(1304), None);
    let Some(Meaning::Call(route)) = found(1311) else { panic!("a route") };
    assert_eq!((&*route.method, route.kind), ("/s.S/Load", Kind::ClientStream));
    let stream = route.stream.as_deref().unwrap();
    assert_eq!((stream.pauses, stream.idle), (true, Some(Duration::from_secs(5))));
    assert_eq!(route.deadline, Some(Duration::from_secs(60)));
    let Some(Meaning::Call(route)) = found(1300) else { panic!("a route") };
    assert_eq!((route.kind, route.deadline), (Kind::BidiStream, None));
    let stream = route.stream.as_deref().unwrap();
    assert_eq!((stream.pauses, stream.idle), (false, None));
    assert_eq!(stream.send, Some(OwnedCommand::Number(1302)));
}
