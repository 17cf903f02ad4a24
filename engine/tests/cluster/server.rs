//! One `curia agent` process: how is it started, watched and ended?

use std::{
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{PATIENCE, http::Http, wait_for};

/// Lines of a server's log that a failing test prints.
const LOG_LINES_SHOWN: usize = 60;

/// A server that can be started, killed, paused and started again on the same data.
pub struct Server {
    pub name: String,
    pub ip: IpAddr,
    pub data: PathBuf,
    /// What is common to all its starts.
    pub flags: Vec<String>,
    /// The same of its environment.
    pub env: Vec<(String, String)>,
    log: PathBuf,
    temporary: PathBuf,
    child: Option<Child>,
    paused: bool,
}

impl Server {
    /// A server that was never started. Its log and temporary directory lie beside its data.
    pub fn new(home: &Path, name: &str, ip: IpAddr, flags: Vec<String>) -> Self {
        let temporary = home.join(format!("{name}.tmp"));
        fs::create_dir_all(&temporary).expect("the test's directory is writable");
        Self {
            name: name.to_owned(),
            ip,
            data: home.join(name),
            flags,
            env: Vec::new(),
            log: home.join(format!("{name}.log")),
            temporary,
            child: None,
            paused: false,
        }
    }

    pub fn http_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 8500)
    }

    pub fn server_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 8300)
    }

    /// A client with the harness's patience.
    pub fn http(&self) -> Http {
        Http::new(self.http_address(), PATIENCE)
    }

    /// Where the server's temporary files go (`-dev`).
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Starts the process. Its output is appended to its log.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.child = Some(self.command().spawn().expect("the curia binary starts"));
        self.paused = false;
    }

    /// Runs the process to its end, which must come by itself; its status and what it said.
    pub fn run_to_its_end(&mut self) -> (ExitStatus, String) {
        let before = self.log_text().len();
        self.start();
        let status = self.wait_for_exit();
        (status, self.log_text()[before..].to_owned())
    }

    fn command(&self) -> Command {
        let output = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("the log can be opened");
        let mut command = Command::new(env!("CARGO_BIN_EXE_curia"));
        command
            .arg("agent")
            .args(&self.flags)
            .env("TMPDIR", &self.temporary)
            .env("RUST_BACKTRACE", "1")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a descriptor can be duplicated"))
            .stderr(output);
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
            );
        }
        command
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn pid(&self) -> i32 {
        self.child
            .as_ref()
            .unwrap_or_else(|| panic!("{} does not run", self.name))
            .id() as i32
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes no pointers; the child is ours and not yet waited for.
        let sent = unsafe { libc::kill(self.pid(), signal) };
        assert_eq!(sent, 0, "signal {signal} to {}", self.name);
    }

    /// `kill -9`, and waits until the process is gone.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        let status = self.wait_for_exit();
        assert_eq!(
            status.signal(),
            Some(libc::SIGKILL),
            "{} had ended before it was killed: {status}",
            self.name
        );
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.wait_for_exit();
        assert!(
            status.success(),
            "{} did not stop cleanly: {status}",
            self.name
        );
    }

    /// The same for a server that may just have been started: the signal may come before it is
    /// awaited, and ends the process then and there.
    pub fn stop_at_any_time(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.wait_for_exit();
        assert!(
            status.success() || status.signal() == Some(libc::SIGTERM),
            "{} did not stop cleanly: {status}",
            self.name
        );
    }

    /// Stops the process from running, and knows that it has.
    pub fn pause(&mut self) {
        self.signal(libc::SIGSTOP);
        self.paused = true;
        let stat = format!("/proc/{}/stat", self.pid());
        wait_for("a stopped process", || {
            let text = fs::read_to_string(&stat).map_err(|e| e.to_string())?;
            let state = text.rsplit(") ").next().unwrap_or_default().chars().next();
            super::check(state == Some('T'), || format!("state {state:?}"))
        });
    }

    /// Lets it run on.
    pub fn resume(&mut self) {
        self.signal(libc::SIGCONT);
        self.paused = false;
    }

    /// Waits until the process ends by itself.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let mut child = self
            .child
            .take()
            .unwrap_or_else(|| panic!("{} does not run", self.name));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return status;
            }
            if Instant::now() > deadline {
                self.child = Some(child);
                panic!("{} did not end within {PATIENCE:?}", self.name);
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// The status of a process that has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()?
            .try_wait()
            .expect("a child can be waited for")
    }

    pub fn log_text(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until the log holds `text`.
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("{} says {text:?}", self.name), || {
            super::check(self.log_text().contains(text), || "it did not".to_owned())
        });
    }

    /// Prints the end of the log.
    pub fn show_log(&self) {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!(
            "---- {} ({} lines, the last shown; data in {})",
            self.name,
            lines.len(),
            self.data.display()
        );
        for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
            eprintln!("{line}");
        }
    }

    /// Removes what the server stored.
    pub fn wipe(&self) {
        assert!(self.child.is_none(), "{} still runs", self.name);
        fs::remove_dir_all(&self.data).expect("the data directory can be removed");
    }

    /// Files of its first executor's log, in order.
    pub fn segments(&self) -> Vec<PathBuf> {
        self.segments_of(0)
    }

    /// Files of an executor's log, in order.
    pub fn segments_of(&self, executor: usize) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.data.join(format!("log-{executor}")))
            .expect("the log's folder can be read")
            .map(|entry| entry.expect("an entry can be read").path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "segment")
            })
            .collect();
        files.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
        files
    }

    /// Names of its finished images.
    pub fn images(&self) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.data.join("images")) else {
            return Vec::new();
        };
        files
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Counters and gauges of `/v1/agent/metrics`.
    pub fn metric(&self, name: &str) -> f64 {
        let answer = self
            .http()
            .get("/v1/agent/metrics")
            .expect("metrics are always answered");
        let json = answer.json();
        let all = ["Gauges", "Counters"]
            .into_iter()
            .filter_map(|kind| json[kind].as_array())
            .flatten();
        let found = all.into_iter().find(|metric| metric["Name"] == name);
        found
            .and_then(|metric| metric["Value"].as_f64())
            .unwrap_or_else(|| panic!("no metric {name}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            self.show_log();
        }
    }
}
