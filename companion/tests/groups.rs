//! Groups, by the service's calls and by the tool.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use meshgate_companion::domain::group::GroupLimits;
use meshgate_companion::domain::key::hex;
use meshgate_proto::app::v1::push_request::{Command, Target};
use meshgate_proto::app::v1::{
    GetSessionRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, ListMembersRequest,
    PushRequest, Session,
};
use meshgate_proto::edge::v1::{Mode, Push};
use tonic::{Code, Status};

use support::process::{Process, issue, keys, meshgate, ok};
use support::redis::RedisServer;
use support::{Proxy, Server, soon};

fn push(group: &str, body: &[u8]) -> PushRequest {
    PushRequest {
        target: Some(Target::Group(group.into())),
        command: Some(Command::Number(1206)),
        body: body.to_vec(),
        ..PushRequest::default()
    }
}

impl Server {
    async fn live(&self, proxy: &mut Proxy, user: &str) -> Vec<u8> {
        // So that the order of ids is that of logins.
        self.clock.advance(Duration::from_millis(1));
        let ticket = self.keys.ticket(user, |_| ());
        proxy.login(Mode::Ticket, ticket).await.unwrap().session_id
    }

    async fn join(&self, group: &str, session: &[u8]) -> Result<bool, Code> {
        let request = JoinGroupRequest { group: group.into(), session_id: session.to_vec() };
        let joined = soon(self.app().await.join_group(request)).await;
        joined.map(|answer| answer.into_inner().joined).map_err(|status| status.code())
    }

    async fn members(&self, group: &str) -> Vec<Vec<u8>> {
        let (mut all, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListMembersRequest { group: group.into(), page_size: 2, page_token };
            let page = soon(self.app().await.list_members(request)).await.unwrap().into_inner();
            all.extend(page.session_ids);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }
}

#[tokio::test]
async fn a_push_to_a_group_is_one_message_for_each_worker_with_its_members() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.proxy("one").await, server.proxy("two").await);
    let mut outside = server.proxy("three").await;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for number in 0..25 {
        here.push(server.live(&mut one, &format!("a{number}")).await);
        there.push(server.live(&mut two, &format!("b{number}")).await);
    }
    server.live(&mut outside, "eve").await;
    for session in here.iter().chain(&there) {
        assert_eq!(server.join("room", session).await, Ok(true));
    }
    let answering = async |proxy: &mut Proxy| {
        let push = proxy.push().await;
        proxy.delivered(&push).await;
        push.sessions
    };
    let mut app = server.app().await;
    let (answer, first, second) =
        tokio::join!(soon(app.push(push("room", b"x"))), answering(&mut one), answering(&mut two));
    assert_eq!(answer.unwrap().into_inner().delivered, 50);
    assert_eq!((first, second), (here.concat(), there.concat()));
    for proxy in [&mut one, &mut two, &mut outside] {
        proxy.heard_nothing().await;
    }
}

#[tokio::test]
async fn a_session_is_a_member_until_it_leaves_or_ends() {
    let server = Server::start().await;
    let mut proxy = server.proxy("one").await;
    let (ada, bob) = (server.live(&mut proxy, "ada").await, server.live(&mut proxy, "bob").await);
    assert_eq!(server.join("room", &ada).await, Ok(true));
    assert_eq!(server.join("room", &ada).await, Ok(false));
    assert_eq!(server.join("hall", &ada).await, Ok(true));
    assert_eq!(server.join("room", &bob).await, Ok(true));
    assert_eq!(server.join("room", &[7; 16]).await, Err(Code::NotFound));
    assert_eq!(server.join("", &ada).await, Err(Code::InvalidArgument));
    assert_eq!(server.members("room").await, [ada.clone(), bob.clone()]);
    let mut app = server.app().await;
    let request = ListGroupsRequest { session_id: ada.clone() };
    let groups = soon(app.list_groups(request)).await.unwrap().into_inner().groups;
    assert_eq!(groups, ["hall", "room"]);
    let leave = LeaveGroupRequest { group: "room".into(), session_id: bob.clone() };
    assert!(soon(app.leave_group(leave.clone())).await.unwrap().into_inner().left);
    assert!(!soon(app.leave_group(leave)).await.unwrap().into_inner().left);
    assert_eq!(server.members("room").await, std::slice::from_ref(&ada));
    // Away, it is a member still.
    proxy.ended(&ada).await;
    soon(async {
        let request = || GetSessionRequest { session_id: ada.clone() };
        let away = |session: Session| session.away_until_ms > 0;
        while !away(server.app().await.get_session(request()).await.unwrap().into_inner()) {}
    })
    .await;
    assert_eq!(server.members("room").await, std::slice::from_ref(&ada));
    let answer = soon(app.push(push("room", b"x"))).await.unwrap().into_inner();
    assert_eq!((answer.away, answer.delivered), (1, 0));
    server.clock.advance(Duration::from_secs(60));
    soon(async { while !server.members("room").await.is_empty() {} }).await;
    let answer = soon(app.push(push("room", b"x"))).await.unwrap().into_inner();
    assert_eq!(answer, Default::default());
}

#[tokio::test]
async fn a_full_group_and_a_busy_session_are_told_which_key_says_so() {
    let server = Server::start().await;
    server.sessions.set_group_limits(GroupLimits { members: 1, of_session: 2 });
    let mut proxy = server.proxy("one").await;
    let (ada, bob) = (server.live(&mut proxy, "ada").await, server.live(&mut proxy, "bob").await);
    for group in ["a", "b"] {
        assert_eq!(server.join(group, &ada).await, Ok(true));
    }
    let complaint = async |group: &str, session: &[u8]| -> Status {
        let request = JoinGroupRequest { group: group.into(), session_id: session.to_vec() };
        soon(server.app().await.join_group(request)).await.unwrap_err()
    };
    let full = complaint("a", &bob).await;
    assert!(full.code() == Code::ResourceExhausted && full.message().contains("app.group_members"));
    let many = complaint("c", &ada).await;
    assert!(many.message().contains("app.session_groups"), "{many}");
}

#[tokio::test]
async fn members_of_two_companions_hear_a_groups_pushes_in_one_order() {
    const PUSHES: usize = 100;
    let Some(redis) = RedisServer::start(&[]) else { return };
    let folder = keys();
    let port = format!("store.redis.port={}", redis.port);
    let start = || {
        let args = ["--set", "store.kind=redis", "--set", &port, "--app-listen", "127.0.0.1:0"];
        Process::start(folder.path(), &args)
    };
    let (one, two) = (start(), start());
    let login = async |process: &Process, name: &str| {
        let mut proxy = Proxy::attach(&process.url(), name, vec![]).await;
        let ticket = issue(folder.path(), "hmac.json", name);
        let id = proxy.login(Mode::Ticket, ticket).await.unwrap().session_id;
        let args = ["group", "join", "room", &hex(&id), "--server", &two.app];
        assert_eq!(ok(meshgate(folder.path(), &args)).trim(), "joined");
        (proxy, id)
    };
    let ((mut here, ada), (mut there, bob)) = (login(&one, "ada").await, login(&two, "bob").await);
    let args = ["group", "members", "room", "--json", "--server", &one.app];
    let members: Vec<String> = serde_json::from_str(&ok(meshgate(folder.path(), &args))).unwrap();
    assert_eq!(members.len(), 2);

    // Both companions take pushes at the same time.
    let pushing = async |process: &Process, name: u8| {
        let address = format!("http://{}", process.app);
        let channel = tonic::transport::Channel::from_shared(address).unwrap();
        let channel = channel.connect().await.unwrap();
        let mut app = meshgate_proto::app::v1::app_client::AppClient::new(channel);
        let requests: Vec<_> = (0..PUSHES).map(|n| push("room", &[name, n as u8])).collect();
        let answers = soon(app.push_stream(tokio_stream::iter(requests))).await;
        let mut answers = answers.unwrap().into_inner();
        for _ in 0..PUSHES {
            let answer = soon(answers.message()).await.unwrap().unwrap();
            assert_eq!((answer.delivered, answer.unconfirmed, answer.away), (2, 0, 0));
        }
    };
    let hearing = async |proxy: &mut Proxy, id: &[u8]| {
        let mut heard = Vec::new();
        for _ in 0..2 * PUSHES {
            let push: Push = proxy.push().await;
            assert_eq!(push.sessions, id);
            proxy.delivered(&push).await;
            heard.push(push.body);
        }
        heard
    };
    let ((), (), ada_heard, bob_heard) = tokio::join!(
        pushing(&one, 1),
        pushing(&two, 2),
        hearing(&mut here, &ada),
        hearing(&mut there, &bob)
    );
    assert_eq!(ada_heard, bob_heard);
    for name in [1, 2] {
        let own: Vec<_> = ada_heard.iter().filter(|body| body[0] == name).collect();
        assert!(own.len() == PUSHES && own.is_sorted());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_at_one_companion_reaches_the_session_at_the_other() {
    let Some(redis) = RedisServer::start(&[]) else { return };
    let folder = keys();
    let port = format!("store.redis.port={}", redis.port);
    let start = || {
        let args = ["--set", "store.kind=redis", "--set", &port, "--app-listen", "127.0.0.1:0"];
        Process::start(folder.path(), &args)
    };
    let (one, two) = (start(), start());
    let mut proxy = Proxy::attach(&one.url(), "p", vec![]).await;
    let ticket = issue(folder.path(), "hmac.json", "ada");
    let id = proxy.login(Mode::Ticket, ticket).await.unwrap().session_id;
    let answering = tokio::spawn(async move {
        for _ in 0..2 {
            let push = proxy.push().await;
            assert_eq!((push.sessions.as_slice(), push.body.as_slice()), (&id[..], &b"hi"[..]));
            proxy.delivered(&push).await;
        }
        (proxy, id)
    });
    let run = |args: &[&str]| {
        let base = ["push", "--command", "1206", "--text", "hi", "--server", &two.app];
        meshgate(folder.path(), &[&base[..], args].concat())
    };
    let list = ["session", "list", "--json", "--server", &two.admin];
    let list: serde_json::Value =
        serde_json::from_str(&ok(meshgate(folder.path(), &list))).unwrap();
    let id = list[0]["session"].as_str().unwrap();
    assert_eq!(ok(run(&["--session", id])).trim(), "1 delivered");
    assert_eq!(ok(run(&["--user", "ada"])).trim(), "1 delivered");
    let (proxy, _) = soon(answering).await.unwrap();
    // Nobody holds it any more: both companions say so.
    drop(proxy);
    support::soon(async {
        loop {
            let output = run(&["--session", id]);
            if String::from_utf8_lossy(&output.stdout).trim() == "1 away" {
                assert_eq!(output.status.code(), Some(1));
                break;
            }
        }
    })
    .await;
}
