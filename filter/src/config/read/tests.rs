use super::*;

object! {
    #[derive(Debug, PartialEq)]
    pub struct Garden {
        /// What it is called.
        pub name: String,
        /// Its beds.
        pub beds: Vec<Attempt<Bed>>,
        /// Its gate.
        pub gate: Option<Gate>,
        /// How many keys each owner has.
        pub owners: Entries<u8> = Entries::default(),
        /// Its fence.
        pub fence as "type": Option<String>,
    }
}

object! {
    #[derive(Debug, PartialEq)]
    pub struct Bed {
        /// In metres.
        pub width: u16,
        /// In metres, below the ground where negative.
        pub depth: i32,
    }
}

#[derive(Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Gate {
    Open,
    Locked(u32),
    Guarded(Bed),
}

read_choice!(Gate { "open" => Open } { "locked" => Locked, "guarded" => Guarded });

fn read(json: &str) -> (Option<Garden>, Vec<String>) {
    let mut faults = Faults::default();
    let garden = document(json.as_bytes(), &mut faults);
    (garden, faults.into_errors().iter().map(ToString::to_string).collect())
}

fn faults(json: &str) -> Vec<String> {
    read(json).1
}

#[test]
fn a_good_document_is_read_without_a_word() {
    let json = r#"{"name": "g", "beds": [{"width": 1, "depth": -2}], "gate": {"locked": 7},
                   "owners": {"bob": 2, "ann": 1}, "type": "wood"}"#;
    let (garden, faults) = read(json);
    assert_eq!(faults, [""; 0]);
    let garden = garden.unwrap();
    assert_eq!(garden.beds[0].0, Some(Bed { width: 1, depth: -2 }));
    assert_eq!(garden.gate, Some(Gate::Locked(7)));
    assert_eq!(garden.owners.0, [("bob".into(), 2), ("ann".into(), 1)]);
    assert_eq!(garden.fence.as_deref(), Some("wood"));
}

#[test]
fn every_fault_is_noted_with_its_path() {
    let json = r#"{"beds": [{"width": -1, "depth": true}, {"width": 1, "depth": 1},
                   {"width": 1}, 5], "owners": {"ann": 300}}"#;
    let (garden, faults) = read(json);
    let expected = [
        "the key \"name\" is missing",
        "beds[0].width: expected a whole number from 0 to 65535, got the number -1",
        "beds[0].depth: expected a whole number from -2147483648 to 2147483647, got true",
        "beds[2]: the key \"depth\" is missing",
        "beds[3]: expected an object, got the number 5",
        "owners.ann: expected a whole number from 0 to 255, got the number 300",
    ];
    assert_eq!(faults, expected);
    assert_eq!(garden, None);
}

#[test]
fn an_attempt_fails_by_itself() {
    let json = r#"{"name": "g", "beds": [5, {"width": 1, "depth": 1}]}"#;
    let (garden, faults) = read(json);
    assert_eq!(faults.len(), 1);
    let beds: Vec<bool> = garden.unwrap().beds.iter().map(|bed| bed.0.is_some()).collect();
    assert_eq!(beds, [false, true]);
}

#[test]
fn choices_are_names_or_objects_with_one_key() {
    let gate = |gate: &str| faults(&format!(r#"{{"name": "g", "beds": [], "gate": {gate}}}"#));
    assert_eq!(gate(r#""open""#), [""; 0]);
    assert_eq!(gate(r#"{"guarded": {"width": 1, "depth": 1}}"#), [""; 0]);
    let known = r#""open", "locked" or "guarded""#;
    assert_eq!(gate("{}"), [format!("gate: expected an object with one key, {known}")]);
    assert_eq!(gate("[]"), [format!("gate: expected {known}, got a list")]);
    assert_eq!(gate(r#""opne""#), ["gate: \"opne\" is not known here, did you mean \"open\"?"]);
    assert_eq!(gate(r#""locked""#), ["gate: \"locked\" needs more: {\"locked\": …}"]);
    assert_eq!(gate(r#"{"open": 1}"#), ["gate: \"open\" stands alone, without braces"]);
    let expected = "gate.locked: expected a whole number from 0 to 4294967295, got true";
    assert_eq!(gate(r#"{"locked": true}"#), [expected]);
    let expected = "gate.guarded.widht: not a key here, did you mean \"width\"?";
    assert_eq!(gate(r#"{"guarded": {"width": 1, "depth": 1, "widht": 1}}"#), [expected]);
}

#[test]
fn null_is_never_a_value() {
    let expected = "gate: null says nothing, leave the key out to get its default";
    assert_eq!(faults(r#"{"name": "g", "beds": [], "gate": null}"#), [expected]);
}

#[test]
fn keys_of_maps_may_be_anything_but_stand_once() {
    let json = r#"{"name": "g", "beds": [], "owners": {"a b": 1, "b": 2, "a b": 3}}"#;
    assert_eq!(faults(json), ["owners: the key \"a b\" stands here more than once, keep one"]);
}

#[test]
fn a_list_does_not_stand_for_an_object() {
    let json = r#"{"name": "g", "beds": [[1, 2]]}"#;
    assert_eq!(faults(json), ["beds[0]: expected an object, got a list"]);
}
