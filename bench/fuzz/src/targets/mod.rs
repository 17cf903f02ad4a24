//! What is fuzzed?

mod agent_files;
mod bodies;
mod config;
mod cursors;
mod filters;
mod frames;
mod http_bodies;
mod http_lines;
mod image;
mod log_bytes;
mod log_lives;
mod machine;
mod messages;
mod rules;
mod rules_text;
mod session;

/// Something that reads bytes, and what must hold whatever they are.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus's folder.
    pub name: &'static str,
    /// Longest input worth trying, bytes.
    pub input_bytes_max: usize,
    /// Takes an input; panics if something is wrong.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 16] = [
    target("frames", 2048, frames::run),
    target("messages", 2048, messages::run),
    target("bodies", 1024, bodies::run),
    target("machine", 4096, machine::run),
    target("log_lives", 512, log_lives::run),
    target("log_bytes", 1024, log_bytes::run),
    target("image", 1024, image::run),
    target("http_lines", 512, http_lines::run),
    target("http_bodies", 2048, http_bodies::run),
    target("filters", 512, filters::run),
    target("rules_text", 16384, rules_text::run),
    target("rules", 256, rules::run),
    target("config", 2048, config::run),
    target("cursors", 1024, cursors::run),
    target("session", 1024, session::run),
    target("agent_files", 2048, agent_files::run),
];

const fn target(name: &'static str, input_bytes_max: usize, run: fn(&[u8])) -> Target {
    Target {
        name,
        input_bytes_max,
        run,
    }
}

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
