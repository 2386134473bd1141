//! The admin listener's `/metrics`, read.

/// One scrape in Prometheus' text format.
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// Reads `text`.
    pub fn new(text: String) -> Self {
        Self { text }
    }

    /// The sum of all series of `name` that carry every one of `labels`; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name)
            .filter(|series| {
                labels
                    .iter()
                    .all(|(key, value)| series.contains(&format!("{key}=\"{value}\"")))
            })
            .filter_map(|series| series.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// The whole scrape.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The scrape without comments and buckets, for people who read a failed test.
    pub fn values(&self) -> String {
        let lines = self.text.lines();
        let values = lines.filter(|line| !line.starts_with('#') && !line.contains("_bucket{"));
        values.collect::<Vec<_>>().join("\n")
    }

    fn series<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.lines().filter(move |line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
    }
}
