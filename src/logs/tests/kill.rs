//! SIGKILL in the middle of writing.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use super::super::query::Query;
use super::*;

/// Where the child writes; unset in any other run.
const DIR: &str = "TOLLGATE_TEST_LOGS";

/// Not a test: the process that is killed. It numbers its entries and says what was flushed.
#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = open(Path::new(&dir));
    let mut out = std::io::stdout();
    for number in 0_u32.. {
        let entry = Entry {
            step: number,
            id: Uuid::now_v7(),
            created_at: None,
            ..full(TIME)
        };
        store.offer(entry);
        if number % 500 == 499 {
            store.flush(SOON).unwrap();
            writeln!(out, "flushed {number}").unwrap();
        } else if number % 10 == 0 {
            writeln!(out, "offered {number}").unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn what_was_flushed_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..3 {
        killed_once(&dir.path().join(round.to_string()), 1_500 + 777 * round);
    }
}

fn killed_once(dir: &Path, after: u32) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "logs::tests::kill::child",
            "--ignored",
            "--nocapture",
        ])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut flushed = 0;
    // When which number was said to be offered.
    let mut offered: Vec<(Instant, u32)> = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((what, number)) = line.split_once(' ')
            && let Ok(number) = number.parse::<u32>()
        {
            match what {
                "flushed" => flushed = number,
                "offered" => offered.push((Instant::now(), number)),
                _ => {}
            }
        }
        if flushed > 0 && offered.last().is_some_and(|(_, number)| *number > after) {
            break;
        }
    }
    child.kill().unwrap(); // SIGKILL
    let killed = Instant::now();
    child.wait().unwrap();
    let second = Duration::from_secs(1);
    let earlier = offered
        .iter()
        .rev()
        .find(|(when, _)| killed - *when > second);
    let must = earlier.map_or(flushed, |(_, number)| flushed.max(*number));
    check(dir, must);
}

fn check(dir: &Path, must: u32) {
    let store = open(dir);
    assert_eq!(store.problem(), None);
    let mut reader = reader(dir);
    let filter = Query::default().filter;
    let mut export = reader.export(&scope(), &filter, true).unwrap();
    let mut steps = Vec::new();
    while let Some(entry) = export.next() {
        let entry = entry.unwrap();
        let record = export.record(&entry).unwrap().unwrap();
        assert_eq!(record.request.unwrap().bytes, "{\"model\":\"gpt\"}");
        steps.push(entry.step);
    }
    steps.sort_unstable();
    assert!(
        steps.len() > must as usize,
        "{} of at least {must}",
        steps.len()
    );
    assert!(
        steps.iter().zip(0..).all(|(step, number)| *step == number),
        "there is no gap"
    );
}
