//! Answers against a recount of the records, at every level and for every question.

use super::*;

/// Three days of requests, in the order in which they end.
pub fn records(count: i64) -> Vec<RequestRecord> {
    let mut maker = Maker::new(42);
    let mut chance = Chance(77);
    // Nights are quieter: some hours have many requests and some points have none.
    let mut start = || {
        let (day, hour) = (chance.below(3) as i64, chance.below(10) as i64);
        DAY_0 + day * DAY + hour * HOUR + chance.below(3_600) as i64
    };
    let mut starts: Vec<i64> = (0..count).map(|_| start()).collect();
    starts.sort_unstable();
    starts.into_iter().map(|at| maker.record(at)).collect()
}

/// Observes records in their time.
pub fn observe(store: &Store, hand: &Hand, records: &[RequestRecord]) {
    for (number, record) in records.iter().enumerate() {
        let ended = super::super::minutes::seconds(record.started + record.duration);
        hand.set(ended);
        store.observe(record);
        if number % 10 == 0 {
            store.flush().unwrap();
        }
    }
    store.flush().unwrap();
}

/// Its minutes stay, so that what is late can still be added.
fn patient(dir: &Path, hand: &Hand) -> Store {
    let options = Options {
        minutes: Duration::from_secs(20 * 86_400),
        ..hand.options()
    };
    Store::open(dir, options).unwrap()
}

const GROUPS: [&str; 9] = [
    "gateway",
    "provider",
    "model",
    "route",
    "key",
    "owner",
    "user_agent",
    "metadata.team",
    "metadata.number",
];

const FILTERS: [&[(&str, &str)]; 9] = [
    &[],
    &[("gateway", "acme/main")],
    &[("gateway", "(none)")],
    &[("provider", "openai")],
    &[("model", "gpt-5-mini"), ("gateway", "acme/side")],
    &[("route", "support"), ("key", "(none)")],
    &[("key", "spare")],
    &[("owner", "(none)")],
    &[("owner", "team-a"), ("provider", "openai")],
];

/// (start, end, interval): hours apart from `DAY_0`.
pub const TIMES: [(i64, i64, &str); 5] = [
    (0, 24, "1h"),
    (3, 5, "5m"),
    (0, 72, "6h"),
    (0, 72, "1d"),
    (47, 75, "15m"),
];

type Parameters = Vec<(&'static str, &'static str)>;

/// What may be asked of a time: filters, by what it is grouped, and how many groups.
type Asked = (Parameters, Option<&'static str>, usize);

/// Each filter; and each grouping by each of these filters that goes with it.
fn questions(filters: &[&[(&'static str, &'static str)]]) -> Vec<Asked> {
    let alone = FILTERS.iter().map(|filters| (filters.to_vec(), None, 10));
    let mut questions: Vec<Asked> = alone.collect();
    for group_by in GROUPS {
        let is_part = super::super::query::PARTS.contains(&group_by);
        let of_gateway =
            |filters: &[(&str, &str)]| filters.iter().all(|(name, _)| *name == "gateway");
        let going = filters.iter().filter(|one| is_part || of_gateway(one));
        questions.extend(going.map(|one| (one.to_vec(), Some(group_by), 10)));
        questions.push((FILTERS[1].to_vec(), Some(group_by), 2));
    }
    questions
}

/// Every question of these times, with marginals and without.
pub fn check_all(dir: &Path, records: &[RequestRecord], times: &[(i64, i64, &str)]) {
    for &(start, end, interval) in times {
        // Minutes have no marginals: all groupings are asked for alike.
        let by_minutes = interval.ends_with('m');
        let questions = questions(&FILTERS[..if by_minutes { 1 } else { FILTERS.len() }]);
        let asked = |(filters, group_by, limit): &Asked| {
            let limit = limit.to_string();
            let mut asked = filters.clone();
            asked.extend(group_by.map(|group_by| ("group_by", group_by)));
            let asked = [&asked[..], &[("interval", interval), ("limit", &limit)]].concat();
            ask(
                dir,
                &query(DAY_0 + start * HOUR, DAY_0 + end * HOUR, &asked),
            )
        };
        let answers: Vec<Value> = questions.iter().map(asked).collect();
        for ((filters, _, limit), answer) in questions.iter().zip(&answers) {
            naive::check(records, answer, filters, *limit);
        }
        if by_minutes {
            continue;
        }
        let without: Vec<Value> = marginals::without(dir, || questions.iter().map(asked).collect());
        for (question, (answer, other)) in questions.iter().zip(answers.iter().zip(&without)) {
            // Hours may be gone meanwhile, as the writer tidies up by itself.
            assert!(
                answer == other || answer["interval_s"] != other["interval_s"],
                "{question:?}"
            );
        }
    }
    marginals::check(dir);
}

#[test]
fn answers_agree_with_a_recount_before_and_after_hours_and_days_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    let records = records(2_000);
    let store = open(dir.path(), &hand);
    observe(&store, &hand, &records);
    check_all(dir.path(), &records, &TIMES);
    // Two days and some hours of the third.
    hand.set(DAY_0 + 2 * DAY + 5 * HOUR);
    store.tidy().unwrap();
    assert!(super::super::counters::read(&store.counters().rollups) > 60);
    check_all(dir.path(), &records, &TIMES[2..]);
    drop(store);
    let store = open(dir.path(), &hand);
    hand.set(DAY_0 + 3 * DAY + HOUR);
    store.tidy().unwrap();
    check_all(dir.path(), &records, &TIMES);
    assert_eq!(store.problem(), None);
}

#[test]
fn what_comes_late_is_in_hours_and_days_that_were_made() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    let mut records = records(600);
    let (late, on_time): (Vec<_>, Vec<_>) =
        records.drain(..).enumerate().partition(|(n, _)| n % 7 == 0);
    let strip = |some: Vec<(usize, RequestRecord)>| some.into_iter().map(|(_, one)| one);
    let (mut all, late): (Vec<_>, Vec<_>) = (strip(on_time).collect(), strip(late).collect());
    let (store, other) = (patient(dir.path(), &hand), patient(dir.path(), &hand));
    observe(&store, &hand, &all);
    hand.set(DAY_0 + 3 * DAY + HOUR);
    store.tidy().unwrap();
    // Whoever comes late: this process, or another one.
    for (number, record) in late.iter().enumerate() {
        let store = if number % 2 == 0 { &other } else { &store };
        store.observe(record);
        store.flush().unwrap();
    }
    all.extend(late);
    check_all(dir.path(), &all, &TIMES[1..4]);
    other.tidy().unwrap();
    check_all(dir.path(), &all, &TIMES[1..4]);
}

#[test]
fn processes_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    let all = records(900);
    let stores = [patient(dir.path(), &hand), patient(dir.path(), &hand)];
    hand.set(DAY_0 + 3 * DAY);
    std::thread::scope(|threads| {
        for (number, store) in stores.iter().enumerate() {
            let mine: Vec<_> = all.iter().skip(number).step_by(2).collect();
            threads.spawn(move || {
                for (number, record) in mine.into_iter().enumerate() {
                    store.observe(record);
                    if number % 10 == 0 {
                        store.flush().unwrap();
                    }
                }
                store.flush().unwrap();
            });
        }
    });
    check_all(dir.path(), &all, &TIMES[1..4]);
    std::thread::scope(|threads| {
        for store in &stores {
            threads.spawn(|| store.tidy().unwrap());
        }
    });
    check_all(dir.path(), &all, &TIMES[1..4]);
}

/// More groups than are kept in memory at once: of 15 minutes of three days, some 70.
#[test]
fn many_groups_are_told_as_few_are() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new(DAY_0);
    let mut records = records(1_000);
    let mut chance = Chance(31);
    for record in &mut records {
        let mut text = || {
            let most = 1 + chance.below(200);
            format!("name-{}", chance.below(most))
        };
        record.model = Some(text().into());
        record.metadata = vec![("all".into(), metadata::Value::Text(text().into()))];
        if chance.one_in(2) {
            let value = metadata::Value::Text(format!("name-{}", chance.below(150)).into());
            record.metadata.push(("some".into(), value));
        }
    }
    let store = patient(dir.path(), &hand);
    observe(&store, &hand, &records);
    hand.set(DAY_0 + 4 * DAY);
    for _ in 0..2 {
        for group_by in ["model", "metadata.all", "metadata.some"] {
            let asked = [("group_by", group_by), ("interval", "15m")];
            let answer = ask(dir.path(), &query(DAY_0, DAY_0 + 3 * DAY, &asked));
            naive::check(&records, &answer, &[], 10);
        }
        store.tidy().unwrap();
    }
}
