//! What will this seed's world be like?
//!
//! Swarm testing (Groce and others, ISSTA 2012): the seed first draws which faults exist at all,
//! then how often each strikes. A world with every fault at once hides what a world with two of
//! them shows.

use super::draw::Draw;

/// One millisecond, ns.
pub const MS: u64 = 1_000_000;

/// A kind of fault, by the name that `--without` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Fault {
    /// Messages are late.
    Delay,
    /// Messages are lost.
    Loss,
    /// Messages come twice.
    Duplicate,
    /// Messages overtake each other.
    Reorder,
    /// Messages outlive the connection that they were sent on.
    Ghosts,
    /// One server is cut off from all others, both ways.
    Isolate,
    /// The servers fall apart into two groups.
    Split,
    /// One server is no longer heard by another.
    OneWay,
    /// One server hears nothing.
    Deaf,
    /// One server is not heard.
    Mute,
    /// Two groups that only one server sees both of.
    Bridge,
    /// A link that comes and goes.
    Flapping,
    /// The power of one server fails.
    Crash,
    /// The power of all servers fails at once.
    Blackout,
    /// A server is stopped and started in order.
    Restart,
    /// A server stands still for a while.
    Pause,
    /// A server's clock jumps forward.
    ClockJump,
    /// Clocks run at different rates, by no more than the lease allows for.
    Drift,
    /// Clocks run at very different rates: only `consistent` reads are exact.
    WildDrift,
    /// Operations on a disk take long.
    SlowDisk,
    /// A disk stands still for a while.
    StalledDisk,
    /// A disk is full for a while.
    FullDisk,
    /// A write to a log fails, and with it its server until it is started again.
    FailedWrite,
    /// A write or rename of an image fails.
    FailedImage,
    /// Sectors of a log read back with a flipped bit.
    Corrupt,
    /// A write that was acknowledged is not there.
    LostWrite,
    /// A write went to another place.
    Misdirected,
    /// Small segments, caches and thresholds.
    SmallLimits,
}

impl Fault {
    /// Faults that come and go at some moments, which the nemesis chooses from.
    pub const EVENTS: [Self; 19] = [
        Self::Isolate,
        Self::Split,
        Self::OneWay,
        Self::Deaf,
        Self::Mute,
        Self::Bridge,
        Self::Flapping,
        Self::Crash,
        Self::Blackout,
        Self::Restart,
        Self::Pause,
        Self::ClockJump,
        Self::StalledDisk,
        Self::FullDisk,
        Self::FailedWrite,
        Self::FailedImage,
        Self::Corrupt,
        Self::LostWrite,
        Self::Misdirected,
    ];
}

/// What a caller decides.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The seed.
    pub seed: u64,
    /// Operations of clients.
    pub operations: u64,
    /// How many servers; otherwise the seed says.
    pub servers: Option<usize>,
    /// Faults that do not exist.
    pub without: Vec<Fault>,
    /// Whether to say on the error output what goes on.
    pub tell: bool,
}

impl Wish {
    /// A seed with so many operations, and nothing else asked for.
    pub fn of(seed: u64, operations: u64) -> Self {
        Self {
            seed,
            operations,
            servers: None,
            without: Vec::new(),
            tell: false,
        }
    }
}

/// What a seed has drawn.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Operations of clients.
    pub operations: u64,
    /// From 1 to 7.
    pub servers: usize,
    /// From 1 to 3.
    pub shards: u16,
    /// From 1 to 16 for each shard.
    pub clients: u32,
    /// Longest pause of a client between two operations, ns.
    pub think_ns_max: u64,
    /// Which faults exist.
    pub faults: Vec<Fault>,
    /// Mean time between two events of the nemesis, ns.
    pub strike_ns: u64,
    /// Messages lost, per mille.
    pub loss: u32,
    /// Messages that come twice, per mille.
    pub duplicate: u32,
    /// Messages that are held up, per mille.
    pub reorder: u32,
    /// Usual longest way of a message, ns.
    pub way_ns_max: u64,
    /// Usual longest time of a log write, ns.
    pub write_ns_max: u64,
    /// How many keys there are in a shard.
    pub keys: u64,
    /// Longest value, bytes.
    pub value_bytes_max: u64,
    /// Rate of each server's clock, parts per million more than true time.
    pub drift_ppm: Vec<i64>,
    /// Whether a read of mode `default` is exact with these clocks.
    pub lease_holds: bool,
    /// Whether the leader keeps the servers in the catalog.
    pub keeps_servers: bool,
    /// Sizes of the log and of what is kept in memory.
    pub limits: Limits,
    /// See [`Wish::tell`].
    pub tell: bool,
}

/// Sizes, small ones so that their ends are reached.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a segment, bytes.
    pub segment_bytes: u64,
    /// Of a batch, bytes.
    pub batch_bytes_max: usize,
    /// Of all segments, bytes.
    pub log_bytes_max: u64,
    /// Log writes at a time.
    pub writes_in_flight_max: usize,
    /// From how many bytes on a second write starts.
    pub second_write_bytes_min: usize,
    /// Of the entry cache, bytes.
    pub cache_bytes_max: usize,
    /// Entries kept behind an image.
    pub trailing_entries_max: u64,
    /// Proposed and uncommitted, bytes.
    pub uncommitted_bytes_max: u64,
    /// Applied payload that calls for an image, bytes.
    pub image_threshold_bytes: u64,
    /// Applied entries that call for an image.
    pub image_threshold_entries: u64,
    /// Of a piece of an image, bytes.
    pub slice_bytes: usize,
    /// Of the history that watches read, bytes.
    pub history_bytes_max: usize,
}

/// Length of a raft tick, ns.
pub const TICK_NS: u64 = 10 * MS;
/// Least ticks before an election.
pub const ELECTION_TICKS: usize = 10;
/// Drift that the lease allows for, parts per million either way (design §5 says 10 %).
const DRIFT_PPM_MAX: i64 = 90_000;

impl Plan {
    /// Draws a world.
    pub fn draw(wish: &Wish) -> Self {
        let mut draw = Draw::new(wish.seed, 1);
        let servers = *draw.pick(&[1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 7]);
        let servers = wish.servers.unwrap_or(servers);
        let faults = draw_faults(&mut draw, &wish.without);
        let has = |fault| faults.contains(&fault);
        let limits = Limits::draw(&mut draw, has(Fault::SmallLimits));
        let mut rate = |fault, most| match has(fault) {
            true => draw.spread(1, most) as u32,
            false => 0,
        };
        let (loss, duplicate) = (rate(Fault::Loss, 200), rate(Fault::Duplicate, 200));
        let reorder = rate(Fault::Reorder, 300);
        let late = if has(Fault::Delay) { 40 } else { 1 };
        let slow = if has(Fault::SlowDisk) { 40 } else { 1 };
        let drift_ppm: Vec<i64> = (0..servers)
            .map(|_| {
                let within =
                    |draw: &mut Draw, most: i64| draw.below(2 * most as u64 + 1) as i64 - most;
                match (has(Fault::WildDrift), has(Fault::Drift)) {
                    (true, _) => *draw.pick(&[-500_000, -300_000, 0, 400_000, 1_000_000]),
                    (_, true) => within(&mut draw, DRIFT_PPM_MAX),
                    _ => within(&mut draw, 100),
                }
            })
            .collect();
        Self {
            seed: wish.seed,
            operations: wish.operations,
            servers,
            shards: *draw.pick(&[1, 1, 1, 2, 3]),
            clients: draw.within(1, 12) as u32,
            think_ns_max: draw.spread(MS, 32 * MS),
            strike_ns: draw.spread(20 * MS, 320 * MS),
            loss,
            duplicate,
            reorder,
            way_ns_max: draw.spread(MS / 8, MS) * draw.within(1, late),
            write_ns_max: draw.spread(MS / 8, 2 * MS) * draw.within(1, slow),
            keys: draw.spread(1, 64),
            value_bytes_max: draw.spread(16, 4096),
            lease_holds: !has(Fault::WildDrift),
            drift_ppm,
            keeps_servers: draw.chance(300),
            limits,
            faults,
            tell: wish.tell,
        }
    }

    /// Whether a fault exists in this world.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

fn draw_faults(draw: &mut Draw, without: &[Fault]) -> Vec<Fault> {
    use clap::ValueEnum;
    // From none to nearly all of them.
    let share = *draw.pick(&[0, 100, 200, 350, 500, 700, 900]);
    let mut faults = Vec::new();
    for fault in Fault::value_variants() {
        // Every fault is drawn, so that leaving one out leaves the others as they are.
        if draw.chance(share) && !without.contains(fault) {
            faults.push(*fault);
        }
    }
    faults
}

impl Limits {
    fn draw(draw: &mut Draw, small: bool) -> Self {
        let mut drawn = Self {
            segment_bytes: 256 << 10,
            batch_bytes_max: 64 << 10,
            log_bytes_max: 16 << 20,
            writes_in_flight_max: 2,
            second_write_bytes_min: 8 << 10,
            cache_bytes_max: 1 << 20,
            trailing_entries_max: 10_000,
            uncommitted_bytes_max: 1 << 20,
            image_threshold_bytes: draw.spread(32 << 10, 1 << 20),
            image_threshold_entries: u64::MAX,
            slice_bytes: 16 << 10,
            history_bytes_max: 256 << 10,
        };
        // Drawn in any case: see `draw_faults`.
        let less = Self {
            segment_bytes: draw.within(16, 48) * 4096,
            batch_bytes_max: draw.within(4, 12) as usize * 4096,
            log_bytes_max: 48 * 4096 * draw.within(8, 32),
            writes_in_flight_max: draw.within(1, 4) as usize,
            second_write_bytes_min: draw.within(1, 4) as usize * 4096,
            cache_bytes_max: draw.spread(256, 64 << 10) as usize,
            trailing_entries_max: draw.spread(1, 1000),
            // raft-rs asks for at least one full append.
            uncommitted_bytes_max: wire::limits::APPEND_BYTES_MAX as u64,
            image_threshold_bytes: draw.spread(2 << 10, 64 << 10),
            image_threshold_entries: draw.spread(4, 400),
            slice_bytes: draw.spread(512, 8 << 10) as usize,
            history_bytes_max: draw.spread(1 << 10, 64 << 10) as usize,
        };
        if small {
            drawn = less;
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn seeds_draw_worlds_with_every_fault_and_with_none() {
        let plans: Vec<Plan> = (1..400)
            .map(|seed| Plan::draw(&Wish::of(seed, 1)))
            .collect();
        assert!(plans.iter().any(|plan| plan.faults.is_empty()));
        for fault in Fault::value_variants() {
            let with = plans.iter().filter(|plan| plan.has(*fault)).count();
            assert!(with > 50, "{fault:?} exists in only {with} of 399 worlds");
        }
        for servers in [1, 2, 3, 4, 5, 7] {
            assert!(plans.iter().any(|plan| plan.servers == servers));
        }
    }

    #[test]
    fn leaving_a_fault_out_leaves_the_others() {
        let with = Plan::draw(&Wish::of(7, 1));
        let mut wish = Wish::of(7, 1);
        wish.without = vec![with.faults[0]];
        assert_eq!(Plan::draw(&wish).faults, with.faults[1..]);
    }
}
