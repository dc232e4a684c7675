//! What one run is to do: the command line.

use std::{collections::HashMap, net::SocketAddrV4, str::FromStr};

pub(crate) const HELP: &str = "usage: wsload SCENARIO --protocol PROTOCOL --address 127.0.0.1:PORT --pid PID [options]
       wsload limit --address 127.0.0.1:PORT [--cpu N] [--seconds 120] [--file FILE] [--sync]

Puts one bounded load on a server on loopback, and prints one JSON object. Scenarios:

  fanout  closed loop: publishers run at most --window messages ahead of what their subscribers got
          --topics 1 --subscribers 100 (of each) --window 256 (of each topic)
  latency open loop: --rate publications a second, their time of sending in the payload; it spins
          --topics 1 --subscribers 100 --rate 1000 (of each topic)
  publish --publishers 1 connections with --in-flight 1 unacknowledged publishes each; --count N ends it at N answers
  idle    opens --connections 10000 subscribed to --topics 100, and looks --settle 5 seconds later
  replay  one new subscriber gets --count 1000000 that are stored
  limit   a server: the least that one could do, for comparison

Protocols: infotainer, nats (over WebSocket), mqtt and redis (over TCP), raw (that of limit).
All: --cpu 1 --size 128 --seconds 5 --warm 1. --pid is the server's, whose CPU time and memory are told.";

/// Where an option is not given, its default holds.
pub(crate) struct Arguments {
    pub(crate) scenario: String,
    pub(crate) address: SocketAddrV4,
    pub(crate) pid: u32,
    options: HashMap<String, String>,
}

/// A command line that can't be understood.
pub(crate) type Misused = String;

impl Arguments {
    pub(crate) fn parse(mut given: impl Iterator<Item = String>) -> Result<Self, Misused> {
        let scenario = given.next().ok_or(HELP)?;
        let mut options = HashMap::new();
        let mut given = given.peekable();
        while let Some(option) = given.next() {
            let name = option
                .strip_prefix("--")
                .ok_or_else(|| format!("not an option: {option}"))?;
            let value = given.next_if(|value| !value.starts_with("--"));
            options.insert(name.to_owned(), value.unwrap_or_default());
        }
        let mut arguments = Self {
            scenario,
            address: SocketAddrV4::new([127, 0, 0, 1].into(), 0),
            pid: 0,
            options,
        };
        arguments.address = arguments.value("address", arguments.address)?;
        arguments.pid = arguments.value("pid", 0)?;
        if !arguments.address.ip().is_loopback() {
            return Err("loopback addresses only".to_owned());
        }
        Ok(arguments)
    }

    pub(crate) fn value<T: FromStr>(&self, name: &str, default: T) -> Result<T, Misused> {
        match self.options.get(name) {
            Some(value) => value
                .parse()
                .map_err(|_| format!("--{name} can't be {value:?}")),
            None => Ok(default),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    /// Seconds, as nanoseconds.
    pub(crate) fn nanoseconds(&self, name: &str, default: f64) -> Result<u64, Misused> {
        Ok((self.value(name, default)? * 1e9) as u64)
    }
}
