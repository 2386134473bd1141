//! Lines: into files, and to webhooks.

use std::fs;
use std::io::Read;
use std::path::Path;

use super::*;

fn sinks(sinks: Vec<Sink>) -> Exports {
    start_with(vec![], sinks, pace())
}

fn lines(text: &[u8]) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(text).unwrap();
    assert!(text.ends_with('\n'));
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn ids(path: &Path) -> Vec<u128> {
    let lines = lines(&fs::read(path).unwrap());
    let ids = lines.iter().map(|line| line["id"].as_str().unwrap());
    ids.map(|id| id.parse::<Uuid>().unwrap().as_u128())
        .collect()
}

/// All names and values of a record, as the access log has them.
fn facts(record: &RequestRecord) -> serde_json::Value {
    let mut facts = serde_json::Map::new();
    record.fields(|name, value| {
        use crate::record::Value;
        let value = match value {
            Value::Text(text) => text.into(),
            Value::Number(number) => number.into(),
            Value::Flag(flag) => flag.into(),
            Value::Milliseconds(number) => format!("{number:.3}").parse::<f64>().unwrap().into(),
            Value::Dollars(cost) => cost.to_string().parse::<f64>().unwrap().into(),
        };
        facts.insert(name.to_owned(), value);
    });
    facts.into()
}

#[test]
fn a_line_has_every_fact_of_the_access_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("requests.ndjson");
    let hook = Collector::new();
    let webhook = Sink::Webhook {
        url: format!("{}/hook?key=1", hook.url()),
        headers: vec![header("x-key", "secret-value")],
        ca: None,
    };
    let exports = sinks(vec![Sink::File(path.clone()), webhook]);
    let record = rich(&gateway());
    exports.offer(&record, None);
    exports.offer(&plain(2), None);
    assert!(exports.flush(LONG));
    let received = hook.next();
    assert_eq!(received.path, "/hook?key=1");
    assert_eq!(
        received.header("content-type"),
        Some("application/x-ndjson")
    );
    assert_eq!(received.header("x-key"), Some("secret-value"));
    for told in [lines(&received.body), lines(&fs::read(&path).unwrap())] {
        assert_eq!(told.len(), 2);
        let mut first = told[0].clone();
        let time = first.as_object_mut().unwrap().remove("time");
        assert_eq!(time.unwrap(), "2023-11-14T22:13:20.250000Z");
        assert_eq!(first, facts(&record));
    }
    let reports = exports.reports();
    assert!(reports.iter().all(|report| report.sent == 2));
    assert!(!format!("{reports:?}").contains("key=1"));
}

#[test]
fn a_rotated_file_is_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let [path, old] = ["x.ndjson", "x.ndjson.1"].map(|name| directory.path().join(name));
    let exports = sinks(vec![Sink::File(path.clone())]);
    exports.offer(&plain(1), None);
    assert!(exports.flush(LONG));
    fs::rename(&path, &old).unwrap();
    exports.offer(&plain(2), None);
    drop(exports);
    assert_eq!((ids(&old), ids(&path)), (vec![1], vec![2]));
}

#[test]
fn a_full_disk_is_counted_and_told() {
    let pace = Pace {
        give_up: Duration::from_millis(20),
        ..pace()
    };
    let exports = start_with(vec![], vec![Sink::File("/dev/full".into())], pace);
    exports.offer(&plain(1), None);
    assert!(exports.flush(LONG));
    let report = &exports.reports()[0];
    assert_eq!((report.sent, report.dropped), (0, 1));
    assert!(report.is_failing && report.failures > 0);
    let problem = report.problem.as_deref().unwrap();
    assert!(problem.contains("No space left"), "{problem}");
    assert_eq!(&*report.name, "sinks[0] (/dev/full)");
}

#[test]
fn a_file_that_cannot_be_written_is_written_when_it_can_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("later/x.ndjson");
    let exports = sinks(vec![Sink::File(path.clone())]);
    exports.offer(&plain(1), None);
    assert!(!exports.flush(Duration::ZERO));
    while exports.reports()[0].failures == 0 {
        std::thread::yield_now();
    }
    let report = &exports.reports()[0];
    assert!(report.problem.as_deref().unwrap().contains("No such file"));
    fs::create_dir(path.parent().unwrap()).unwrap();
    assert!(exports.flush(LONG));
    assert_eq!(ids(&path), [1]);
    let report = &exports.reports()[0];
    assert!((report.sent, report.dropped, report.is_failing) == (1, 0, false));
}

#[test]
fn a_webhook_is_tried_again() {
    let hook = Collector::answering(|number, _| Reply::status([503, 204][number]));
    let exports = sinks(vec![Sink::Webhook {
        url: hook.url(),
        headers: vec![],
        ca: None,
    }]);
    exports.offer(&plain(1), None);
    assert!(exports.flush(LONG));
    let report = &exports.reports()[0];
    assert_eq!((report.sent, report.dropped, report.failures), (1, 0, 1));
    assert_eq!(hook.rest().len(), 2);
}

/// Reads as much as one batch, so that the write of it ends.
fn let_go(pipe: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let options = options.read(true).custom_flags(nonblocking);
    let mut pipe = options.open(pipe).unwrap();
    let (mut lines, mut part) = (0, [0; 4096]);
    while lines < 512 {
        let read = pipe.read(&mut part).unwrap_or_default();
        lines += part[..read].iter().filter(|byte| **byte == b'\n').count();
    }
}

#[test]
fn a_disk_that_never_answers_holds_nobody_up() {
    // Nobody reads from it: once it is full, a write waits for ever.
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let collector = Collector::new();
    let pace = Pace {
        closing: Duration::from_millis(50),
        ..pace()
    };
    let exporters = vec![exporter(&collector, Encoding::Json)];
    let exports = start_with(exporters, vec![Sink::File(pipe.clone())], pace);
    for number in 1..=2000 {
        exports.offer(&plain(number), None);
    }
    // The pipe's own flush never comes about; the collector's does.
    let _ = exports.flush(Duration::ZERO);
    let mut told = 0;
    while told < 2000 {
        told += requests(&collector.next()).len();
    }
    drop(exports);
    let_go(&pipe);
}
