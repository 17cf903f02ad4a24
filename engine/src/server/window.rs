//! How far may the maker of a relayed answer be ahead of whoever takes it?
//!
//! A listing that another server or another executor makes comes in pieces. Each such answer has a
//! *window*: the maker may have [`limits::REPLY_WINDOW_PIECES`] pieces under way and then waits for
//! *credit*, which the taker gives for each piece that it takes. So a client that does not read
//! stands still the whole way to the state, and costs each server on it no more than the window.
//!
//! Whoever takes no more says so: dropping [`Pieces`] early ends the window at its maker, and with
//! it the view of the state. The end of the connection ends all windows of it.

use std::{
    cell::{Cell, RefCell},
    collections::hash_map::Entry,
    future::poll_fn,
    hash::Hash,
    rc::{Rc, Weak},
    task::{Poll, Waker},
};

use ahash::AHashMap;
use futures_channel::mpsc;
use futures_lite::StreamExt;
use wire::{Query, QueryBody, Reply, WatchFrom, limits};

/// Whether the answer to a query may be of many pieces, and needs a window.
pub fn may_be_long(query: &Query) -> bool {
    matches!(
        query.body,
        QueryBody::KvList { .. }
            | QueryBody::KvKeys { .. }
            | QueryBody::Record(_)
            | QueryBody::KvWatch {
                from: WatchFrom::Rows,
                ..
            }
    )
}

/// What the maker of one answer may still send.
#[derive(Debug)]
struct Account {
    left: Cell<usize>,
    ended: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Account {
    fn give(&self, pieces: usize) {
        if pieces == 0 {
            self.ended.set(true);
        }
        // Credit for what was never sent buys nothing.
        let left = (self.left.get() + pieces).min(limits::REPLY_WINDOW_PIECES);
        self.left.set(left);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

type Accounts<K> = RefCell<AHashMap<K, Rc<Account>>>;

/// Windows of the answers that are made here for one connection, or for the other executors;
/// `K` names them. Dropping it ends them all.
#[derive(Debug)]
pub struct Windows<K: Eq + Hash>(Rc<Accounts<K>>);

impl<K: Copy + Eq + Hash> Windows<K> {
    /// No windows yet.
    pub fn new() -> Self {
        Self(Rc::default())
    }

    /// A window for an answer; `None` when there is one of this name already.
    pub fn open(&self, name: K) -> Option<Window<K>> {
        match self.0.borrow_mut().entry(name) {
            Entry::Occupied(_) => None,
            Entry::Vacant(vacant) => {
                let account = Rc::new(Account {
                    left: Cell::new(limits::REPLY_WINDOW_PIECES),
                    ended: Cell::new(false),
                    waker: RefCell::default(),
                });
                vacant.insert(Rc::clone(&account));
                let accounts = Rc::downgrade(&self.0);
                Some(Window {
                    name,
                    account,
                    accounts,
                })
            }
        }
    }

    /// Whether there is a window of this name.
    pub fn is_open(&self, name: K) -> bool {
        self.0.borrow().contains_key(&name)
    }

    /// Credit arrived: `pieces` were taken, or with 0 no more are wanted. What it is for may be over.
    pub fn credit(&self, name: K, pieces: usize) {
        if let Some(account) = self.0.borrow().get(&name) {
            account.give(pieces);
        }
    }
}

impl<K: Eq + Hash> Drop for Windows<K> {
    fn drop(&mut self) {
        for account in self.0.borrow().values() {
            account.give(0);
        }
    }
}

/// The window of one answer, at its maker.
#[derive(Debug)]
pub struct Window<K: Eq + Hash> {
    name: K,
    account: Rc<Account>,
    accounts: Weak<Accounts<K>>,
}

impl<K: Eq + Hash> Window<K> {
    /// Waits until one more piece may be sent. False when nobody takes it any more.
    pub async fn take(&self) -> bool {
        let account = &self.account;
        poll_fn(|cx| {
            if account.ended.get() {
                return Poll::Ready(false);
            }
            match account.left.get() {
                0 => {
                    *account.waker.borrow_mut() = Some(cx.waker().clone());
                    Poll::Pending
                }
                left => {
                    account.left.set(left - 1);
                    Poll::Ready(true)
                }
            }
        })
        .await
    }
}

impl<K: Eq + Hash> Drop for Window<K> {
    fn drop(&mut self) {
        if let Some(accounts) = self.accounts.upgrade() {
            accounts.borrow_mut().remove(&self.name);
        }
    }
}

/// The way back to the maker of an answer.
pub trait Maker {
    /// Tells it that `pieces` of the answer to `question` were taken, or with 0 that no more are
    /// wanted. Nothing happens when the question is no longer open.
    fn credit(self: Rc<Self>, question: u64, pieces: usize);
}

/// Where the pieces of one answer are put as they arrive. Dropping it ends the answer.
pub type Arrivals = mpsc::Sender<Reply>;

/// An answer that is made elsewhere, as it is taken.
pub struct Pieces {
    arrived: mpsc::Receiver<Reply>,
    maker: Rc<dyn Maker>,
    question: u64,
    /// The last piece was taken, or no more will come.
    over: bool,
}

impl Pieces {
    /// The answer to `question`, of which nothing has come. At most a window of pieces waits here.
    pub fn expect(maker: Rc<dyn Maker>, question: u64) -> (Arrivals, Self) {
        // Each sender has a place besides those asked for.
        let (sender, arrived) = mpsc::channel(limits::REPLY_WINDOW_PIECES - 1);
        let pieces = Self {
            arrived,
            maker,
            question,
            over: false,
        };
        (sender, pieces)
    }

    /// The next piece, which makes room for a further one; `None` when the answer broke off.
    pub async fn next(&mut self) -> Option<Reply> {
        let piece = self.arrived.next().await;
        match &piece {
            Some(piece) if piece.more => Rc::clone(&self.maker).credit(self.question, 1),
            _ => self.over = true,
        }
        piece
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if !self.over {
            Rc::clone(&self.maker).credit(self.question, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use wire::{Index, ReplyBody};

    /// A maker that would never stop, as far as its window lets it.
    async fn make(window: Window<u64>, made: &Cell<usize>) {
        while window.take().await {
            made.set(made.get() + 1);
        }
    }

    /// A listing was sent as fast as its maker could read it, and lay in the memory of the server
    /// between until the client took it: 40 clients that did not read cost that server 1.8 GB.
    #[test]
    fn a_maker_is_a_window_ahead_until_credit_comes() {
        let windows = Windows::new();
        let made = Cell::new(0);
        let mut maker = Box::pin(make(windows.open(7).unwrap(), &made));
        block_on(async {
            assert!(poll_once(&mut maker).await.is_none());
            assert_eq!(made.get(), limits::REPLY_WINDOW_PIECES);
            windows.credit(8, 1);
            assert!(poll_once(&mut maker).await.is_none());
            assert_eq!(made.get(), limits::REPLY_WINDOW_PIECES, "another's credit");
            for taken in 1..100 {
                windows.credit(7, 1);
                assert!(poll_once(&mut maker).await.is_none());
                assert_eq!(made.get(), limits::REPLY_WINDOW_PIECES + taken);
            }
        });
    }

    #[test]
    fn credit_for_what_was_not_sent_buys_nothing() {
        let windows = Windows::new();
        let made = Cell::new(0);
        let window = windows.open(7).unwrap();
        for _ in 0..10 {
            windows.credit(7, limits::REPLY_WINDOW_PIECES);
        }
        let mut maker = Box::pin(make(window, &made));
        assert!(block_on(poll_once(&mut maker)).is_none());
        assert_eq!(made.get(), limits::REPLY_WINDOW_PIECES);
    }

    #[test]
    fn a_maker_ends_when_nobody_takes_any_more_or_the_connection_ends() {
        let made = Cell::new(0);
        for before in [false, true] {
            let windows = Windows::new();
            let window = windows.open(7).unwrap();
            assert!(windows.open(7).is_none(), "one answer to a question");
            if before {
                // The asker may go before the answer has begun.
                windows.credit(7, 0);
                made.set(0);
                block_on(make(window, &made));
                assert_eq!(made.get(), 0);
            } else {
                let mut maker = Box::pin(make(window, &made));
                assert!(block_on(poll_once(&mut maker)).is_none());
                windows.credit(7, 0);
                block_on(maker);
            }
            assert!(windows.0.borrow().is_empty(), "nothing is left of it");
            let mut maker = Box::pin(make(windows.open(7).unwrap(), &made));
            assert!(block_on(poll_once(&mut maker)).is_none());
            drop(windows);
            block_on(maker);
        }
    }

    /// Notes what it is told.
    #[derive(Default)]
    struct Told(RefCell<Vec<(u64, usize)>>);

    impl Maker for Told {
        fn credit(self: Rc<Self>, question: u64, pieces: usize) {
            self.0.borrow_mut().push((question, pieces));
        }
    }

    fn piece(more: bool) -> Reply {
        Reply {
            index: Index(1),
            known_leader: true,
            last_contact_ms: 0,
            more,
            body: ReplyBody::Rows(Vec::new()),
        }
    }

    #[test]
    fn a_taker_holds_a_window_at_most_and_gives_credit_for_what_it_takes() {
        let told = Rc::new(Told::default());
        let (mut arrivals, mut pieces) = Pieces::expect(told.clone(), 7);
        for _ in 0..limits::REPLY_WINDOW_PIECES {
            arrivals.try_send(piece(true)).unwrap();
        }
        assert!(arrivals.try_send(piece(true)).unwrap_err().is_full());
        assert!(block_on(pieces.next()).is_some());
        assert_eq!(*told.0.borrow(), [(7, 1)]);
        arrivals.try_send(piece(false)).unwrap();
        while block_on(pieces.next()).unwrap().more {}
        drop(pieces);
        let all = [(7, 1); limits::REPLY_WINDOW_PIECES];
        assert_eq!(*told.0.borrow(), all, "none for the last, and no farewell");
    }

    #[test]
    fn a_taker_that_goes_early_says_so_and_one_whose_answer_broke_off_does_not() {
        let told = Rc::new(Told::default());
        let (_arrivals, pieces) = Pieces::expect(told.clone(), 7);
        drop(pieces);
        assert_eq!(told.0.take(), [(7, 0)]);
        let (arrivals, mut pieces) = Pieces::expect(told.clone(), 8);
        drop(arrivals);
        assert!(block_on(pieces.next()).is_none());
        drop(pieces);
        assert!(told.0.borrow().is_empty());
    }
}
