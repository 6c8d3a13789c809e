//! The closed loop: so many calls are in flight, and each reply makes the next request.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use meshgate_game::reactor::{Close, Protocol, Reactor};

use crate::histogram::Histogram;
use crate::leg::{Done, Leg};

/// What waits for replies longer than this counts them as lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest that one turn waits.
const TURN: Duration = Duration::from_millis(20);

/// How calls are spread over connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// So many calls are in flight on each active connection.
    Each(usize),
    /// So many calls are in flight in all; each goes out on the connection whose turn it is.
    Around(usize),
}

/// Open connections that carry load.
pub struct Load {
    reactor: Reactor<Leg>,
    calls: Calls,
    active: Vec<usize>,
    spread: Spread,
    turn: usize,
}

/// What was seen between two moments.
#[derive(Clone)]
pub struct Seen {
    pub elapsed: Duration,
    pub latency: Histogram,
    /// Calls that failed or were lost, and connections that broke.
    pub errors: u64,
}

/// What a reply brings about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Nothing,
    /// A request on the same connection.
    Here,
    /// A request on the connection whose turn it is.
    Around,
}

struct Calls {
    base: Instant,
    latency: Histogram,
    errors: u64,
    done: Vec<Done>,
    next: Next,
    /// Replies whose next request is still to be made.
    credit: usize,
}

impl Load {
    /// Opens `active` connections that will carry calls, and `idle` ones that make one call each
    /// and then stay silent. `open` connects and says what is spoken.
    pub fn open(
        active: usize,
        idle: usize,
        spread: Spread,
        mut open: impl FnMut() -> io::Result<(TcpStream, Leg)>,
    ) -> anyhow::Result<Self> {
        let calls = Calls {
            base: Instant::now(),
            latency: Histogram::default(),
            errors: 0,
            done: Vec::new(),
            next: Next::Nothing,
            credit: 0,
        };
        let reactor = Reactor::new()?;
        let mut load = Self { reactor, calls, active: Vec::new(), spread, turn: 0 };
        let connections = active + idle;
        for number in 0..connections {
            let id = load.connect(&mut open)?;
            if number < active {
                load.active.push(id);
            }
            // One call on each, so that the whole way is open before anything is measured;
            // a batch at a time, so that no listen queue overflows.
            load.request(id);
            if number % 64 == 63 {
                load.settle()?;
            }
        }
        load.settle()?;
        let errors = load.calls.errors;
        anyhow::ensure!(errors == 0, "{errors} first calls of {connections} failed");
        Ok(load)
    }

    fn connect(
        &mut self,
        open: &mut impl FnMut() -> io::Result<(TcpStream, Leg)>,
    ) -> io::Result<usize> {
        let (mut stream, leg) = open()?;
        let mut opening = Vec::new();
        leg.open(&mut opening);
        stream.write_all(&opening)?;
        self.reactor.add(stream, leg)
    }

    /// Starts the calls; they go on by themselves in `run`.
    pub fn start(&mut self) {
        match self.spread {
            Spread::Each(in_flight) => {
                self.calls.next = Next::Here;
                for id in self.active.clone() {
                    (0..in_flight).for_each(|_| self.request(id));
                }
            }
            Spread::Around(in_flight) => {
                self.calls.next = Next::Around;
                (0..in_flight).for_each(|_| self.request_around());
            }
        }
    }

    /// Runs for `duration`; what was seen in it.
    pub fn run(&mut self, duration: Duration) -> io::Result<Seen> {
        self.calls.latency = Histogram::default();
        self.calls.errors = 0;
        let began = Instant::now();
        while began.elapsed() < duration {
            self.turn()?;
        }
        let (latency, errors) = (std::mem::take(&mut self.calls.latency), self.calls.errors);
        Ok(Seen { elapsed: began.elapsed(), latency, errors })
    }

    /// Makes no more requests and waits for the last replies; how many never came.
    pub fn finish(mut self) -> io::Result<u64> {
        self.calls.next = Next::Nothing;
        self.calls.errors = 0;
        self.settle()?;
        Ok(self.calls.errors)
    }

    /// Waits until nothing is in flight.
    fn settle(&mut self) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let in_flight: usize = self.reactor.connections().map(Leg::in_flight).sum();
            if in_flight == 0 {
                return Ok(());
            }
            if Instant::now() > until {
                self.calls.errors += in_flight as u64;
                return Ok(());
            }
            self.turn()?;
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        self.reactor.turn(&mut self.calls, Some(TURN))?;
        for _ in 0..std::mem::take(&mut self.calls.credit) {
            self.request_around();
        }
        Ok(())
    }

    fn request_around(&mut self) {
        self.turn = (self.turn + 1) % self.active.len();
        self.request(self.active[self.turn]);
    }

    fn request(&mut self, id: usize) {
        let now = self.calls.now();
        self.reactor.send(&mut self.calls, id, |_, leg, output| leg.request(now, output));
    }
}

impl Calls {
    fn now(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }
}

impl Protocol for Calls {
    type Connection = Leg;

    fn accepted(&mut self, _id: usize) -> Leg {
        unreachable!("a generator listens nowhere")
    }

    fn receive(
        &mut self,
        _id: usize,
        leg: &mut Leg,
        input: &[u8],
        output: &mut Vec<u8>,
    ) -> Result<usize, Close> {
        // One look at the clock for all that came with one read.
        let now = self.now();
        let taken = leg.receive(input, output, &mut self.done)?;
        for done in self.done.drain(..) {
            self.latency.record(now.saturating_sub(done.started));
            self.errors += u64::from(!done.good);
            match self.next {
                Next::Nothing => {}
                Next::Here => leg.request(now, output),
                Next::Around => self.credit += 1,
            }
        }
        Ok(taken)
    }

    fn closed(&mut self, _id: usize, leg: Leg) {
        self.errors += 1 + leg.in_flight() as u64;
    }
}

/// Connects without delay of small segments.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
