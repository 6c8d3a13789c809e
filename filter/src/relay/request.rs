//! From a client's request to the server's.

use crate::bridge::Terms;
use crate::call::{Code, Kind, Status};
use crate::initiator::Who;
use crate::protocol::layout::{EncodeError, FieldValue, Frame, Given, Onward, Request};
use crate::route::Route;
use crate::session::Pass;

use super::{Relay, config, is_verbatim};

/// A request that will not be forwarded: what the client is told, and the word for metrics.
type Refused = (Status, &'static str);

/// A request that may pass.
#[derive(Clone, Copy)]
pub struct Passing<'a> {
    pub terms: &'a Terms,
    pub route: &'a Route,
    /// Its body opened, if it was sealed.
    pub frame: &'a Frame<'a>,
    /// The body decompressed.
    pub plain: &'a [u8],
    /// The client's address and port.
    pub peer: &'a str,
}

impl Relay {
    /// Sends a request to the server: the sequence by which its reply is told, if there is to be one.
    /// It takes a [`Pass`] to get here.
    pub fn ask(
        &mut self,
        pass: Pass<'_>,
        token: u32,
        passing: Passing<'_>,
    ) -> Result<Option<u64>, Refused> {
        let Passing { terms, route, frame, peer, .. } = passing;
        if is_verbatim(terms) && is_server_login(terms, frame) {
            let text = format!("unknown command {}", frame.command);
            return Err((Status::new(Code::Unimplemented, text), "unknown_command"));
        }
        self.stamps.refresh(terms, pass.identity(), peer).map_err(|error| {
            log::warn!("meshgate: the server cannot be told who a client is: {error}");
            let text = "the server cannot be told who you are";
            (Status::new(Code::FailedPrecondition, text), "identity_unfit")
        })?;
        let one_way = route.kind == Kind::OneWay || frame.flags.one_way();
        let answered = !one_way || terms.config.server_layout().answers_one_way();
        let command = route.command.as_ref().map_or(frame.command, |command| command.borrow());
        let sequence = answered.then(|| self.server.ask(Who::Call(token), command));
        let number = sequence.unwrap_or_default();
        let written = if is_verbatim(terms) {
            let onward = Onward {
                sequence: number,
                body: frame.body,
                one_way,
                stamps: self.stamps.stamps(),
            };
            terms.config.layout.encode_onward(frame, onward, None, self.server.requests())
        } else {
            self.translate(passing, number, one_way)
        };
        match written {
            Ok(()) => {
                self.server.asked();
                Ok(sequence)
            }
            Err(error) => {
                self.server.unask(number);
                let text = format!("the request does not fit into a frame of the server: {error}");
                Err((Status::new(Code::InvalidArgument, text), "request_not_encodable"))
            }
        }
    }

    /// Writes the request in the server's layout.
    fn translate(
        &mut self,
        passing: Passing<'_>,
        sequence: u64,
        one_way: bool,
    ) -> Result<(), EncodeError> {
        let Passing { terms, route, frame, plain, .. } = passing;
        let layout = terms.config.server_layout();
        let handed_on = handed_on(terms, frame)?;
        let stamped = self.stamps.given();
        let own = handed_on.iter().filter(|given| {
            // The filter's word counts.
            let name = given.field().0;
            !config(terms).is_some_and(|relay| relay.identity.iter().any(|(n, _)| **n == *name))
        });
        let fields: Vec<(&str, FieldValue<'_>)> =
            stamped.iter().chain(own).map(Given::field).collect();
        let command = route.command.as_ref().map_or(frame.command, |command| command.borrow());
        let parts = [plain];
        let request = Request {
            one_way,
            compress: route.compress_reply,
            fields: &fields,
            ..Request::new(command, sequence, &parts)
        };
        layout.encode_request(request, None, self.server.requests())
    }
}

/// The header fields that both layouts hand on under one name.
fn handed_on(terms: &Terms, frame: &Frame<'_>) -> Result<Vec<Given>, EncodeError> {
    let Some(relay) = config(terms).filter(|relay| !relay.fields.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut given = Vec::new();
    let mut text = Vec::new();
    for (place, (_, value)) in (0_u8..).zip(terms.config.layout.metadata(frame)) {
        let Some((_, to)) = relay.fields.iter().find(|(from, _)| *from == place) else { continue };
        text.clear();
        // What cannot be said leaves the field with its default.
        if value.write_ascii(&mut text) {
            given.push(terms.config.server_layout().given_metadata(usize::from(*to), &text)?);
        }
    }
    Ok(given)
}

/// The frame that begins the connection is the filter's alone.
fn is_server_login(terms: &Terms, frame: &Frame<'_>) -> bool {
    let login = terms.config.server.as_ref().and_then(|server| server.login.as_ref());
    login.is_some_and(|login| login.command.borrow() == frame.command)
}
