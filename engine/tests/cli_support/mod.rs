//! How is the command line tested against a real server?
//!
//! One `curia agent -dev` per test, and commands as processes of their own. They are started by
//! the test's thread and waited for; what is to happen in between is waited for, not slept for.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use crate::cluster::{check, group::Group, server::Server, wait_for};

/// What a command came to.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// It succeeded and printed this.
    #[track_caller]
    pub fn says(&self, out: &str) {
        assert_eq!((self.code, &*self.out, &*self.err), (Some(0), out, ""));
    }

    /// It failed with code 1, and said why.
    #[track_caller]
    pub fn fails(&self, err: &str) {
        assert_eq!(
            (self.code, self.err.trim_end()),
            (Some(1), err),
            "{}",
            self.out
        );
    }
}

/// A server of its own.
pub struct Dev {
    server: Server,
    group: Group,
}

impl Dev {
    /// Starts one, and waits until sessions can be made.
    pub fn start() -> Self {
        let dev = Self::start_with(&[]);
        wait_for("a server on which sessions can be made", || {
            let made = dev.run(&["session", "create"]);
            check(made.code == Some(0), || made.err.clone())?;
            let id = made.out.trim();
            dev.run(&["session", "destroy", id])
                .says(&format!("Session destroyed: {id}\n"));
            Ok(())
        });
        dev
    }

    /// Starts one on which only tokens may do anything, and waits until it refuses.
    pub fn start_with_acls() -> Self {
        let acl = "-hcl=acl = { enabled = true, default_policy = \"deny\" }";
        let dev = Self::start_with(&[acl]);
        wait_for("a server with ACLs", || {
            let read = dev.run(&["kv", "get", "a"]);
            check(read.err.contains("code: 403"), || read.err)
        });
        dev
    }

    fn start_with(more: &[&str]) -> Self {
        let group = Group::empty();
        let ip = group.ip(0);
        let mut flags = vec![
            "-dev".to_owned(),
            format!("-bind={ip}"),
            format!("-client={ip}"),
            "-node=dev".into(),
            "-log-level=warn".into(),
        ];
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        let mut server = Server::new(group.home(), "dev", ip, flags);
        server.start();
        Self { server, group }
    }

    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    pub fn address(&self) -> String {
        self.server.http_address().to_string()
    }

    /// A directory for the test's files.
    pub fn dir(&self) -> &Path {
        self.group.home()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = curia(args);
        command.env("CONSUL_HTTP_ADDR", self.address());
        command
    }

    pub fn run(&self, args: &[&str]) -> Outcome {
        self.run_with("", args)
    }

    /// Runs a command with standard input.
    pub fn run_with(&self, input: &str, args: &[&str]) -> Outcome {
        finish(self.command(args), input)
    }

    /// Starts a command that runs on; its output goes to a file.
    pub fn start_command(&self, name: &str, args: &[&str]) -> Running {
        let log = self.dir().join(format!("{name}.out"));
        let output = File::create(&log).unwrap();
        let child = self
            .command(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Running { child, log }
    }

    /// The value of a key, if it exists.
    pub fn value(&self, key: &str) -> Option<String> {
        let got = self.run(&["kv", "get", key]);
        (got.code == Some(0)).then(|| got.out.trim_end_matches('\n').to_owned())
    }

    pub fn wait_for_value(&self, key: &str, value: &str) {
        wait_for(&format!("{key}={value}"), || {
            let found = self.value(key);
            check(found.as_deref() == Some(value), || format!("{found:?}"))
        });
    }
}

/// The binary without what the environment says.
pub fn curia(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_curia"));
    command.args(args);
    for name in [
        "CONSUL_HTTP_ADDR",
        "CONSUL_HTTP_TOKEN",
        "CONSUL_HTTP_TOKEN_FILE",
        "CONSUL_HTTP_SSL",
    ] {
        command.env_remove(name);
    }
    command.env("SHELL", "/bin/sh");
    command
}

/// Runs a command to its end.
pub fn finish(mut command: Command, input: &str) -> Outcome {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A command that runs; killed with the test.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes no pointers; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for the end; what was printed, in the order in which it was.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let status = wait_for("the end of a command", || {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            ended.ok_or_else(|| format!("it runs, and has said: {}", read(&self.log)))
        });
        (status, read(&self.log))
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has printed `text`.
    pub fn wait_for_output(&self, text: &str) {
        wait_for(text, || {
            let log = read(&self.log);
            check(log.contains(text), || log)
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), read(&self.log));
        }
    }
}

/// The text of a file; empty if there is none.
pub fn read(path: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(path) {
        file.read_to_string(&mut text).unwrap();
    }
    text
}
