//! The examples are valid, for the filter and for an editor with the schema.

use std::fs;
use std::path::{Path, PathBuf};

use meshgate_filter::config::Config;
use meshgate_filter::config::schema::schema;
use serde_json::{Value, json};

use crate::validator::problems;

/// The files of a folder under `envoy-config`, by extension.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = crate::root().join("envoy-config").join(folder);
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

fn check(path: &Path, text: &str) -> Config {
    let document: Value = serde_json::from_str(text).unwrap();
    assert_eq!(problems(&schema(), &document), [""; 0], "{} and the schema", path.display());
    match Config::check(text.as_bytes()) {
        Ok(config) => config,
        Err(errors) => panic!("{}: {errors:#?}", path.display()),
    }
}

#[test]
fn every_example_is_valid() {
    let files = files("filter", "json");
    let names: Vec<&str> =
        files.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["big-table", "egress", "noise", "plain", "relay", "ticket"]);
    for path in &files {
        check(path, &fs::read_to_string(path).unwrap());
    }
}

#[test]
fn the_big_table_is_big_and_its_document_small() {
    let path = crate::root().join("envoy-config/filter/big-table.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.len() < 256 * 1024, "{} bytes", text.len());
    assert!(check(&path, &text).routes.len() >= 5_000);
}

#[test]
fn every_bootstraps_configuration_is_valid() {
    let mut found = 0;
    for path in files("", "yaml") {
        let text = fs::read_to_string(&path).unwrap();
        for block in literal_blocks(&text) {
            if block.trim_start().starts_with('{') {
                check(&path, &block);
                found += 1;
            }
        }
    }
    assert!(found >= 4, "only {found} configurations were found");
}

/// The literal blocks (`value: |`) of a YAML file, with their indentation.
fn literal_blocks(text: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.ends_with("value: |") {
            continue;
        }
        let outer = indent(line);
        let mut block = String::new();
        while let Some(line) = lines.next_if(|l| l.trim().is_empty() || indent(l) > outer) {
            block.push_str(line);
            block.push('\n');
        }
        blocks.push(block);
    }
    blocks
}

#[test]
fn every_shipped_layout_fits_into_a_configuration() {
    let files = files("layouts", "json");
    assert!(files.len() >= 4);
    for path in files {
        let layout: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let command = layout["header"].as_array().unwrap().iter().find(|f| f["role"] == "command");
        let text = command.unwrap()["type"].is_object();
        let document = json!({
            "layout": layout,
            "session": { "mode": "none" },
            "upstream": { "authority": "hall:50051" },
            "commands": [{
                "command": if text { json!("enter") } else { json!(101) },
                "method": "/demo.v1.Hall/Enter"
            }]
        });
        assert_eq!(check(&path, &document.to_string()).routes.len(), 1);
    }
}
