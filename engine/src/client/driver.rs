//! The client's one task: finds the leader, then moves bytes until the connection is lost.
//!
//! One task polls both directions of the socket, so nothing is shared between a reader and a
//! writer, and whatever was asked during a turn leaves in one send.

use std::{
    cell::Cell,
    future::pending,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures_channel::oneshot;
use futures_lite::{AsyncRead, AsyncWrite, FutureExt, future::poll_fn};
use glommio::{net::TcpStream, timer::sleep};
use wire::{Hello, ReplyBody};

use super::{
    dial::dial,
    error::Lost,
    requests::{self, Encoded},
    route::{Route, Step, Verdict},
    session::{Event, Outcome},
    shell::{Shared, State, tell},
};

/// The most that one attempt to connect may take: a server that is gone without a trace must not
/// keep the client from the others.
const ATTEMPT_MAX: Duration = Duration::from_secs(1);

/// How long one attempt may take where `connect_timeout` is for all of them.
pub(super) fn attempt_timeout(connect_timeout: Duration) -> Duration {
    (connect_timeout / 3).clamp(Duration::from_millis(1), ATTEMPT_MAX)
}
/// How often a server that does not lead is asked who does.
const LEADER_ASKED_EVERY: Duration = Duration::from_secs(1);
/// A long answer must not keep the executor from everything else.
const RECEIVES_PER_TURN: usize = 16;

/// Runs until the client is closed. `ready` is told when a server is found for the first time.
pub(super) async fn drive(shared: Rc<Shared>, ready: oneshot::Sender<()>) {
    let seed = getrandom::u32().unwrap_or(1);
    let mut route = Route::new(&shared.options.seeds, seed);
    let mut ready = Some(ready);
    while !shared.state.borrow().closed {
        let address = match route.next(Instant::now()) {
            Step::Dial(address) => address,
            Step::Pause(pause) => {
                sleep(pause).await;
                continue;
            }
        };
        let lost = match connect(&shared, &mut route, address).await {
            Ok((stream, hello, leads)) => {
                ready.take().map(|ready| ready.send(()));
                run(&shared, &mut route, stream, &hello, leads).await
            }
            Err(lost) => lost,
        };
        let mut state = shared.state.borrow_mut();
        state.hung = false;
        if !matches!(lost, Lost::Elsewhere) {
            route.failed(address, Instant::now());
            state.last = format!("{address}: {lost}");
        }
        for (caller, outcome) in state.session.disconnected(&lost) {
            tell(caller, outcome);
        }
    }
}

/// Connects to `address` and opens the session if that is where to be.
async fn connect(
    shared: &Shared,
    route: &mut Route,
    address: SocketAddr,
) -> Result<(TcpStream, Hello, bool), Lost> {
    let mut stream = dial(address, shared.options.bind)?;
    shared.state.borrow_mut().session.connected();
    let greeting = async { pump(shared, &mut stream, &Cell::default()).await };
    let late = async {
        sleep(attempt_timeout(shared.options.connect_timeout)).await;
        Err(Lost::Silent)
    };
    let hello = match greeting.or(late).await? {
        Turn::Greeted(hello) => *hello,
        Turn::Drained(_) => return Err(Lost::Elsewhere),
    };
    let leads = match route.answered(&hello, Instant::now()) {
        Verdict::Stay { leads } => leads,
        Verdict::Elsewhere => return Err(Lost::Elsewhere),
        Verdict::Unusable(why) => return Err(Lost::Refused(why)),
    };
    let mut state = shared.state.borrow_mut();
    state.session.open();
    state.shards = hello.shards;
    Ok((stream, hello, leads))
}

/// Serves requests until the connection is lost or given up; returns why.
async fn run(
    shared: &Rc<Shared>,
    route: &mut Route,
    mut stream: TcpStream,
    hello: &Hello,
    leads: bool,
) -> Lost {
    enum Next {
        Turn(Result<Turn, Lost>),
        Leader(String),
    }
    let opened = Instant::now();
    let answered = Cell::new(false);
    let lost = loop {
        let moving = async { Next::Turn(pump(shared, &mut stream, &answered).await) };
        let asking = async { Next::Leader(other_leader(shared, hello, leads).await) };
        match moving.or(asking).await {
            Next::Leader(leader) => {
                if route.follow(&leader, Instant::now()) {
                    let mut state = shared.state.borrow_mut();
                    state.session.drain(leader);
                }
            }
            Next::Turn(Ok(Turn::Greeted(_))) => unreachable!("a session is greeted once"),
            Next::Turn(Ok(Turn::Drained(leader))) => {
                if route.follow(&leader, Instant::now()) {
                    break Lost::Elsewhere;
                }
                break Lost::Refused("this server does not lead, and knows no other".into());
            }
            Next::Turn(Err(lost)) => break lost,
        }
    };
    if answered.get() || opened.elapsed() > ATTEMPT_MAX {
        route.settled();
    }
    lost
}

/// Waits until the server, which does not lead, names another that does.
async fn other_leader(shared: &Shared, hello: &Hello, leads: bool) -> String {
    if leads {
        return pending().await;
    }
    loop {
        sleep(LEADER_ASKED_EVERY).await;
        let now = Instant::now();
        let deadline = now + shared.options.request_timeout;
        let shards = shared.state.borrow().shards;
        let Ok(query) = Encoded::query(&requests::status(), shards) else {
            continue;
        };
        let outcome = shared.state.borrow_mut().make(&query, now, deadline);
        if let Ok(Outcome::Reply(reply)) = outcome.await
            && let ReplyBody::Status(status) = reply.body
            && !status.leader.is_empty()
            && status.leader != hello.address
        {
            return status.leader;
        }
    }
}

/// What ends a stretch of moving bytes, other than the connection's loss.
enum Turn {
    Greeted(Box<Hello>),
    /// Everything that left is answered, and this server leads.
    Drained(String),
}

/// Sends and receives. `answered` is set when a request is answered.
async fn pump(
    shared: &Shared,
    stream: &mut TcpStream,
    answered: &Cell<bool>,
) -> Result<Turn, Lost> {
    poll_fn(|cx| {
        let mut state = shared.state.borrow_mut();
        if state.closed || state.hung {
            return Poll::Ready(Err(Lost::Silent));
        }
        // Receiving first: an answer may let this very turn send more.
        if let Poll::Ready(turn) = receive(&mut state, stream, answered, cx) {
            return Poll::Ready(turn);
        }
        if let Poll::Ready(Err(lost)) = send(&mut state, stream, cx) {
            return Poll::Ready(Err(lost));
        }
        if let Some(leader) = state.session.drained() {
            return Poll::Ready(Ok(Turn::Drained(leader.to_owned())));
        }
        state.driver = Some(cx.waker().clone());
        Poll::Pending
    })
    .await
}

/// Receives until the socket has no more, at most `RECEIVES_PER_TURN` times.
fn receive(
    state: &mut State,
    stream: &mut TcpStream,
    answered: &Cell<bool>,
    cx: &mut Context<'_>,
) -> Poll<Result<Turn, Lost>> {
    for _ in 0..RECEIVES_PER_TURN {
        while let Some(event) = state.session.next_event()? {
            match event {
                Event::Hello(hello) => return Poll::Ready(Ok(Turn::Greeted(hello))),
                Event::Ended(caller, outcome) => {
                    answered.set(answered.get() || !matches!(outcome, Outcome::Again));
                    tell(caller, outcome);
                }
            }
        }
        let read = Pin::new(&mut *stream).poll_read(cx, state.session.space());
        match ready!(read)? {
            0 => return Poll::Ready(Err(Lost::Closed)),
            n => state.session.received(n, Instant::now()),
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

fn send(state: &mut State, stream: &mut TcpStream, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
    while !state.session.to_send().is_empty() {
        let sent = ready!(Pin::new(&mut *stream).poll_write(cx, state.session.to_send()))?;
        state.session.sent(sent);
    }
    Poll::Ready(Ok(()))
}
