//! What load is put on a server, and when it ends. Each ends with one line of JSON, or with one that says why there is none.

use crate::{
    adapter::{Role, adapter},
    arguments::{Arguments, Misused},
    engine::{Engine, Wanted},
    measure::{now_ns, resident_kib},
    report::{Moment, print, print_failure},
};

/// A publisher with so many unsent bytes gets no more for now.
const LARGEST_BACKLOG: usize = 1 << 20;
/// When nothing came for so long, the server dropped what is missing.
const LOST_AFTER_NS: u64 = 300_000_000;
/// How long what is still on its way may take at the end.
const DRAIN_NS: u64 = 10_000_000_000;
/// The digits of a time stamp in front of a payload.
const STAMP: usize = 16;

enum Failure {
    /// The command line can't be understood.
    Misused(Misused),
    /// The server did not do what it should.
    Failed(String),
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// Whether it succeeded.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, Misused> {
    let topics = arguments.value("topics", 1)?;
    let protocol = arguments.text("protocol").unwrap_or_default();
    let adapter = adapter(protocol, arguments.scenario == "replay")
        .ok_or_else(|| format!("--protocol can't be {protocol:?}"))?;
    let mut engine =
        Engine::new(adapter, arguments.address, topics).map_err(|error| error.to_string())?;
    let done = match arguments.scenario.as_str() {
        "fanout" => fanout(arguments, &mut engine, topics),
        "latency" => latency(arguments, &mut engine, topics),
        "publish" => publish(arguments, &mut engine),
        "idle" => idle(arguments, &mut engine, topics),
        _ => replay(arguments, &mut engine),
    };
    match done {
        Ok(()) => Ok(true),
        Err(Failure::Misused(misused)) => Err(misused),
        Err(Failure::Failed(why)) => {
            print_failure(&engine, &why);
            Ok(false)
        }
    }
}

/// An option's value; what can't be one is the caller's fault.
macro_rules! option {
    ($arguments:expr, $how:ident, $name:literal, $default:expr) => {
        $arguments.$how($name, $default).map_err(Failure::Misused)?
    };
}

fn subscribers(topics: usize, of_each: usize) -> Vec<Wanted> {
    let one = |number| Wanted {
        role: Role::Subscriber,
        topic: (number % topics) as u32,
        slots: 0,
    };
    (0..topics * of_each).map(one).collect()
}

/// Connects the subscribers, then one publisher for each topic; says which number the first of these has.
fn connect(engine: &mut Engine, topics: usize, of_each: usize) -> Result<usize, String> {
    engine.connect_all(&subscribers(topics, of_each), 60.0)?;
    let first = engine.connections.len();
    let publisher = |topic| Wanted {
        role: Role::Publisher,
        topic,
        slots: 0,
    };
    let publishers: Vec<_> = (0..topics as u32).map(publisher).collect();
    engine.connect_all(&publishers, 20.0)?;
    Ok(first)
}

/// Polls until so much was delivered, or nothing comes any more.
fn drain(engine: &mut Engine, wanted: u64, quiet_ns: u64) {
    let began = now_ns();
    let mut last = (engine.delivered, began);
    while engine.delivered < wanted && now_ns() - began < DRAIN_NS && now_ns() - last.1 < quiet_ns {
        engine.poll(10);
        if engine.delivered != last.0 {
            last = (engine.delivered, now_ns());
        }
    }
}

fn fanout(arguments: &Arguments, engine: &mut Engine, topics: usize) -> Result<(), Failure> {
    let of_each = option!(arguments, value, "subscribers", 100_usize);
    let window = option!(arguments, value, "window", 256_u64);
    let warm = option!(arguments, nanoseconds, "warm", 1.0);
    let measured = option!(arguments, nanoseconds, "seconds", 5.0);
    let payload = vec![b'x'; option!(arguments, value, "size", 128)];
    let first = connect(engine, topics, of_each)?;
    let each = of_each as u64;
    let mut sent = vec![0_u64; topics];
    // Deliveries that are written off.
    let mut lost = vec![0_u64; topics];
    let began = now_ns();
    let (mut from, mut last) = (None, (0, began));
    let (from, to) = loop {
        let now = now_ns();
        if now >= began + warm && from.is_none() {
            from = Some(Moment::now(engine, arguments));
        }
        if let Some(from) = from.take_if(|_| now >= began + warm + measured) {
            break (from, Moment::now(engine, arguments));
        }
        for topic in 0..topics {
            let done = (engine.delivered_by_topic[topic] + lost[topic]) / each;
            let room = window.saturating_sub(sent[topic].saturating_sub(done));
            if room > 0 && engine.backlog(first + topic) < LARGEST_BACKLOG {
                for _ in 0..room {
                    engine.publish(first + topic, 0, &payload);
                }
                sent[topic] += room;
                engine.flush(first + topic);
            }
        }
        engine.poll(1);
        if engine.delivered != last.0 {
            last = (engine.delivered, now);
        } else if now - last.1 > LOST_AFTER_NS {
            for topic in 0..topics {
                lost[topic] = sent[topic] * each - engine.delivered_by_topic[topic];
            }
            last.1 = now;
        }
        engine.all_alive()?;
    };
    let wanted = sent.iter().sum::<u64>() * each;
    drain(engine, wanted, 1_000_000_000);
    let lost = wanted.saturating_sub(engine.delivered);
    print(engine, &from, &to, 0, &format!(r#""lost":{lost}"#));
    Ok(())
}

fn stamp(payload: &mut [u8], time: u64) {
    for (place, digit) in payload[..STAMP].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(time >> (60 - 4 * place)) as usize & 15];
    }
}

fn latency(arguments: &Arguments, engine: &mut Engine, topics: usize) -> Result<(), Failure> {
    let of_each = option!(arguments, value, "subscribers", 100_usize);
    let rate = option!(arguments, value, "rate", 1000.0);
    let warm = option!(arguments, nanoseconds, "warm", 1.0);
    let measured = option!(arguments, nanoseconds, "seconds", 5.0);
    let mut payload = vec![b'x'; option!(arguments, value, "size", 128).max(STAMP)];
    let first = connect(engine, topics, of_each)?;
    engine.measures_latency = true;
    let step = 1e9 / (rate * topics as f64);
    let began = now_ns();
    let (mut from, mut sent, mut idle, mut late) = (None, 0_u64, 0, 0);
    let (from, to) = loop {
        let now = now_ns();
        if now >= began + warm && from.is_none() {
            engine.latency.clear();
            (idle, late) = (0, 0);
            from = Some(Moment::now(engine, arguments));
        }
        if let Some(from) = from.take_if(|_| now >= began + warm + measured) {
            break (from, Moment::now(engine, arguments));
        }
        let due = began + (sent as f64 * step) as u64;
        if now >= due {
            late = late.max(now - due);
            let publisher = first + sent as usize % topics;
            stamp(&mut payload, now_ns());
            engine.publish(publisher, 0, &payload);
            engine.flush(publisher);
            sent += 1;
        }
        let polled = now_ns();
        if engine.poll(0) == 0 {
            idle += now_ns() - polled;
        }
        engine.all_alive()?;
    };
    let wanted = sent * of_each as u64;
    let more = format!(
        r#"{},"generator_late_us":{:.1}"#,
        engine.latency.json(),
        late as f64 / 1e3
    );
    drain(engine, wanted, 3_000_000_000);
    let lost = wanted.saturating_sub(engine.delivered);
    let more = format!(r#"{more},"lost":{lost}"#);
    print(engine, &from, &to, idle, &more);
    Ok(())
}

fn publish(arguments: &Arguments, engine: &mut Engine) -> Result<(), Failure> {
    let publishers = option!(arguments, value, "publishers", 1_usize);
    let slots = option!(arguments, value, "in-flight", 1_u32);
    let count = option!(arguments, value, "count", u64::MAX);
    let by_count = count < u64::MAX;
    let warm = if by_count {
        0
    } else {
        option!(arguments, nanoseconds, "warm", 1.0)
    };
    let measured = option!(arguments, nanoseconds, "seconds", 5.0);
    let payload = vec![b'x'; option!(arguments, value, "size", 128)];
    let wanted = Wanted {
        role: Role::Publisher,
        topic: 0,
        slots,
    };
    engine.connect_all(&vec![wanted; publishers], 30.0)?;
    let began = now_ns();
    let (mut from, mut sent) = (None, 0);
    let mut with_room: Vec<usize> = (0..publishers).collect();
    let (from, to) = loop {
        let now = now_ns();
        if now >= began + warm && from.is_none() {
            engine.ack_latency.clear();
            from = Some(Moment::now(engine, arguments));
        }
        let ended = now >= began + warm + measured || engine.acked + engine.refused >= count;
        if let Some(from) = from.take_if(|_| ended) {
            break (from, Moment::now(engine, arguments));
        }
        for number in with_room.drain(..) {
            while sent < count {
                let connection = &mut engine.connections[number];
                let Some(slot) = connection.free.pop_front() else {
                    break;
                };
                connection.sent_at[slot as usize] = now_ns();
                engine.publish(number, slot, &payload);
                sent += 1;
            }
            engine.flush(number);
        }
        engine.poll(1);
        std::mem::swap(&mut with_room, &mut engine.answered);
        engine.all_alive()?;
    };
    let more = format!(
        r#"{},"acked":{},"refused":{}"#,
        engine.ack_latency.json(),
        engine.acked,
        engine.refused
    );
    print(engine, &from, &to, 0, &more);
    Ok(())
}

fn idle(arguments: &Arguments, engine: &mut Engine, topics: usize) -> Result<(), Failure> {
    let connections = option!(arguments, value, "connections", 10_000_usize);
    let settle = option!(arguments, nanoseconds, "settle", 5.0);
    let before = resident_kib(arguments.pid);
    let from = Moment::now(engine, arguments);
    engine.connect_all(&subscribers(topics, connections.div_ceil(topics)), 100.0)?;
    let settled = now_ns() + settle;
    while now_ns() < settled {
        engine.poll(50);
        engine.all_alive()?;
    }
    let to = Moment::now(engine, arguments);
    let grown = resident_kib(arguments.pid) as f64 - before as f64;
    let each = grown * 1024.0 / engine.connections.len() as f64;
    print(
        engine,
        &from,
        &to,
        0,
        &format!(r#""bytes_per_connection":{each:.0}"#),
    );
    Ok(())
}

fn replay(arguments: &Arguments, engine: &mut Engine) -> Result<(), Failure> {
    let count = option!(arguments, value, "count", 1_000_000_u64);
    let limit = option!(arguments, nanoseconds, "seconds", 60.0);
    let from = Moment::now(engine, arguments);
    let began = now_ns();
    engine.connect_all(&subscribers(1, 1), 10.0)?;
    while engine.delivered < count {
        engine.poll(100);
        engine.all_alive()?;
        if now_ns() - began > limit {
            return Err(format!("only {} of {count} came", engine.delivered).into());
        }
    }
    let to = Moment::now(engine, arguments);
    print(engine, &from, &to, 0, &format!(r#""count":{count}"#));
    Ok(())
}
