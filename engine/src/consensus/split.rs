//! How long may one append message be?
//!
//! raft-rs keeps each message it makes to `max_size_per_msg`, but with `batch_append` it then adds
//! whatever is sent next to the same peer to a message that still waits, without looking at its
//! length: a follower that comes back far behind is sent all it lacks as one message, longer than
//! any frame. Here such a message becomes several that follow one another, which is what it was
//! before. Each stands for itself (Raft paper §5.3): its own predecessor, its own entries.

use std::collections::VecDeque;

use raft::eraftpb::{Entry, Message};
use wire::limits;

/// Cuts an append into messages of at most [`limits::APPEND_BYTES_MAX`] of entries each (a single
/// longer entry has one of its own) and [`limits::ENTRIES_PER_MESSAGE_MAX`] of them. Any other
/// message, and an append that is short enough, comes out as it is.
pub fn split_append(mut message: Message) -> impl Iterator<Item = Message> {
    let mut rest: VecDeque<Entry> = VecDeque::new();
    if !fits(&message) {
        rest = message.take_entries().into_vec().into();
        message.set_entries(take_piece(&mut rest).into());
    }
    let mut next = Some(message);
    std::iter::from_fn(move || {
        let message = next.take()?;
        if !rest.is_empty() {
            let last = message.entries.last().expect("a piece has entries");
            let mut following = message.clone();
            (following.index, following.log_term) = (last.index, last.term);
            following.set_entries(take_piece(&mut rest).into());
            next = Some(following);
        }
        Some(message)
    })
}

fn fits(message: &Message) -> bool {
    let bytes: usize = message.entries.iter().map(|entry| entry.data.len()).sum();
    bytes <= limits::APPEND_BYTES_MAX && message.entries.len() <= limits::ENTRIES_PER_MESSAGE_MAX
}

fn take_piece(rest: &mut VecDeque<Entry>) -> Vec<Entry> {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += entry.data.len();
        bytes <= limits::APPEND_BYTES_MAX
    };
    let count = rest
        .iter()
        .take(limits::ENTRIES_PER_MESSAGE_MAX)
        .take_while(fits)
        .count();
    rest.drain(..count.max(1)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use raft::eraftpb::MessageType;

    use super::*;

    fn append(lengths: &[usize]) -> Message {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        (message.index, message.log_term, message.commit) = (100, 3, 900);
        let entries = lengths.iter().zip(101..).map(|(length, index)| {
            let mut entry = Entry::default();
            (entry.index, entry.term) = (index, 3 + index / 110);
            entry.data = vec![0; *length].into();
            entry
        });
        message.set_entries(entries.collect::<Vec<_>>().into());
        message
    }

    #[test]
    fn what_fits_is_left_alone() {
        let message = append(&[limits::APPEND_BYTES_MAX - 1, 1, 0]);
        assert_eq!(split_append(message.clone()).collect::<Vec<_>>(), [message]);
        let heartbeat = Message::default();
        assert_eq!(
            split_append(heartbeat.clone()).collect::<Vec<_>>(),
            [heartbeat]
        );
    }

    /// A leader stopped itself when a follower came back that lacked more than 8 MiB: all of it
    /// was one message, longer than the longest frame.
    #[test]
    fn what_is_too_long_for_a_frame_goes_in_pieces() {
        let pieces: Vec<_> = split_append(append(&[100_000; 250])).collect();
        assert_eq!(
            pieces
                .iter()
                .map(|piece| piece.entries.len())
                .sum::<usize>(),
            250
        );
        assert!(pieces.iter().all(fits));
    }

    #[test]
    fn many_small_entries_are_counted_as_well() {
        let pieces: Vec<_> =
            split_append(append(&vec![0; limits::ENTRIES_PER_MESSAGE_MAX + 1])).collect();
        let counts: Vec<_> = pieces.iter().map(|piece| piece.entries.len()).collect();
        assert_eq!(counts, [limits::ENTRIES_PER_MESSAGE_MAX, 1]);
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_message(lengths in prop::collection::vec(0usize..1_500_000, 0..20)) {
            let whole = append(&lengths);
            let pieces: Vec<_> = split_append(whole.clone()).collect();
            let (mut index, mut term) = (whole.index, whole.log_term);
            let mut entries = Vec::new();
            for piece in pieces {
                prop_assert!(fits(&piece) || piece.entries.len() == 1);
                prop_assert_eq!((piece.index, piece.log_term, piece.commit), (index, term, whole.commit));
                if let Some(last) = piece.entries.last() {
                    (index, term) = (last.index, last.term);
                }
                entries.extend(piece.entries.iter().cloned());
            }
            prop_assert_eq!(entries, whole.entries.to_vec());
        }
    }
}
