//! Which messages arrive, and when?
//!
//! Links are one-way: each is cut by so many faults, and open when none cuts it. What passes is
//! late, lost, doubled or overtaken as the plan says. (In production a link is one TCP connection,
//! which does none of this but break. The simulated one is worse on purpose: raft asks for no more.)

use super::{draw::Draw, plan::Plan};

/// The links between all servers.
pub struct Network {
    servers: usize,
    /// How many faults cut the link from one to another.
    cuts: Vec<u32>,
    loss: u32,
    duplicate: u32,
    reorder: u32,
    way_ns_max: u64,
    draw: Draw,
    /// Messages that did not arrive.
    pub lost: u64,
}

impl Network {
    /// With all links open.
    pub fn new(plan: &Plan) -> Self {
        Self {
            servers: plan.servers,
            cuts: vec![0; plan.servers * plan.servers],
            loss: plan.loss,
            duplicate: plan.duplicate,
            reorder: plan.reorder,
            way_ns_max: plan.way_ns_max,
            draw: Draw::new(plan.seed, 2),
            lost: 0,
        }
    }

    /// From now on nothing is lost, late or doubled, and no link is cut.
    pub fn heal(&mut self) {
        self.cuts.fill(0);
        (self.loss, self.duplicate, self.reorder) = (0, 0, 0);
        self.way_ns_max = self.way_ns_max.min(1_000_000);
    }

    /// One more fault cuts these links, or one less.
    pub fn cut(&mut self, links: &[(usize, usize)], more: bool) {
        for (from, to) in links {
            let cuts = &mut self.cuts[from * self.servers + to];
            *cuts = if more {
                *cuts + 1
            } else {
                cuts.saturating_sub(1)
            };
        }
    }

    /// Whether messages pass.
    pub fn is_open(&self, from: usize, to: usize) -> bool {
        self.cuts[from * self.servers + to] == 0
    }

    /// After how long a message that is sent now arrives, ns; nothing for a lost one, twice for
    /// one that comes twice.
    pub fn ways(&mut self, from: usize, to: usize) -> [Option<u64>; 2] {
        if !self.is_open(from, to) || self.draw.chance(self.loss) {
            self.lost += 1;
            return [None, None];
        }
        let again = self.draw.chance(self.duplicate);
        [Some(self.way()), again.then(|| 2 * self.way())]
    }

    fn way(&mut self) -> u64 {
        let usual = self.way_ns_max / 4 + self.draw.below(self.way_ns_max);
        match self.draw.chance(self.reorder) {
            true => usual + self.draw.below(20 * self.way_ns_max),
            false => usual,
        }
    }

    /// Whether messages may overtake each other at all: otherwise a link keeps their order.
    pub fn reorders(&self) -> bool {
        self.reorder > 0
    }
}
