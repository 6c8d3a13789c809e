use super::*;
use crate::protocol::grpc::request::Heads;

fn route(index: u16) -> Route {
    Route {
        index,
        name: format!("{index}_M").into(),
        method: format!("/s.S/M{index}").into(),
        head: Heads::new("a").unwrap().head(index, "/s.S/M", [], None).unwrap(),
        kind: Kind::Unary,
        command: None,
        push: None,
        stream: None,
        deadline: Some(Duration::from_secs(5)),
        access: Rc::default(),
        max_request: 65_536,
        codec: Codec::Protobuf,
        compress_reply: false,
        idempotent: false,
        command_metadata: None,
    }
}

#[test]
fn ten_thousand_commands_of_each_sort_are_found() {
    let routes: Vec<Route> = (0..30_000).map(route).collect();
    let low = (0..10_000).map(|n| (Span::Numbers(u64::from(n), u64::from(n)), n));
    let high = (10_000..20_000).map(|n| {
        let number = u64::from(n) << 20;
        (Span::Numbers(number, number), n)
    });
    let texts = (20_000..30_000).map(|n| (Span::Text(format!("t{n}").into_bytes().into()), n));
    let table = Routes::new(routes, low.chain(high).chain(texts).collect(), None);
    assert_eq!(table.len(), 30_000);
    let found = |command: Command<'_>| table.lookup(command).map(|route| route.index);
    for n in 0..10_000_u16 {
        assert_eq!(found(Command::Number(n.into())), Some(n));
        assert_eq!(found(Command::Number(u64::from(n + 10_000) << 20)), Some(n + 10_000));
        assert_eq!(found(Command::Text(format!("t{}", n + 20_000).as_bytes())), Some(n + 20_000));
    }
    assert_eq!(found(Command::Number(10_000)), None);
    assert_eq!(found(Command::Text(b"0")), None);
}

#[test]
fn without_a_catch_all_unknown_commands_have_no_route() {
    let table = Routes::default();
    assert!(table.is_empty() && table.lookup(Command::Number(0)).is_none());
    let table = Routes::new(vec![route(0)], Vec::new(), Some(0));
    assert_eq!(table.lookup(Command::Number(7)).unwrap().index, 0);
    assert_eq!(table.lookup(Command::Text(b"x")).unwrap().index, 0);
}
