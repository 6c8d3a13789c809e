//! A filter and a companion one version apart understand each other: whatever the recorded older
//! contract can say still means the same. `tests/recorded` holds the contracts of the version
//! before; it moves on with each release.

use std::path::Path;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

const CONTRACTS: [&str; 3] = [
    "meshgate/edge/v1/edge.proto",
    "meshgate/admin/v1/admin.proto",
    "meshgate/session/v1/session.proto",
];

fn compile(folder: &str) -> FileDescriptorSet {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let set = protox::compile(CONTRACTS, [root]).expect("the contracts compile");
    FileDescriptorSet::decode(&set.encode_to_vec()[..]).expect("a descriptor set")
}

/// Says of everything in `old` that is not in `new`, or is something else there.
fn broken(old: &FileDescriptorSet, new: &FileDescriptorSet) -> Vec<String> {
    let mut problems = Vec::new();
    for old_file in &old.file {
        let package = old_file.package();
        let Some(new_file) = new.file.iter().find(|file| file.package() == package) else {
            problems.push(format!("{package} is gone"));
            continue;
        };
        messages(package, &old_file.message_type, &new_file.message_type, &mut problems);
        enums(package, &old_file.enum_type, &new_file.enum_type, &mut problems);
        for service in &old_file.service {
            for method in &service.method {
                let found = new_file.service.iter().find(|found| found.name == service.name);
                let same = found.and_then(|found| found.method.iter().find(|now| *now == method));
                if same.is_none() {
                    problems.push(format!(
                        "{package}.{}/{} changed",
                        service.name(),
                        method.name()
                    ));
                }
            }
        }
    }
    problems
}

fn messages(
    within: &str,
    old: &[DescriptorProto],
    new: &[DescriptorProto],
    problems: &mut Vec<String>,
) {
    for old in old {
        let path = format!("{within}.{}", old.name());
        let Some(new) = new.iter().find(|new| new.name == old.name) else {
            problems.push(format!("{path} is gone"));
            continue;
        };
        for field in &old.field {
            // What goes over the wire: the number, the type, and how often. A field's name is
            // only for people.
            let means = |field: &prost_types::FieldDescriptorProto| {
                let (kind, label): (Type, Label) = (field.r#type(), field.label());
                (kind, label, field.type_name.clone(), field.oneof_index.is_some())
            };
            let now = new.field.iter().find(|now| now.number == field.number);
            match now {
                Some(now) if means(now) == means(field) => {}
                Some(_) => problems.push(format!("{path}.{} became another type", field.name())),
                None => problems.push(format!("{path}.{} is gone", field.name())),
            }
        }
        messages(&path, &old.nested_type, &new.nested_type, problems);
        enums(&path, &old.enum_type, &new.enum_type, problems);
    }
}

fn enums(
    within: &str,
    old: &[EnumDescriptorProto],
    new: &[EnumDescriptorProto],
    problems: &mut Vec<String>,
) {
    for old in old {
        let Some(new) = new.iter().find(|new| new.name == old.name) else {
            problems.push(format!("{within}.{} is gone", old.name()));
            continue;
        };
        for value in &old.value {
            if !new.value.iter().any(|now| now.number == value.number && now.name == value.name) {
                problems.push(format!("{within}.{}: {} changed", old.name(), value.name()));
            }
        }
    }
}

#[test]
fn what_the_version_before_says_still_means_the_same() {
    let problems = broken(&compile("tests/recorded"), &compile("."));
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_change_that_an_older_peer_would_misread_is_found() {
    let old = compile("tests/recorded");
    let mut new = compile(".");
    let edge = new.file.iter_mut().find(|file| file.package() == "meshgate.edge.v1").unwrap();
    let kick = edge.message_type.iter_mut().find(|message| message.name() == "Kick").unwrap();
    kick.field.retain(|field| field.name() != "reason");
    kick.field.iter_mut().find(|field| field.name() == "code").unwrap().set_type(Type::String);
    let refusal = edge.enum_type.iter_mut().find(|found| found.name() == "Refusal").unwrap();
    refusal.value.retain(|value| value.name() != "REFUSAL_EXPIRED");

    let problems = broken(&old, &new);

    assert_eq!(
        problems,
        [
            "meshgate.edge.v1.Kick.reason is gone",
            "meshgate.edge.v1.Kick.code became another type",
            "meshgate.edge.v1.Refusal: REFUSAL_EXPIRED changed",
        ]
    );
}
