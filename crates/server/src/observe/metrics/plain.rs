//! Converts OpenMetrics to Prometheus' older text format (0.0.4). Some scrapers read only that,
//! among them the Gateway API's inference extension.
//!
//! Samples have the same syntax. In the older format, a counter's family has the name of its
//! samples, and there is no type `info`, no `UNIT` and no `EOF`.

use std::fmt::Write as _;

/// Converts `openmetrics`.
pub(crate) fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // The help of a family precedes its type, on which the family's name depends.
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("HELP"), Some(family), Some(what)) => help = Some((family, what)),
            (Some("TYPE"), Some(family), Some(kind)) => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    "unknown" => ("", "untyped"),
                    other => ("", other),
                };
                if let Some((_, what)) = help.take().filter(|(of, _)| *of == family) {
                    let _ = writeln!(text, "# HELP {family}{suffix} {what}");
                }
                let _ = writeln!(text, "# TYPE {family}{suffix} {kind}");
            }
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_called_as_their_samples_are() {
        let open = "# HELP a_seconds Time.\n# TYPE a_seconds counter\n# UNIT a_seconds seconds\na_seconds_total{x=\"# y\"} 3\n\
                    # HELP b What.\n# TYPE b info\nb_info{v=\"1\"} 1\n# HELP c C.\n# TYPE c gauge\nc 2.5\n# EOF\n";
        let expected = "# HELP a_seconds_total Time.\n# TYPE a_seconds_total counter\na_seconds_total{x=\"# y\"} 3\n\
                        # HELP b_info What.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n# HELP c C.\n# TYPE c gauge\nc 2.5\n";
        assert_eq!(plain(open), expected);
    }
}
