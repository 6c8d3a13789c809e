//! Which commands may be pushed, and in which layouts.

use serde_json::json;

use super::{Config, errors, parse, ticket, with};
use crate::protocol::layout::Command;

fn allowed(config: &Config, numbers: &[u64]) -> Vec<bool> {
    let push = config.push.as_ref().unwrap();
    numbers.iter().map(|number| push.allows(Command::Number(*number))).collect()
}

#[test]
fn commands_and_ranges_may_be_pushed_and_nothing_else() {
    let push = json!({"commands": [1206, "0x400", 7], "ranges": [{"from": 1300, "to": 1302}]});
    let config = parse(&with(ticket(), "push", push));
    let numbers = [1206, 1024, 7, 1300, 1302, 1303, 1299, 0, u64::MAX];
    let expected = [true, true, true, true, true, false, false, false, false];
    assert_eq!(allowed(&config, &numbers), expected);
    assert!(parse(&ticket()).push.is_none());
}

#[test]
fn numbers_below_zero_are_in_their_ranges() {
    let layout = with(ticket(), "layout/header/3/type", json!("i16"));
    let push = json!({"commands": [-5], "ranges": [{"from": -20, "to": -10}]});
    let config = parse(&with(layout, "push", push));
    let bits = |number: i16| u64::from(number.cast_unsigned());
    assert_eq!(allowed(&config, &[bits(-5), bits(-15), bits(-9), 5]), [true, true, false, false]);
}

#[test]
fn names_may_be_pushed() {
    let mut document = super::named();
    document["session"] = ticket()["session"].clone();
    document["session"]["login"]["command"] = json!("login");
    document["companion"] = ticket()["companion"].clone();
    let config = parse(&with(document, "push", json!({"commands": ["news", "alarm"]})));
    let push = config.push.unwrap();
    let allows = |name: &str| push.allows(Command::Text(name.as_bytes()));
    assert!(allows("news") && allows("alarm") && !allows("new") && !allows("login"));
}

#[test]
fn a_layout_in_which_a_push_passes_for_a_reply_cannot_deliver_any() {
    let pushed = with(ticket(), "push", json!({"commands": [1206]}));
    let kind = json!({"name": "kind", "type": "u8", "role": {"kind": {"request": 1, "reply": 2}}});
    let kinds = with(pushed.clone(), "layout/header/1", kind);
    let said = errors(&kinds.to_string());
    assert!(said.iter().any(|error| error.starts_with("push: ") && error.contains("\"push\"")));
    let kind = json!({"name": "kind", "type": "u8",
        "role": {"kind": {"request": 1, "reply": 2, "push": 3}}});
    parse(&with(pushed.clone(), "layout/header/1", kind));

    let mut ordered = with(pushed, "layout/correlation", json!("order"));
    ordered["layout"]["header"].as_array_mut().unwrap().remove(4);
    let said = errors(&ordered.to_string());
    let refused = |error: &String| error.starts_with("push: replies come in the order");
    assert!(said.iter().any(refused), "{said:?}");
    let flags = json!({"reply": 0, "error": 1, "push": 2});
    parse(&with(ordered, "layout/header/1/role", json!({"flags": flags})));
}
