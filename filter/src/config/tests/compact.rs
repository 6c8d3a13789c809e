//! Tables of thousands of commands.

use serde_json::{Value, json};

use super::{parse, plain, with};
use crate::protocol::layout::Command;

/// So many commands of services with 50 methods each, with names of usual length.
fn table(commands: usize) -> Vec<Value> {
    let services = (0..commands.div_ceil(50)).map(|service| {
        let methods = (service * 50..commands.min((service + 1) * 50))
            .map(|n| (n.to_string(), json!(format!("UpdatePlayerInventory{n}"))));
        json!({
            "service": format!("studio.game.v1.Service{service}"),
            "methods": methods.collect::<serde_json::Map<_, _>>(),
            "deadline": "1500ms"
        })
    });
    services.collect()
}

#[test]
fn five_thousand_commands_stay_below_256_kib() {
    let document = with(plain(), "commands", json!(table(5_000)));
    let text = serde_json::to_string(&document).unwrap();
    assert!(text.len() < 256 * 1024, "{} bytes", text.len());
    let config = parse(&document);
    assert_eq!(config.routes.len(), 5_000);
    for number in 0..5_000 {
        let route = config.routes.lookup(Command::Number(number)).unwrap();
        assert!(route.method.ends_with(&format!("/UpdatePlayerInventory{number}")));
    }
    assert!(config.routes.lookup(Command::Number(5_000)).is_none());
}

#[test]
fn a_table_has_room_for_sixty_thousand_commands_and_no_more() {
    let methods = |count: usize| vec!["M"; count];
    let entry = |count| json!([{"service": "s.S", "first": 1, "methods": methods(count)}]);
    let config = parse(&with(plain(), "commands", entry(60_000)));
    assert!(config.routes.lookup(Command::Number(60_000)).is_some());
    let document = with(plain(), "commands", entry(60_001)).to_string();
    let expected = "commands: more than 60000 commands, expected at most so many";
    assert_eq!(super::errors(&document), [expected]);
}
