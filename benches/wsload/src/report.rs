//! The one line of JSON that a run ends with.

use crate::{
    arguments::Arguments,
    engine::Engine,
    measure::{cpu_of, now_ns, own_cpu, own_wait},
};

/// All counters and clocks at one moment.
pub(crate) struct Moment {
    at: u64,
    own_cpu: f64,
    own_wait: f64,
    server: (f64, f64),
    delivered: u64,
    acked: u64,
    published: u64,
    reads: u64,
}

impl Moment {
    pub(crate) fn now(engine: &Engine, arguments: &Arguments) -> Self {
        Self {
            at: now_ns(),
            own_cpu: own_cpu(),
            own_wait: own_wait(),
            server: cpu_of(arguments.pid),
            delivered: engine.delivered,
            acked: engine.acked,
            published: engine.published,
            reads: engine.reads,
        }
    }
}

/// What happened between two moments. `idle_ns` of the generator's time was spent waiting; `more` are fields to add.
pub(crate) fn print(engine: &Engine, from: &Moment, to: &Moment, idle_ns: u64, more: &str) {
    let seconds = (to.at - from.at) as f64 / 1e9;
    let user = to.server.0 - from.server.0;
    let system = to.server.1 - from.server.1;
    let server = user + system;
    let own = (to.own_cpu - from.own_cpu - idle_ns as f64 / 1e9).max(0.0);
    let delivered = (to.delivered - from.delivered) as f64;
    let acked = (to.acked - from.acked) as f64;
    let published = (to.published - from.published) as f64;
    let reads = (to.reads - from.reads).max(1) as f64;
    let per_cpu = |count: f64| if server > 0.0 { count / server } else { 0.0 };
    println!(
        concat!(
            r#"{{"seconds":{:.3},"deliveries_s":{:.0},"published_s":{:.0},"acks_s":{:.0},"#,
            r#""deliveries_per_cpu_s":{:.0},"acks_per_cpu_s":{:.0},"#,
            r#""server_user":{:.3},"server_system":{:.3},"generator":{:.3},"generator_waited":{:.3},"#,
            r#""messages_per_read":{:.1},"errors":{},"first_error":{},{}}}"#
        ),
        seconds,
        delivered / seconds,
        published / seconds,
        acked / seconds,
        per_cpu(delivered),
        per_cpu(acked),
        user / seconds,
        system / seconds,
        own / seconds,
        (to.own_wait - from.own_wait) / seconds,
        delivered.max(acked) / reads,
        engine.errors,
        quoted(&engine.first_error),
        more,
    );
}

/// Says why there is nothing to say.
pub(crate) fn print_failure(engine: &Engine, why: &str) {
    println!(
        r#"{{"failed":{},"errors":{},"first_error":{}}}"#,
        quoted(why),
        engine.errors,
        quoted(&engine.first_error)
    );
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '.. => quoted.push(c),
            _ => quoted += &format!("\\u{:04x}", u32::from(c)),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_server_cannot_break_the_line() {
        assert_eq!(
            quoted("it \"said\"\r\n\\x"),
            r#""it \"said\"\u000d\u000a\\x""#
        );
    }
}
