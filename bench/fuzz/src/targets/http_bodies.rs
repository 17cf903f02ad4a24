//! Is a body judged by the names that its handler then acts on, and can what it asks for be done?
//!
//! `{endpoint, body}`. With ACLs on two readers look at a body: one for the names by which the token
//! is judged, and the handler. Where they see different names, a token can do what it may not.
//! A command that comes of a body must be one that every server can apply.

use engine::{
    fsm::{Fsm, records},
    server::http::doors::{self, Endpoint},
};
use wire::{Index, Term};

use crate::feed::Feed;

/// Reads a body.
pub fn run(data: &[u8]) {
    let mut feed = Feed::new(data);
    let endpoint = feed.pick(&Endpoint::ALL);
    let body = feed.rest();
    let read = doors::read(endpoint, body);
    let judged = doors::judged_by(endpoint, body);
    let Ok(read) = read else {
        return;
    };
    if let Some(Ok(names)) = judged {
        let text = String::from_utf8_lossy(body);
        assert_eq!(
            names,
            acted_on(endpoint, &read.names),
            "{endpoint:?} {text}"
        );
    }
    if let Some(command) = read.command {
        assert_eq!(records::check(&command), Ok(()));
        let mut fsm = Fsm::new();
        let entries = [1, 2].map(|index| (Index(index), Term(1), command.clone()));
        let applied = fsm.apply_run(&entries, &mut Vec::new());
        applied.expect("what was let in can be applied");
    }
}

/// A service's id is its name where none is given; the judge asks for both.
fn acted_on(endpoint: Endpoint, names: &[String]) -> Vec<String> {
    match endpoint {
        Endpoint::Session if names[0].is_empty() => vec![String::new()],
        _ => names.to_vec(),
    }
}
