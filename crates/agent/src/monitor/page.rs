//! The text format of Prometheus, version 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::{Display, Write};

use fieldlock_transport::counter::{BOUNDS, Histogram};
use tokio::task::yield_now;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A page of metrics while it is written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    /// Length of the text when the data path had its turn last.
    breathed: usize,
}

/// Text that is written in one go, in octets.
const BREATH: usize = 16 * 1024;

/// Name and value of each label.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page {
    /// Begins a family of metrics. All its samples follow before the next one begins.
    pub fn family(&mut self, kind: Kind, name: &'static str, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String can't fail, here and below.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { page: self, name }
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, kind: Kind, name: &'static str, help: &str, value: impl Display) {
        self.family(kind, name, help).add(&[], value);
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

/// One family of metrics.
#[derive(Debug)]
pub struct Family<'a> {
    page: &'a mut Page,
    name: &'static str,
}

impl Family<'_> {
    pub fn add(&mut self, labels: Labels<'_>, value: impl Display) {
        self.sample("", labels, None, value);
    }

    pub fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) {
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        let mut count = 0;
        for (bound, more) in bounds.zip(histogram.counts()) {
            count += more;
            self.sample("_bucket", labels, Some(bound), count);
        }
        self.sample("_sum", labels, None, histogram.seconds());
        self.sample("_count", labels, None, count);
    }

    /// Lets the data path go on when much has been written since it had its turn last.
    pub async fn breathe(&mut self) {
        if self.page.text.len() >= self.page.breathed + BREATH {
            self.page.breathed = self.page.text.len();
            yield_now().await;
        }
    }

    fn sample(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        bound: Option<&str>,
        value: impl Display,
    ) {
        let text = &mut self.page.text;
        text.push_str(self.name);
        text.push_str(suffix);
        let bound = bound.map(|bound| ("le", bound));
        let mut open = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            text.push(open);
            text.push_str(name);
            text.push_str("=\"");
            escape(value, text);
            text.push('"');
            open = ',';
        }
        if open == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

fn escape(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            character => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn samples_stand_below_their_family_with_labels_escaped() {
        let mut page = Page::default();
        let mut family = page.family(Kind::Gauge, "a_seconds", "What it is.");
        family.add(&[("b", "c\"\\\n")], 1.5);
        family.add(&[("b", "d"), ("e", "f")], 2);
        page.single(Kind::Counter, "g_total", "G.", 3);
        assert_eq!(
            page.into_text(),
            "# HELP a_seconds What it is.\n# TYPE a_seconds gauge\n\
             a_seconds{b=\"c\\\"\\\\\\n\"} 1.5\na_seconds{b=\"d\",e=\"f\"} 2\n\
             # HELP g_total G.\n# TYPE g_total counter\ng_total 3\n"
        );
    }

    #[test]
    fn the_buckets_of_a_histogram_add_up() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(300));
        histogram.observe(Duration::from_millis(30));
        let mut page = Page::default();
        let mut family = page.family(Kind::Histogram, "t_seconds", "T.");
        family.histogram(&[("d", "x")], &histogram);
        let text = page.into_text();
        for line in [
            "t_seconds_bucket{d=\"x\",le=\"0.00025\"} 0\n",
            "t_seconds_bucket{d=\"x\",le=\"0.0005\"} 1\n",
            "t_seconds_bucket{d=\"x\",le=\"0.05\"} 2\n",
            "t_seconds_bucket{d=\"x\",le=\"+Inf\"} 2\n",
            "t_seconds_sum{d=\"x\"} 0.0303\n",
            "t_seconds_count{d=\"x\"} 2\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
