//! Runs parts of rs-consul against three servers; `tests/clients.rs` tells what the words mean.
//!
//! Each part has three steps: while all servers run, when a leader has just died, and when all run
//! again. What a step must remember for the next lies in the servers.

mod catalog;
mod kv;
mod locks;
mod watch;

use std::{io::BufRead, process::exit};

use rs_consul::{Config, Consul, ConsulBuilder};

/// A client for each server. The first two are followers at the start.
pub struct Cluster {
    addresses: Vec<String>,
    dead: Option<String>,
    clients: Vec<Consul>,
}

/// When a part runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All servers run.
    Before,
    /// The leader is dead, and perhaps nobody has noticed.
    Killed,
    /// All run again.
    After,
}

impl Cluster {
    fn new(addresses: &str) -> Self {
        let addresses: Vec<String> = addresses.split(',').map(str::to_owned).collect();
        let clients = addresses.iter().map(|address| client(address)).collect();
        Self {
            addresses,
            dead: None,
            clients,
        }
    }

    /// Clients of the servers that run.
    pub fn alive(&self) -> Vec<&Consul> {
        let pairs = self.addresses.iter().zip(&self.clients);
        let alive = pairs.filter(|(address, _)| Some(*address) != self.dead.as_ref());
        alive.map(|(_, client)| client).collect()
    }
}

fn client(address: &str) -> Consul {
    let config = Config {
        address: format!("http://{address}"),
        ..Config::default()
    };
    ConsulBuilder::new(config).build()
}

/// Asks the test for something, and waits for its answer.
fn ask(what: &str) -> String {
    println!("{what}");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.expect("the test answers");
    answer.trim().to_owned()
}

async fn run(part: &str, cluster: &Cluster, step: Step) {
    eprintln!("  {part} {step:?}");
    match part {
        "kv" => kv::run(cluster, step).await,
        "watch" => watch::run(cluster, step).await,
        "lock" => locks::run(cluster, step).await,
        "catalog" => catalog::run(cluster, step).await,
        _ => {
            eprintln!("no part {part}");
            exit(2);
        }
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let mut cluster = Cluster::new(&args.next().expect("addresses"));
    let parts = args.next().expect("parts");
    let parts: Vec<&str> = parts.split(',').collect();
    // A watch that hangs over the death of the leader runs beside the steps.
    let hanging = watch::Hanging::over(&cluster.addresses, parts.contains(&"watch")).await;
    for part in &parts {
        run(part, &cluster, Step::Before).await;
    }
    cluster.dead = Some(ask("kill"));
    assert!(cluster.addresses.contains(cluster.dead.as_ref().unwrap()));
    for part in &parts {
        run(part, &cluster, Step::Killed).await;
    }
    hanging.ends(&cluster).await;
    assert_eq!(ask("start"), "started");
    cluster.dead = None;
    for part in &parts {
        run(part, &cluster, Step::After).await;
    }
    for part in &parts {
        println!("done {part}");
    }
}
