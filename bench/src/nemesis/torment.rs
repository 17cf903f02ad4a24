//! What is done to the servers, in which order, and what must never be done at once?
//!
//! A run is cycles. In each, some *weather* begins (a cut, a slow disk, a paused server…), then
//! servers are killed in it, and come back in it or after it; then the weather ends. The atlas of
//! what may be lost (as TigerBeetle's): flushed data is damaged on one chosen server only, for the
//! whole run, and only when all others run and it was whole since; a power cut takes unflushed data
//! only, so it may hit all.
//!
//! Invariant: after [`Torment::heal`] no fault is in force and every server runs.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::dice::Dice;
use super::disk::needed;
use super::faults::Fault;
use super::place::Place;
use super::recorder::Loss;
use super::servers::Servers;
use crate::{Context, Error, Result};

/// What was done, for the report.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Done {
    /// How often each fault was made, by name.
    pub faults: BTreeMap<String, u64>,
    /// Servers that were killed with `kill -9`, all reasons together.
    pub kills: u64,
    /// Leaders among them.
    pub leaders_killed: u64,
    /// Bits flipped.
    pub bits: u64,
    /// Starts that a damaged image prevented, said so with its name, until the file was restored.
    pub images_refused: u64,
    /// Writes that waited for a flush when power was cut.
    pub unflushed: u64,
    /// Of these, lost.
    pub unflushed_lost: u64,
    /// Of these, torn.
    pub unflushed_torn: u64,
}

impl Done {
    fn count(&mut self, fault: Fault) {
        *self.faults.entry(fault.name()).or_default() += 1;
    }
}

/// The one who does it.
#[derive(Debug)]
pub struct Torment {
    dice: Dice,
    place: Place,
    faults: Vec<Fault>,
    /// The only server whose flushed data is ever damaged.
    rotten: usize,
    /// Servers whose own data directory is put aside.
    aside: Vec<usize>,
    /// What was done so far.
    pub done: Done,
}

impl Torment {
    /// With these faults, all of which the host allows.
    pub fn new(place: Place, faults: Vec<Fault>, servers: usize, seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        Self {
            rotten: dice.below(servers),
            dice,
            place,
            faults,
            aside: Vec::new(),
            done: Done::default(),
        }
    }

    /// One cycle: weather, kills in it, and the end of both.
    pub fn cycle(&mut self, servers: &mut Servers) -> Result<()> {
        let weather: Vec<Fault> = self
            .faults
            .iter()
            .copied()
            .filter(|fault| !matches!(fault, Fault::Kill))
            .collect();
        if !weather.is_empty() && !self.dice.once_in(4) {
            let fault = *self.dice.one_of(&weather);
            self.begin(fault, servers)?;
        }
        self.rest(100, 700);
        servers.check_alive()?;
        if self.faults.contains(&Fault::Kill) {
            self.kill(servers)?;
        }
        self.rest(50, 400);
        self.end(servers)?;
        self.rest(100, 500);
        servers.check_alive()
    }

    /// Ends every fault and starts every server.
    pub fn heal(&mut self, servers: &mut Servers) -> Result<()> {
        self.end(servers)?;
        for at in 0..servers.count() {
            servers.at(at).ahead_s = 0;
        }
        Ok(())
    }

    fn rest(&mut self, from_ms: usize, to_ms: usize) {
        sleep(self.dice.millis(from_ms, to_ms));
    }

    fn kill(&mut self, servers: &mut Servers) -> Result<()> {
        let victims = match servers.leader().filter(|_| self.dice.once_in(2)) {
            Some(leader) => {
                self.done.leaders_killed += 1;
                vec![leader]
            }
            None => self.dice.some_servers(servers.count()),
        };
        self.kill_these(servers, &victims)?;
        self.done.count(Fault::Kill);
        self.rest(0, 500);
        if self.dice.once_in(4) {
            // They come back only when the weather is over.
            return Ok(());
        }
        for at in victims {
            servers.start(at)?;
        }
        Ok(())
    }

    fn kill_these(&mut self, servers: &mut Servers, victims: &[usize]) -> Result<()> {
        self.done.kills += servers.kill(victims)? as u64;
        Ok(())
    }

    fn begin(&mut self, fault: Fault, servers: &mut Servers) -> Result<()> {
        let count = servers.count();
        let one = self.dice.below(count);
        let other = (one + 1 + self.dice.below(count - 1)) % count;
        match fault {
            Fault::Kill => {}
            Fault::Pause => {
                for at in self.dice.some_servers(count) {
                    servers.pause(at);
                }
                self.rest(100, 1800);
            }
            Fault::Cut => self.cut(servers, one, other)?,
            Fault::OneWay => self.cut_one_way(servers, one, other)?,
            Fault::Loss => self.lose_packets(servers, one, other)?,
            Fault::Delay => {
                self.place.narrow(servers.ip(one), servers.ip(other))?;
                self.rest(100, 800);
            }
            Fault::Throttle => {
                if let Some(pid) = servers.pid(one) {
                    needed(&mut servers.at(one).disk)?.throttle(pid)?;
                    self.rest(100, 1200);
                }
            }
            Fault::Full => {
                needed(&mut servers.at(one).disk)?.fill()?;
                self.rest(300, 1500);
            }
            Fault::Clock => {
                self.kill_these(servers, &[one])?;
                servers.at(one).ahead_s = self.dice.below(400 * 86_400) as u64;
                servers.start(one)?;
            }
            Fault::Wipe => self.wipe(servers, one)?,
            Fault::Rot => self.rot(servers)?,
            Fault::Power => self.cut_power(servers)?,
        }
        self.done.count(fault);
        Ok(())
    }

    /// Two servers, or one and all others.
    fn cut(&mut self, servers: &Servers, one: usize, other: usize) -> Result<()> {
        let others: Vec<usize> = match self.dice.once_in(2) {
            true => vec![other],
            false => (0..servers.count()).filter(|at| *at != one).collect(),
        };
        for other in others {
            self.place.cut(servers.ip(one), servers.ip(other))?;
            self.place.cut(servers.ip(other), servers.ip(one))?;
        }
        self.rest(200, 1800);
        Ok(())
    }

    /// One direction between two servers, or a server that is deaf, or mute.
    fn cut_one_way(&mut self, servers: &Servers, one: usize, other: usize) -> Result<()> {
        let others = (0..servers.count()).filter(|at| *at != one);
        match self.dice.below(3) {
            0 => self.place.cut(servers.ip(one), servers.ip(other))?,
            1 => {
                for other in others {
                    self.place.cut(servers.ip(one), servers.ip(other))?;
                }
            }
            _ => {
                for other in others {
                    self.place.cut(servers.ip(other), servers.ip(one))?;
                }
            }
        }
        self.rest(200, 1800);
        Ok(())
    }

    /// Bursts of loss in one direction or both, for about a second.
    fn lose_packets(&mut self, servers: &Servers, one: usize, other: usize) -> Result<()> {
        let both = self.dice.once_in(2);
        let (a, b) = (servers.ip(one), servers.ip(other));
        for _ in 0..8 {
            self.place.cut(a, b)?;
            if both {
                self.place.cut(b, a)?;
            }
            self.rest(10, 70);
            self.place.mend(a, b)?;
            self.place.mend(b, a)?;
            self.rest(10, 120);
        }
        Ok(())
    }

    /// A server comes up with nothing, looks around, and later gets its own data back.
    fn wipe(&mut self, servers: &mut Servers, one: usize) -> Result<()> {
        self.kill_these(servers, &[one])?;
        let data = servers.at(one).node.data_dir.clone();
        if !data.exists() {
            return servers.start(one);
        }
        rename(&data, &kept(&data))?;
        self.aside.push(one);
        servers.start(one)?;
        self.rest(300, 1500);
        Ok(())
    }

    fn give_back(&mut self, servers: &mut Servers) -> Result<()> {
        for one in std::mem::take(&mut self.aside) {
            self.kill_these(servers, &[one])?;
            let data = servers.at(one).node.data_dir.clone();
            fs::remove_dir_all(&data).context(|| format!("remove {}", data.display()))?;
            rename(&kept(&data), &data)?;
        }
        Ok(())
    }

    /// Flips bits of the chosen server's files, if it is whole and all others are up.
    fn rot(&mut self, servers: &mut Servers) -> Result<()> {
        const WHOLE_MAX: Duration = Duration::from_secs(60);
        // The others' copies must be whole: they are never damaged, but they must know what is
        // committed before one more copy goes.
        self.end(servers)?;
        servers.wait_agreed(WHOLE_MAX)?;
        self.kill_these(servers, &[self.rotten])?;
        let data = servers.at(self.rotten).node.data_dir.clone();
        let files = damageable(&data);
        let mut flipped = Vec::new();
        for _ in 0..=self.dice.below(3) {
            if files.is_empty() {
                break;
            }
            let file = self.dice.one_of(&files).clone();
            let length = fs::metadata(&file).map_or(0, |found| found.len());
            if length > 0 {
                let place = self.dice.below(length as usize) as u64;
                let bit = 1 << self.dice.below(8);
                flip(&file, place, bit)?;
                flipped.push((file, place, bit));
            }
        }
        self.done.bits += flipped.len() as u64;
        if servers.start_ends(self.rotten, WHOLE_MAX)? {
            self.restore_images(servers, &flipped)?;
        }
        self.rest(100, 800);
        Ok(())
    }

    /// A server that refuses to start may do so for an image that was damaged, which it names; then
    /// it gets what it asks for.
    fn restore_images(
        &mut self,
        servers: &mut Servers,
        flipped: &[(PathBuf, u64, u8)],
    ) -> Result<()> {
        let words = servers.last_words(self.rotten);
        let blamed = |file: &Path| {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            words.contains("image damaged") && words.contains(&name)
        };
        if !flipped.iter().any(|(file, ..)| blamed(file)) {
            return Err(Error::Violation(format!(
                "after bits of {flipped:?} were flipped, node-{} ended by itself and named none of them:\n{words}",
                self.rotten + 1
            )));
        }
        // A start removes the image before the newest, whether or not the newest turns out whole.
        let damaged = |file: &Path| is_image(file) && file.exists();
        for (file, place, bit) in flipped.iter().filter(|(file, ..)| damaged(file)) {
            flip(file, *place, *bit)?;
        }
        self.done.images_refused += 1;
        servers.start(self.rotten)
    }

    /// Of one server, some, or all at once.
    fn cut_power(&mut self, servers: &mut Servers) -> Result<()> {
        let victims: Vec<usize> = self.dice.some_servers(servers.count());
        if !self.dice.once_in(3) {
            for &at in &victims {
                needed(&mut servers.at(at).disk)?.arm_power_cut();
            }
            self.rest(10, 250);
        }
        for &at in &victims {
            needed(&mut servers.at(at).disk)?.cut_power();
        }
        self.done.kills += servers.kill_after_power_cut(&victims) as u64;
        for &at in &victims {
            let disk = needed(&mut servers.at(at).disk)?;
            disk.release(None)?;
            let Loss {
                waiting,
                lost,
                torn,
            } = disk.restore_power(&mut self.dice)?;
            self.done.unflushed += waiting as u64;
            self.done.unflushed_lost += lost as u64;
            self.done.unflushed_torn += torn as u64;
        }
        for at in victims {
            servers.start(at)?;
        }
        Ok(())
    }

    fn end(&mut self, servers: &mut Servers) -> Result<()> {
        self.place.heal()?;
        servers.resume();
        for at in 0..servers.count() {
            let pid = servers.pid(at);
            if let Some(disk) = &mut servers.at(at).disk {
                disk.release(pid)?;
                disk.make_room()?;
            }
        }
        self.give_back(servers)?;
        for at in 0..servers.count() {
            servers.start(at)?;
        }
        Ok(())
    }
}

fn kept(data: &Path) -> PathBuf {
    data.with_extension("aside")
}

/// Durably, as whoever puts disks in and out does it: a power cut that undid it would leave a server
/// with an empty directory for good. (One did, in the first long run.)
fn rename(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("rename {} to {}", from.display(), to.display());
    fs::rename(from, to).context(what)?;
    let folder = to.parent().unwrap_or(to);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .context(what)
}

/// Files of the log and images. What says who a server is belongs to no peer, and is not damaged.
fn damageable(data: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["log-0", "images"] {
        let Ok(entries) = fs::read_dir(data.join(folder)) else {
            continue;
        };
        let paths = entries.flatten().map(|entry| entry.path());
        files.extend(paths.filter(|path| path.is_file()));
    }
    files.sort();
    files
}

fn is_image(file: &Path) -> bool {
    file.parent()
        .is_some_and(|folder| folder.ends_with("images"))
}

fn flip(file: &Path, place: u64, bit: u8) -> Result<()> {
    let what = || format!("flip a bit of {}", file.display());
    let open = File::options()
        .read(true)
        .write(true)
        .open(file)
        .context(what)?;
    let mut byte = [0];
    open.read_exact_at(&mut byte, place).context(what)?;
    open.write_all_at(&[byte[0] ^ bit], place).context(what)?;
    open.sync_all().context(what)
}

/// Waits until clients get answers again.
pub fn wait_for_service(
    mut decided: impl FnMut() -> u64,
    more: u64,
    patience: Duration,
    servers: &mut Servers,
) -> Result<()> {
    let (goal, deadline) = (decided() + more, Instant::now() + patience);
    while decided() < goal {
        servers.check_alive()?;
        if Instant::now() > deadline {
            return Err(Error::Violation(format!(
                "the faults are over, and within {patience:?} only {} of {more} calls were decided",
                decided() + more - goal
            )));
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}
