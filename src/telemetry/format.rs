//! The two forms in which a scraper may want the same series. Pure.
//!
//! OpenMetrics is what is written; the older text format of Prometheus is made of it, for scrapers that know no other. Series
//! are the same in both, line for line: only what is said of them differs.

use std::fmt::Write as _;

use super::definitions::{ALL, Definition, Kind};

/// The form of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    /// Prometheus's own, version 0.0.4.
    Text,
}

impl Format {
    /// The one that an `Accept` header asks for: the older one unless the other is named.
    pub fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// An exposition in this form, given as OpenMetrics.
    pub fn of(self, openmetrics: String) -> String {
        match self {
            Self::OpenMetrics => openmetrics,
            Self::Text => text(&openmetrics),
        }
    }
}

fn text(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        // Units and the end are not said.
        let (Some(what @ ("HELP" | "TYPE")), Some(family), Some(rest)) =
            (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let definition = ALL.iter().find(|definition| is_of(definition, family));
        let name = definition.map_or_else(|| family.to_owned(), Definition::name);
        let rest = match (what, definition.map(|definition| definition.kind)) {
            ("TYPE", Some(Kind::Info)) => "gauge",
            _ => rest,
        };
        // Writing to a `String` does not fail.
        let _ = writeln!(out, "# {what} {name} {rest}");
    }
    out
}

/// Whether this is a metric's name in OpenMetrics, where what its kind adds is left out.
fn is_of(definition: &Definition, family: &str) -> bool {
    let name = definition.name();
    let suffix = match definition.kind {
        Kind::Counter => "_total",
        Kind::Info => "_info",
        Kind::Gauge | Kind::Histogram => "",
    };
    name.strip_suffix(suffix) == Some(family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_openmetrics_gets_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for other in ["", "*/*", "text/plain", "text/plain;version=0.0.4"] {
            assert_eq!(Format::accepted(other), Format::Text, "{other}");
        }
    }

    #[test]
    fn series_are_the_same_and_their_kinds_are_those_that_the_older_format_knows() {
        let openmetrics = "# HELP tidegate_requests Requests answered\n# TYPE tidegate_requests counter\n\
            tidegate_requests_total{route=\"a\"} 1\n# HELP tidegate_request_duration_seconds From\n\
            # TYPE tidegate_request_duration_seconds histogram\n# UNIT tidegate_request_duration_seconds seconds\n\
            tidegate_request_duration_seconds_count 0\n# HELP tidegate_build Version\n# TYPE tidegate_build info\n\
            tidegate_build_info{version=\"1\"} 1\n# EOF\n";
        let text = "# HELP tidegate_requests_total Requests answered\n# TYPE tidegate_requests_total counter\n\
            tidegate_requests_total{route=\"a\"} 1\n# HELP tidegate_request_duration_seconds From\n\
            # TYPE tidegate_request_duration_seconds histogram\n\
            tidegate_request_duration_seconds_count 0\n# HELP tidegate_build_info Version\n\
            # TYPE tidegate_build_info gauge\ntidegate_build_info{version=\"1\"} 1\n";
        assert_eq!(Format::Text.of(openmetrics.to_owned()), text);
        assert_eq!(Format::OpenMetrics.of(openmetrics.to_owned()), openmetrics);
    }
}
