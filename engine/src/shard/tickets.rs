//! Who waits for which log index?
//!
//! The one place that answers writes. An answer needs an [`Applied`], which only the apply step
//! can make: so no write is answered before it is durable on a quorum and applied (reliability
//! promise 2), by construction.

use std::collections::VecDeque;

use wire::{FailureKind, Index, Term};

use super::event::{Answered, Effects, Reply, Ticket, failure};
use crate::{documents::txn, fsm::Outcome};

/// Proof that the entry at this index was committed and applied. Made by the apply step alone.
#[derive(Debug)]
pub struct Applied {
    index: Index,
    term: Term,
    outcome: Outcome,
}

impl Applied {
    /// To be called for each entry of a committed run that the state machine has applied, and
    /// nowhere else.
    pub(super) fn new(index: Index, term: Term, outcome: Outcome) -> Self {
        Self {
            index,
            term,
            outcome,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    index: u64,
    term: Term,
    ticket: Option<Ticket>,
}

/// Writes that were proposed here and are not yet applied, in index order.
#[derive(Debug, Default)]
pub struct Tickets {
    waiting: VecDeque<Waiting>,
}

impl Tickets {
    /// A proposal got this index at this term; `None` for one nobody waits for.
    pub fn proposed(&mut self, index: u64, term: Term, ticket: Option<Ticket>) {
        debug_assert!(self.waiting.back().is_none_or(|last| last.index < index));
        self.waiting.push_back(Waiting {
            index,
            term,
            ticket,
        });
    }

    /// Answers whoever waits for this entry.
    pub fn applied(&mut self, applied: Applied, effects: &mut Effects) {
        while let Some(front) = self.waiting.front() {
            if front.index > applied.index.0 {
                return;
            }
            let front = self.waiting.pop_front().expect("it was there");
            let Some(ticket) = front.ticket else { continue };
            let ours = front.term == applied.term || mutant!(TicketTermIgnored);
            if front.index < applied.index.0 || !ours {
                // Another leader's entry took this place: ours is not in the log.
                effects.fail(ticket, lost());
                continue;
            }
            let result = match applied.outcome {
                Outcome::Done { ok } => Ok(Reply::Written {
                    ok,
                    index: applied.index,
                }),
                Outcome::Txn(outcome) => Ok(Reply::Txn {
                    index: applied.index,
                    outcome,
                }),
                Outcome::Mixed(outcome) => Ok(Reply::Document {
                    index: applied.index,
                    json: txn::result(&outcome).into(),
                }),
                Outcome::Refused(why) => Err(failure(FailureKind::Refused, why)),
            };
            effects.answers.push(Answered {
                ticket,
                result,
                lease_until_ns: None,
            });
            return;
        }
    }

    /// Leadership was lost: nobody here will learn what became of these.
    pub fn deposed(&mut self, effects: &mut Effects) {
        for waiting in self.waiting.drain(..) {
            if let Some(ticket) = waiting.ticket {
                effects.fail(ticket, lost());
            }
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn lost() -> wire::Failure {
    let kind = match mutant!(UnknownSaidRefused) {
        true => FailureKind::NotLeader,
        false => FailureKind::OutcomeUnknown,
    };
    failure(kind, "leadership lost while committing log")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(index: u64, term: u64, ok: bool) -> Applied {
        Applied::new(Index(index), Term(term), Outcome::Done { ok })
    }

    #[test]
    fn an_answer_goes_to_the_one_who_proposed_that_very_entry() {
        let mut tickets = Tickets::default();
        let mut effects = Effects::default();
        tickets.proposed(5, Term(2), Some(Ticket(1)));
        tickets.proposed(6, Term(2), None);
        tickets.proposed(7, Term(2), Some(Ticket(2)));
        tickets.applied(done(4, 1, true), &mut effects);
        assert!(effects.answers.is_empty());
        tickets.applied(done(5, 2, true), &mut effects);
        tickets.applied(done(6, 2, true), &mut effects);
        tickets.applied(done(7, 3, true), &mut effects);
        let kinds: Vec<_> = effects
            .answers
            .iter()
            .map(|a| (a.ticket.0, a.result.is_ok()))
            .collect();
        assert_eq!(
            kinds,
            [(1, true), (2, false)],
            "the entry of another term is not ours"
        );
        assert!(tickets.is_empty());
    }

    #[test]
    fn a_deposed_leader_says_that_it_does_not_know() {
        let mut tickets = Tickets::default();
        let mut effects = Effects::default();
        tickets.proposed(5, Term(2), Some(Ticket(1)));
        tickets.deposed(&mut effects);
        let failure = effects.answers.pop().unwrap().result.unwrap_err();
        assert_eq!(failure.kind, FailureKind::OutcomeUnknown);
    }
}
