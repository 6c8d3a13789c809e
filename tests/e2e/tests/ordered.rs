//! A layout without sequence numbers, `envoy-config/layouts/device.json`: replies in the order of
//! the requests, and checksums that are held against.

use std::time::Duration;

use anyhow::{Context, Result};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::process::root;
use meshgate_e2e::{Envoy, GameServer};
use meshgate_game::demo::v1::{EchoReply, EchoRequest, SlowRequest};
use prost::Message;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

const ECHO: u8 = 10;
const SLOW: u8 = 11;
const GOODBYE: u8 = 12;
const UNKNOWN: u8 = 99;

fn envoy(game: &GameServer) -> Result<Envoy> {
    let layout = std::fs::read_to_string(root().join("envoy-config/layouts/device.json"))?;
    let configuration = json!({
        "layout": serde_json::from_str::<Value>(&layout)?,
        "session": {"mode": "none", "goodbye": {"command": GOODBYE}},
        "upstream": {"authority": "game"},
        "commands": [
            {"command": ECHO, "method": "/demo.v1.Echo/Echo"},
            {"command": SLOW, "method": "/demo.v1.Echo/Slow", "deadline": "1s"},
        ],
    });
    let backends = Backends { game: Some(game.address), ..Backends::default() };
    Envoy::direct_with(&configuration, backends, &[])
}

/// A device's end of a connection.
struct Device(TcpStream);

#[derive(Debug, PartialEq)]
struct Reply {
    command: u8,
    status: u8,
    body: Vec<u8>,
}

impl Device {
    async fn connect(envoy: &Envoy) -> Result<Self> {
        Ok(Self(TcpStream::connect(envoy.private()?).await?))
    }

    async fn send(&mut self, command: u8, body: &[u8]) -> Result<()> {
        Ok(self.0.write_all(&request(command, body)).await?)
    }

    /// The next reply; `None` when the connection ended.
    async fn receive(&mut self) -> Result<Option<Reply>> {
        let mut start = [0; 7];
        let read = tokio::time::timeout(PATIENCE, self.0.read_exact(&mut start)).await?;
        if read.is_err() {
            return Ok(None);
        }
        assert_eq!(start[..4], *b"DEV\0");
        let length = usize::from(u16::from_be_bytes([start[5], start[6]])) + 4;
        let mut rest = vec![0; length - start.len()];
        self.0.read_exact(&mut rest).await?;
        let serial = if rest[0] == GOODBYE { [0; 6] } else { *b"serial" };
        assert_eq!(rest[3..9], serial, "a reply echoes it");
        Ok(Some(Reply { command: rest[0], status: rest[1], body: rest[13..rest.len() - 5].into() }))
    }
}

/// start 4, header length 1, length 2, command, status, flags, serial 6, Adler-32; body; CRC-32
/// (little-endian) from the header's length on, end mark.
fn request(command: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = b"DEV\0".to_vec();
    frame.push(20 - 4);
    let length = 20 + body.len() + 5;
    frame.extend(u16::try_from(length - 4).expect("a short body").to_be_bytes());
    frame.extend([command, 0, 0]);
    frame.extend(b"serial");
    let mut summed = frame.clone();
    summed.extend([0; 4]);
    frame.extend(adler32(&summed).to_be_bytes());
    frame.extend(body);
    frame.extend(crc32(&frame[4..]).to_le_bytes());
    frame.push(3);
    frame
}

fn adler32(bytes: &[u8]) -> u32 {
    let (mut a, mut b) = (1, 0);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    b << 16 | a
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

fn echo(body: &[u8]) -> Vec<u8> {
    EchoRequest { body: body.to_vec() }.encode_to_vec()
}

fn slow(millis: u32, body: &[u8]) -> Vec<u8> {
    SlowRequest { millis, body: body.to_vec() }.encode_to_vec()
}

fn answer(command: u8, body: &[u8]) -> Reply {
    Reply { command, status: 0, body: EchoReply { body: body.to_vec() }.encode_to_vec() }
}

fn error(command: u8, status: u8) -> Reply {
    Reply { command, status, body: Vec::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_leave_in_the_order_of_the_requests() -> Result<()> {
    let game = GameServer::start()?;
    let envoy = envoy(&game)?;
    let mut device = Device::connect(&envoy).await?;
    device.send(SLOW, &slow(300, b"first")).await?;
    device.send(ECHO, &echo(b"second")).await?;
    device.send(UNKNOWN, b"").await?;
    device.send(SLOW, &slow(60_000, b"never")).await?;
    device.send(ECHO, &echo(b"last")).await?;
    let mut replies = Vec::new();
    for _ in 0..5 {
        replies.push(device.receive().await?.context("closed")?);
    }
    let expected = [
        answer(SLOW, b"first"),
        answer(ECHO, b"second"),
        error(UNKNOWN, 12),
        error(SLOW, 4),
        answer(ECHO, b"last"),
    ];
    assert_eq!(replies, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_checksum_gets_a_goodbye_and_a_neighbour_notices_nothing() -> Result<()> {
    let game = GameServer::start()?;
    let mut envoy = envoy(&game)?;
    let mut neighbour = Device::connect(&envoy).await?;
    // In the header, and behind the body.
    for at in [16, 30] {
        let mut device = Device::connect(&envoy).await?;
        let mut bytes = request(ECHO, &echo(b"hello world"));
        bytes[at] ^= 1;
        device.0.write_all(&bytes).await?;
        let goodbye = device.receive().await?.context("closed without a goodbye")?;
        assert_eq!((goodbye.command, goodbye.status), (GOODBYE, 3));
        let said = String::from_utf8_lossy(&goodbye.body).into_owned();
        assert!(said.contains("the bytes give"), "{said}");
        assert_eq!(device.receive().await?, None, "then it closes");
        neighbour.send(ECHO, &echo(b"well")).await?;
        assert_eq!(neighbour.receive().await?, Some(answer(ECHO, b"well")));
    }
    envoy.wait_stat("wasmcustom.meshgate.peer_errors_total.kind.bad_checksum", 2)
}
