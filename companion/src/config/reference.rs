//! The reference of all keys, `companion/CONFIG.md`, made from the types.

use std::fmt::Write as _;

use serde_json::Value;

use super::schema::{Key, keys};

/// Markdown, one table for each section.
pub fn reference() -> String {
    let mut text = String::from(
        "# The companion's configuration\n\n\
         Made by `meshgate config reference` from the types in `companion/src/config.rs`.\n\n\
         `meshgate serve --config FILE` reads one TOML file. Every key can be overridden by an \
         environment variable (lists with commas), and that by a flag: `--set KEY=VALUE`, or one of \
         the short ones of `meshgate serve --help`. Unknown keys are errors. Relative paths in the \
         file count from its folder. SIGHUP reads file, environment and all files that it names \
         again; keys marked *live* then take effect, a change of any other is logged and waits for \
         a restart. If anything is wrong, what was in force stays in force.\n",
    );
    let mut section = None;
    for key in keys() {
        let (name, _) = key.section_and_name();
        if section != Some(name) {
            let title = if name.is_empty() { "(top)".to_owned() } else { format!("[{name}]") };
            let _ = write!(
                text,
                "\n## `{title}`\n\n| key | value | default | reload | |\n|---|---|---|---|---|\n"
            );
            section = Some(name);
        }
        row(&mut text, key);
    }
    text
}

fn row(text: &mut String, key: &Key) {
    let (_, name) = key.section_and_name();
    let default = match &key.default {
        None => String::new(),
        Some(Value::Array(items)) if items.is_empty() => "`[]`".into(),
        Some(value) => format!("`{value}`"),
    };
    let reload = if key.reload { "live" } else { "restart" };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "| `{name}`<br>`{}` | {} | {default} | {reload} | {} |",
        key.variable(),
        key.expected(),
        key.text
    );
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_checked_in_reference_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CONFIG.md");
        if std::env::var_os("MESHGATE_REGENERATE").is_some() {
            fs::write(&path, reference()).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == reference(),
            "CONFIG.md is out of date: MESHGATE_REGENERATE=1 cargo test -p meshgate-companion reference"
        );
    }
}
