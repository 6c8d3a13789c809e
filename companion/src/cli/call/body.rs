//! Bodies as people write and read them.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MethodDescriptor, SerializeOptions,
};

use super::Output;
use crate::cli::files;
use crate::domain::key::hex;

/// A request's body, and how its reply is to be read.
pub struct Body {
    pub request: Vec<u8>,
    pub method: Option<Method>,
}

/// A gRPC method: the types of its messages.
#[derive(Clone)]
pub struct Method(MethodDescriptor);

impl Method {
    /// `file` is a .proto file or an encoded `FileDescriptorSet`; `name` is
    /// `/package.Service/Method`.
    pub fn find(file: &Path, folders: &[PathBuf], name: &str) -> anyhow::Result<Self> {
        let pool = pool(file, folders)?;
        let (service, method) = name
            .strip_prefix('/')
            .unwrap_or(name)
            .split_once('/')
            .with_context(|| format!("`{name}` is no method: write /package.Service/Method"))?;
        let Some(service) = pool.get_service_by_name(service) else {
            let known: Vec<_> =
                pool.services().map(|service| service.full_name().to_owned()).collect();
            bail!("{} has no service {service}, only {}", file.display(), known.join(", "));
        };
        let found = service.methods().find(|known| known.name() == method);
        found.map(Self).with_context(|| {
            let known: Vec<_> = service.methods().map(|method| method.name().to_owned()).collect();
            format!("{} has no method {method}, only {}", service.full_name(), known.join(", "))
        })
    }

    /// The request message that `json` stands for (proto3's JSON mapping), encoded.
    pub fn request(&self, json: &str) -> anyhow::Result<Vec<u8>> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let options = DeserializeOptions::new().deny_unknown_fields(true);
        let message =
            DynamicMessage::deserialize_with_options(self.0.input(), &mut reader, &options)
                .with_context(|| format!("the JSON is no {}", self.0.input().full_name()))?;
        reader.end().context("after the JSON")?;
        Ok(message.encode_to_vec())
    }

    fn reply(&self, body: &[u8]) -> anyhow::Result<String> {
        let output = self.0.output();
        let name = output.full_name().to_owned();
        let message = DynamicMessage::decode(output, body)
            .with_context(|| format!("the reply is no {name}: {}", hex(body)))?;
        let mut json = Vec::new();
        let mut writer = serde_json::Serializer::pretty(&mut json);
        let options = SerializeOptions::new().skip_default_fields(false);
        message.serialize_with_options(&mut writer, &options)?;
        Ok(String::from_utf8(json)?)
    }
}

/// The message of this type that `json` stands for, encoded.
pub fn message(
    file: &Path,
    folders: &[PathBuf],
    name: &str,
    json: &str,
) -> anyhow::Result<Vec<u8>> {
    let found = pool(file, folders)?.get_message_by_name(name);
    let found = found.with_context(|| format!("{} has no message {name}", file.display()))?;
    let mut reader = serde_json::Deserializer::from_str(json);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let message = DynamicMessage::deserialize_with_options(found, &mut reader, &options)
        .with_context(|| format!("that is no {name}"))?;
    reader.end().context("after the message")?;
    Ok(message.encode_to_vec())
}

fn pool(file: &Path, folders: &[PathBuf]) -> anyhow::Result<DescriptorPool> {
    if file.extension().is_none_or(|extension| extension != "proto") {
        let set = files::read(file)?;
        return DescriptorPool::decode(set.as_slice())
            .with_context(|| format!("{} is no encoded FileDescriptorSet", file.display()));
    }
    let beside = file.parent().map(Path::to_owned).unwrap_or_default();
    let folders = if folders.is_empty() { vec![beside] } else { folders.to_vec() };
    let set = protox::compile([file], folders)
        .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    DescriptorPool::from_file_descriptor_set(set).context("the .proto file")
}

impl Body {
    pub fn print(&self, reply: &[u8], output: Output) -> anyhow::Result<()> {
        match (output, &self.method) {
            (Output::Raw, _) => std::io::stdout().write_all(reply)?,
            (Output::Hex, _) => println!("{}", hex(reply)),
            (Output::Text, _) => println!("{}", String::from_utf8_lossy(reply)),
            (Output::Auto | Output::Json, Some(method)) => println!("{}", method.reply(reply)?),
            (Output::Json, None) => bail!("--output json needs --proto"),
            (Output::Auto, None) if reply.is_empty() => {
                if std::io::stderr().is_terminal() {
                    eprintln!("(an empty reply)");
                }
            }
            (Output::Auto, None) => match printable(reply) {
                Some(text) => println!("{text}"),
                None => println!("{}", hex(reply)),
            },
        }
        Ok(())
    }
}

/// The bytes as text, if a terminal can show it.
pub fn printable(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let shows = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars().all(shows).then_some(text)
}

/// Digits in pairs; blanks between them are overlooked.
pub fn from_hex(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let (pairs, []) = digits.as_chunks() else {
        bail!("--hex needs an even number of digits");
    };
    pairs
        .iter()
        .map(|[high, low]| {
            let value =
                |digit: &char| digit.to_digit(16).and_then(|value| u8::try_from(value).ok());
            match (value(high), value(low)) {
                (Some(high), Some(low)) => Ok(high << 4 | low),
                _ => bail!("--hex: `{high}{low}` is not hexadecimal"),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_pairs_of_digits() {
        assert_eq!(from_hex("00 ff\n7A").unwrap(), [0, 255, 0x7a]);
        assert!(from_hex("").unwrap().is_empty());
        assert!(from_hex("0").is_err());
        assert!(from_hex("0g").is_err());
    }

    #[test]
    fn only_text_that_a_terminal_shows_is_printable() {
        assert_eq!(printable("grüß\n".as_bytes()), Some("grüß\n"));
        assert_eq!(printable(b"\x1b[2J"), None);
        assert_eq!(printable(&[0xff]), None);
    }

    #[test]
    fn json_becomes_a_message_and_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.proto");
        let text = "syntax = \"proto3\"; package a; message M { string name = 1; int32 n = 2; }
            service S { rpc Do(M) returns (M); }";
        std::fs::write(&file, text).unwrap();
        let method = Method::find(&file, &[], "/a.S/Do").unwrap();
        let bytes = method.request(r#"{"name": "x", "n": 3}"#).unwrap();
        assert_eq!(bytes, [0x0a, 1, b'x', 0x10, 3]);
        let json: serde_json::Value = serde_json::from_str(&method.reply(&bytes).unwrap()).unwrap();
        assert_eq!(json, serde_json::json!({"name": "x", "n": 3}));
        assert!(method.request(r#"{"nam": 1}"#).is_err());
        assert!(method.reply(&[0xff]).is_err());
        let complaint = |name| format!("{:#}", Method::find(&file, &[], name).err().unwrap());
        assert!(complaint("/a.T/Do").contains("only a.S"));
        assert!(complaint("/a.S/Dont").contains("only Do"));
        assert!(complaint("nonsense").contains("/package.Service/Method"));
    }
}
