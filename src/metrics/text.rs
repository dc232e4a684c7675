//! The two text formats: OpenMetrics, as `prometheus-client` writes it, and Prometheus' own, which is made of that.

/// The content type of OpenMetrics.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of Prometheus' own format.
pub(crate) const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// OpenMetrics as Prometheus' own format, which older collectors read: there a family of counters is named as its samples are, and an
/// info is a gauge.
pub(crate) fn to_classic(open_metrics: &str) -> String {
    let mut classic = String::with_capacity(open_metrics.len() + 1024);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|family| family.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take() {
                classic += &format!("# HELP {name}{suffix} {help}\n");
            }
            classic += &format!("# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            classic += line;
            classic.push('\n');
        }
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_named_as_its_samples_are() {
        let open_metrics = "# HELP a Of a.\n# TYPE a counter\na_total{b=\"c\"} 1\n# HELP d Of d.\n# TYPE d gauge\nd 2\n\
                            # HELP e Of e.\n# TYPE e info\ne_info{f=\"g\"} 1\n# EOF\n";
        assert_eq!(
            to_classic(open_metrics),
            "# HELP a_total Of a.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n# HELP d Of d.\n# TYPE d gauge\nd 2\n\
             # HELP e_info Of e.\n# TYPE e_info gauge\ne_info{f=\"g\"} 1\n"
        );
    }
}
