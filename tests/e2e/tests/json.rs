//! JSON over HTTP in, private frames out: what `curl` would say.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use meshgate_e2e::envoy::Backends;
use meshgate_e2e::process::PATIENCE;
use meshgate_e2e::{Envoy, PrivateServer};
use serde_json::{Value, json};

struct Scene {
    _envoy: Envoy,
    _server: PrivateServer,
    web: SocketAddr,
}

impl Scene {
    fn start() -> Result<Self> {
        let server = PrivateServer::start()?;
        let port = format!("port_value: {}", server.address.port());
        let edits = [("port_value: 7800", port.as_str())];
        let envoy = Envoy::start("json-to-private.yaml", Backends::default(), &edits)?;
        let web = envoy.listener("web")?;
        Ok(Self { _envoy: envoy, _server: server, web })
    }

    /// `curl -d BODY http://…/METHOD`: the HTTP status and the answer.
    fn post(&self, method: &str, body: &str) -> Result<(u16, Value)> {
        let mut stream = TcpStream::connect(self.web)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // In one piece: what Envoy refuses by its head alone, it answers and closes, and a body that
        // came after that would be answered by a reset.
        let request = format!(
            "POST /{method} HTTP/1.1\r\nHost: game\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, rest) = response.split_once("\r\n\r\n").context("no HTTP response")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        // The object, whether the body is chunked or not; nothing if there is none.
        let (first, last) = (rest.find('{'), rest.rfind('}'));
        let object = first.zip(last).and_then(|(first, last)| rest.get(first..=last));
        Ok((status, object.map_or(Ok(Value::Null), serde_json::from_str)?))
    }
}

#[test]
fn a_game_is_played_with_json() -> Result<()> {
    let scene = Scene::start()?;
    let (status, entered) = scene.post("demo.v1.Hall/Enter", r#"{"name": "ann"}"#)?;
    assert_eq!((status, &entered["player"]["name"]), (200, &json!("ann")), "{entered}");
    let id = &entered["player"]["id"];
    let walk = json!({"playerId": id, "dx": 2, "dy": -1}).to_string();
    let (status, moved) = scene.post("demo.v1.Hall/Move", &walk)?;
    assert_eq!(status, 200, "{moved}");
    let before = &entered["player"]["position"];
    assert_eq!(moved["position"]["x"].as_u64(), before["x"].as_u64().map(|x| x + 2));
    let say = json!({"playerId": id, "text": "hi from the web"}).to_string();
    assert_eq!(scene.post("demo.v1.Hall/Say", &say)?, (200, json!({})));
    let (_, look) = scene.post("demo.v1.Hall/Look", "{}")?;
    assert_eq!(look["lines"][0]["text"], "hi from the web");
    Ok(())
}

#[test]
fn the_servers_failures_are_http_failures_with_their_text() -> Result<()> {
    let scene = Scene::start()?;
    let fail = json!({"code": 5, "message": "no such player"}).to_string();
    let (status, answer) = scene.post("demo.v1.Echo/Fail", &fail)?;
    assert_eq!((status, &answer["message"]), (404, &json!("no such player")), "{answer}");
    // The transcoder knows the method, the private server does not.
    let (status, answer) = scene.post("demo.v1.Echo/Repeat", "{}")?;
    assert_eq!(status, 501, "{answer}");
    // The transcoder itself.
    assert_eq!(scene.post("demo.v1.Hall/Dance", "{}")?.0, 404);
    assert_eq!(scene.post("demo.v1.Hall/Enter", "{no json")?.0, 400);
    Ok(())
}

#[test]
fn a_deadline_is_a_gateway_timeout() -> Result<()> {
    let scene = Scene::start()?;
    let slow = json!({"millis": 30_000, "body": ""}).to_string();
    let (status, answer) = scene.post("demo.v1.Echo/Slow", &slow)?;
    assert_eq!(status, 504, "{answer}");
    Ok(())
}
