//! The private-protocol game over a real connection, byte by byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use meshgate_game::demo::v1::{
    EchoReply, EnterReply, EnterRequest, FailRequest, LookReply, SayRequest, SlowRequest,
};
use meshgate_game::private::{Flags, HEADER, Header, Server, command};
use prost::Message;

struct Running {
    client: TcpStream,
    stop: Arc<AtomicBool>,
    serving: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    fn start() -> Self {
        let server = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = TcpStream::connect(server.address()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let serving = std::thread::spawn({
            let stop = stop.clone();
            move || server.run(&stop)
        });
        Self { client, stop, serving: Some(serving) }
    }

    fn send(&mut self, flags: u8, command: u32, sequence: u32, body: &[u8]) {
        let mut frame = Vec::new();
        Header { flags, length: 0, command, sequence, status: 0 }.write(body, &mut frame);
        self.client.write_all(&frame).unwrap();
    }

    fn receive(&mut self) -> (Header, Vec<u8>) {
        let mut header = [0; HEADER];
        self.client.read_exact(&mut header).unwrap();
        let header = Header::parse(&header).unwrap().unwrap();
        let mut body = vec![0; header.length - HEADER];
        self.client.read_exact(&mut body).unwrap();
        (header, body)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let served = self.serving.take().unwrap().join().unwrap();
        served.unwrap();
    }
}

#[test]
fn echoes_come_back_with_the_reply_bit() {
    let mut game = Running::start();
    game.send(0, command::ECHO_BYTES, 7, b"any bytes");
    let (header, body) = game.receive();
    assert_eq!((header.flags, header.command, header.sequence), (Flags::REPLY, 1101, 7));
    assert_eq!(body, b"any bytes");
}

#[test]
fn frames_may_arrive_in_pieces_and_in_heaps() {
    let mut game = Running::start();
    game.client.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    for sequence in 0..3 {
        let header = Header { flags: 0, length: 0, command: command::ECHO, sequence, status: 0 };
        header.write(&vec![b'x'; 10_000], &mut bytes);
    }
    for piece in bytes.chunks(777) {
        game.client.write_all(piece).unwrap();
    }
    for sequence in 0..3 {
        let (header, body) = game.receive();
        assert_eq!((header.sequence, body.len()), (sequence, 10_000));
    }
}

#[test]
fn a_slow_answer_does_not_hold_up_the_next() {
    let mut game = Running::start();
    let slow = SlowRequest { millis: 50, body: "late".into() }.encode_to_vec();
    game.send(0, command::SLOW, 1, &slow);
    game.send(0, command::ECHO, 2, b"");
    assert_eq!(game.receive().0.sequence, 2);
    let (header, body) = game.receive();
    assert_eq!(header.sequence, 1);
    assert_eq!(EchoReply::decode(&*body).unwrap().body, b"late");
}

#[test]
fn errors_carry_status_and_text() {
    let mut game = Running::start();
    let fail = FailRequest { code: 9, message: "not now".into() }.encode_to_vec();
    game.send(0, command::FAIL, 1, &fail);
    game.send(0, 4_000_000, 2, b"");
    let (header, body) = game.receive();
    assert_eq!((header.flags, header.status), (Flags::REPLY | Flags::ERROR, 9));
    assert_eq!(body, b"not now");
    let (header, body) = game.receive();
    assert_eq!((header.status, body.as_slice()), (12, b"no command 4000000".as_slice()));
}

#[test]
fn a_one_way_frame_is_obeyed_and_not_answered() {
    let mut game = Running::start();
    game.send(0, command::LOGIN, 1, b"");
    game.send(0, command::HALL_ENTER, 2, &EnterRequest { name: "ada".into() }.encode_to_vec());
    assert_eq!(game.receive().0.sequence, 1);
    let player_id =
        EnterReply::decode(&*game.receive().1).unwrap().player.map(|player| player.id).unwrap();
    let say = SayRequest { player_id, text: "hello".into() }.encode_to_vec();
    game.send(Flags::ONE_WAY, command::HALL_SAY, 3, &say);
    game.send(0, command::HALL_LOOK, 4, b"");
    let (header, body) = game.receive();
    assert_eq!(header.sequence, 4);
    assert_eq!(LookReply::decode(&*body).unwrap().lines[0].text, "hello");
}

#[test]
fn bytes_that_are_no_frame_end_the_connection() {
    let mut game = Running::start();
    game.client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    // A reset is as good an end as a FIN.
    let _ = game.client.read_to_end(&mut rest);
    assert!(rest.is_empty());
}
