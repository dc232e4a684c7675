//! The real program, as a child that can be killed.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use uuid::Uuid;

use super::{Client, PATIENCE};

/// A start that did not end with a server.
#[derive(Debug)]
pub struct Refused {
    /// Its exit code.
    pub code: Option<i32>,
    /// What was said on stderr until then.
    pub said: String,
}

/// The program on a free port, with a fresh folder of its own.
pub struct Process {
    child: Child,
    address: SocketAddr,
    variables: Vec<(String, String)>,
    prelude: Prelude,
    dir: TempDir,
}

/// What a shell does before it becomes the program.
type Prelude = Option<&'static str>;

impl Process {
    /// With these variables, their names without `INFOTAINER_`.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        Self::start_in(variables, &[])
    }

    /// With the signals, limits and so on that the shell's `prelude` leaves behind.
    pub fn start_behind(prelude: &'static str, variables: &[(&str, &str)]) -> Self {
        Self::started(Self::begin(variables, &[], Some(prelude)))
    }

    /// With these variables, if it starts.
    pub fn try_start(variables: &[(&str, &str)]) -> Result<Self, Refused> {
        Self::begin(variables, &[], None)
    }

    /// With these variables, and others whose names are whole.
    pub fn start_in(variables: &[(&str, &str)], others: &[(&str, &str)]) -> Self {
        Self::started(Self::begin(variables, others, None))
    }

    fn started(begun: Result<Self, Refused>) -> Self {
        begun.unwrap_or_else(|Refused { said, .. }| {
            panic!("the server does not say where it listens:\n{said}")
        })
    }

    fn begin(
        variables: &[(&str, &str)],
        others: &[(&str, &str)],
        prelude: Prelude,
    ) -> Result<Self, Refused> {
        let dir = TempDir::new().unwrap();
        let ours = variables
            .iter()
            .map(|(name, value)| (format!("INFOTAINER_{name}"), (*value).to_owned()));
        let others = others
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let variables: Vec<_> = ours.chain(others).collect();
        let (child, address) = spawn(&dir, &variables, prelude)?;
        Ok(Self {
            child,
            address,
            variables,
            prelude,
            dir,
        })
    }

    /// Starts it on a folder where it can't, and gives its exit code and what it said on stderr.
    pub fn refused(data_dir: &Path, variables: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut variables = variables.to_vec();
        variables.push(("DATA_DIR", data_dir.to_str().unwrap()));
        match Self::try_start(&variables) {
            Ok(_) => panic!("it says that it listens"),
            Err(Refused { code, said }) => (code, said),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its data lies.
    pub fn data_dir(&self) -> PathBuf {
        let mut variables = self.variables.iter();
        match variables.find(|(name, _)| name == "INFOTAINER_DATA_DIR") {
            Some((_, elsewhere)) => elsewhere.into(),
            None => self.dir.path().join("infotainer-data"),
        }
    }

    /// A client with a transient session.
    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// A client with this durable session.
    pub async fn resume(&self, session: Uuid) -> Client {
        Client::resume(self.address, session).await
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        send(signal, &self.child);
    }

    /// Waits until it ended by itself.
    pub async fn exited(&mut self) -> ExitStatus {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "the server did not end"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts it again on the same folder, after it ended.
    pub fn start_again(&mut self) {
        if let Err(Refused { said, .. }) = self.try_start_again() {
            panic!("the server does not say where it listens:\n{said}");
        }
    }

    /// Starts it again on the same folder, after it ended, if it starts.
    pub fn try_start_again(&mut self) -> Result<(), Refused> {
        (self.child, self.address) = spawn(&self.dir, &self.variables, self.prelude)?;
        Ok(())
    }

    /// Starts it again where it was reached before, after it ended: for clients that come back by themselves.
    pub fn start_again_there(&mut self) {
        let there = ("INFOTAINER_LISTEN".to_owned(), self.address.to_string());
        self.variables.push(there);
        self.start_again();
    }

    /// Starts it again, after it ended, and kills it after this time, wherever it is then.
    pub async fn start_for(&mut self, time: Duration) {
        self.child = launch(&self.dir, &self.variables, self.prelude);
        tokio::time::sleep(time).await;
        self.kill();
    }

    /// What it said on stderr until now.
    pub fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    /// Where the system tells about it.
    pub fn proc(&self) -> PathBuf {
        format!("/proc/{}", self.child.id()).into()
    }

    /// The memory that it has now, in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(self.proc().join("status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim()
            .strip_suffix(" kB")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            << 10
    }
}

/// Sends `signal`, such as `-TERM`. By the shell, which has it built in: the program for it is not everywhere.
pub fn send(signal: &str, child: &Child) {
    let line = format!("kill {signal} {}", child.id());
    let sent = Command::new("sh").args(["-c", &line]).status().unwrap();
    assert!(sent.success());
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        if thread::panicking()
            && let Ok(said) = fs::read_to_string(self.dir.path().join("stderr"))
        {
            println!("the server said on stderr:\n{said}");
        }
    }
}

/// Starts the program, which has not said anything yet.
fn launch(dir: &TempDir, variables: &[(String, String)], prelude: Prelude) -> Child {
    let stderr = File::options()
        .create(true)
        .append(true)
        .open(dir.path().join("stderr"))
        .unwrap();
    let program = env!("CARGO_BIN_EXE_infotainer");
    let mut command = match prelude {
        Some(prelude) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{prelude}; exec \"$0\""), program]);
            shell
        }
        None => Command::new(program),
    };
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("INFOTAINER_")) {
        command.env_remove(name);
    }
    command
        .current_dir(dir.path())
        .env("INFOTAINER_LISTEN", "127.0.0.1:0")
        .env("INFOTAINER_MAX_CONNECTIONS", "500")
        .envs(variables.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap()
}

/// Starts the program, and waits until it says where it listens, or ends.
fn spawn(
    dir: &TempDir,
    variables: &[(String, String)],
    prelude: Prelude,
) -> Result<(Child, SocketAddr), Refused> {
    let mut child = launch(dir, variables, prelude);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line
        .trim()
        .split_once(" listens on ")
        .and_then(|(_, url)| url.split_once("://"))
        .and_then(|(_, rest)| rest.strip_suffix("/ws"));
    let Some(address) = address else {
        assert!(line.is_empty(), "instead of where it listens: {line:?}");
        let code = child.wait().unwrap().code();
        let said = fs::read_to_string(dir.path().join("stderr")).unwrap();
        return Err(Refused { code, said });
    };
    let address = address.parse().unwrap();
    // What it says later is read as well, or it would wait for a reader.
    thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    Ok((child, address))
}
