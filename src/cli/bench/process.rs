//! The server's process, where it is on this machine: which it is, and what it uses.
//!
//! It is named by `--pid`, or found: the kernel's table of sockets has the other end of a connection only if that is on this machine too,
//! and whose open files hold that socket is the process that answers. So whatever else listens somewhere is never taken for the
//! server; a proxy in front of it would be, which is why the process is told by its name. That needs Linux, and the right to
//! look at the process (its own user, or root); without them the load goes on without its CPU.

use std::{
    fmt, fs, io,
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;

use super::{
    LoadError,
    args::Target,
    connection::Connection,
    report::{grouped, ratio},
};

/// Linux tells the time of a process in these, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process on this machine.
#[derive(Clone, Serialize)]
pub(super) struct Process {
    pid: u32,
    /// What the kernel calls it.
    name: String,
}

/// What the server's process used.
#[derive(Serialize)]
pub(super) struct ServerCpu {
    process: Process,
    pub(super) seconds: f64,
    /// Of the load's work: 0 while less than one tick was used.
    per_cpu_second: f64,
}

/// The server's process at the beginning of a load.
pub(super) struct CpuMeter {
    process: Option<Process>,
    before: f64,
}

impl Process {
    /// The server's, if it is named or can be found.
    ///
    /// # Errors
    /// If nobody answers, or no process has the number that was given.
    pub(super) async fn of_server(target: &Target) -> Result<Option<Self>, LoadError> {
        if let Some(pid) = target.pid {
            return Self::named(pid)
                .map(Some)
                .map_err(|error| LoadError::Pid(pid, error));
        }
        let connection = Connection::open(&target.server).await?;
        let (here, there) = connection.ends()?;
        Ok(socket_between(there, here)
            .and_then(|inode| holder(&inode))
            .and_then(|pid| Self::named(pid).ok()))
    }

    fn named(pid: u32) -> io::Result<Self> {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
        Ok(Self {
            pid,
            name: name.trim_end().to_owned(),
        })
    }

    /// Bytes of memory that it has resident (proc_pid_status(5)).
    pub(super) fn resident(&self) -> Result<u64, LoadError> {
        let status = self.read("status")?;
        let kib = status.lines().find_map(|line| {
            let rest = line.strip_prefix("VmRSS:")?;
            rest.split_whitespace().next()?.parse::<u64>().ok()
        });
        kib.map(|kib| kib * 1024).ok_or_else(|| self.unreadable())
    }

    /// User and system time of all its threads (proc_pid_stat(5), fields 14 and 15).
    fn cpu_seconds(&self) -> Result<f64, LoadError> {
        used_ticks(&self.read("stat")?)
            .map(|ticks| ticks as f64 / TICKS_PER_SECOND)
            .ok_or_else(|| self.unreadable())
    }

    fn read(&self, file: &str) -> Result<String, LoadError> {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid))
            .map_err(|error| LoadError::Pid(self.pid, error))
    }

    fn unreadable(&self) -> LoadError {
        LoadError::Pid(self.pid, io::ErrorKind::InvalidData.into())
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}, {}", self.pid, self.name)
    }
}

impl CpuMeter {
    pub(super) fn start(process: Option<Process>) -> Result<Self, LoadError> {
        let before = process.as_ref().map_or(Ok(0.0), Process::cpu_seconds)?;
        Ok(Self { process, before })
    }

    /// What was used since the start, for `work` things.
    pub(super) fn used(self, work: u64) -> Result<Option<ServerCpu>, LoadError> {
        let Some(process) = self.process else {
            return Ok(None);
        };
        let seconds = process.cpu_seconds()? - self.before;
        Ok(Some(ServerCpu {
            process,
            seconds,
            per_cpu_second: ratio(work as f64, seconds),
        }))
    }
}

impl fmt::Display for ServerCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} s, {} per CPU second ({})",
            self.seconds,
            grouped(self.per_cpu_second),
            self.process
        )
    }
}

/// The inode of the TCP socket on this machine whose own end is `own`, and whose other one is `other` (proc_pid_net(5)).
fn socket_between(own: SocketAddr, other: SocketAddr) -> Option<String> {
    // A socket that listens for both versions of IP has those of version 4 in the table of version 6.
    [("/proc/net/tcp", as_is as Form), ("/proc/net/tcp6", mapped)]
        .iter()
        .find_map(|(table, form)| {
            let table = fs::read_to_string(table).ok()?;
            inode_between(&table, &spelled(own, *form), &spelled(other, *form))
        })
}

type Form = fn(IpAddr) -> IpAddr;

fn as_is(ip: IpAddr) -> IpAddr {
    ip
}

fn mapped(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(_) => ip,
    }
}

fn inode_between(table: &str, own: &str, other: &str) -> Option<String> {
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_between = fields.next()? == own && fields.next()? == other;
        let inode = is_between.then(|| fields.nth(6))??;
        (inode != "0").then(|| inode.to_owned())
    })
}

/// As the kernel writes it: words of an address as the machine has them, in hexadecimal digits.
fn spelled(address: SocketAddr, form: Form) -> String {
    let words = |bytes: &[u8]| -> String {
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|word| format!("{:08X}", u32::from_ne_bytes(*word)))
            .collect()
    };
    let ip = match form(address.ip()) {
        IpAddr::V4(ip) => words(&ip.octets()),
        IpAddr::V6(ip) => words(&ip.octets()),
    };
    format!("{ip}:{:04X}", address.port())
}

/// The process that has this socket open.
fn holder(inode: &str) -> Option<u32> {
    let socket = format!("socket:[{inode}]");
    let holds = |pid: u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        files
            .flatten()
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| target.as_os_str() == socket.as_str())
            .then_some(pid)
    };
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find_map(holds)
}

fn used_ticks(stat: &str) -> Option<u64> {
    // The program's name is in parentheses, and may hold anything.
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 9 0 100";
        assert_eq!(used_ticks(stat), Some(300));
        assert_eq!(used_ticks("7 (a"), None);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn of_two_ends_of_a_connection_the_one_that_is_asked_for_is_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:22F5 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 0100007F:22F5 0100007F:A001 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 20 4 30 10 -1
   2: 0100007F:A001 0100007F:22F5 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0 20 4 30 10 -1
   3: 0100007F:22F5 0100007F:A002 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1
";
        let end = |port| spelled(SocketAddr::from(([127, 0, 0, 1], port)), as_is);
        assert_eq!(
            inode_between(table, &end(8949), &end(40961)).as_deref(),
            Some("12")
        );
        assert_eq!(
            inode_between(table, &end(40961), &end(8949)).as_deref(),
            Some("13")
        );
        // Nobody has accepted the third, and there is no fourth.
        for port in [40962, 40963] {
            assert_eq!(inode_between(table, &end(8949), &end(port)), None);
        }
        let v6 = spelled(SocketAddr::from(([127, 0, 0, 1], 1)), mapped);
        assert_eq!(v6, "0000000000000000FFFF00000100007F:0001");
    }
}
