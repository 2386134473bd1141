//! Golden cases, and what a file cannot show: secrets, sizes, depths, broken bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::*;
use crate::config::schema::{AccessLog, Auth, Config, Provider};
use crate::config::units::{ByteSize, Duration};

/// What variables hold in all tests. No message may ever show it.
const HIDDEN: &str = "sk-hidden";

fn environment(name: &str) -> Option<String> {
    match name {
        "HIDDEN" => Some(HIDDEN.to_owned()),
        "PORT" => Some("8787".to_owned()),
        "THREADS" => Some("4".to_owned()),
        "YES" => Some("true".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn load(text: &str) -> Result<Config, Vec<String>> {
    parse(text, &environment).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn refused(text: &str) -> Vec<String> {
    load(text).unwrap_err()
}

/// `name.yaml` gives the problems of `name.problems`, one a line; a good file none.
/// With `TOLLGATE_BLESS` set the expectations are written instead.
#[test]
fn golden() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config");
    let mut cases: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    assert!(cases.len() >= 15, "{cases:?}");
    for case in cases {
        let problems = load(&fs::read_to_string(&case).unwrap())
            .err()
            .unwrap_or_default();
        let actual: String = problems
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect();
        assert!(!actual.contains(HIDDEN), "{}: {actual}", case.display());
        let expectation = case.with_extension("problems");
        if std::env::var_os("TOLLGATE_BLESS").is_some() {
            fs::write(&expectation, &actual).unwrap();
        }
        assert_eq!(
            actual,
            fs::read_to_string(&expectation).unwrap(),
            "{}",
            case.display()
        );
    }
}

const GOOD: &str = r#"
server:
  listen: ["127.0.0.1:${PORT}", "[::1]:8787"]
  tls: { cert: /etc/tls/cert.pem, key: /etc/tls/key.pem }
  threads: ${THREADS}
  max_body: 32MiB
  max_header: 65536
  header_timeout: 1h30m
  write_timeout: ${WRITE:-5s}
admin:
log: { access: json, level: debug }
providers:
  openai: &openai
    base_url: "https://api.openai.com/v1"
    headers: { X-Org: "a$$b" }
    keys: [{ alias: main, value: "${HIDDEN}" }, { file: /run/key }]
    timeouts: { connect: 500ms, idle: 10m }
  custom-copy:
    <<: *openai
    base_url: http://127.0.0.1:1/v1
    allow_insecure: ${YES}
    auth: { header: { name: x-api-key } }
  mock:
accounts:
  default: { gateways: { default: {} } }
"#;

#[test]
fn a_good_file_is_read_whole() {
    let config = load(GOOD).unwrap();
    assert_eq!(
        config.server.listen.unwrap(),
        ["127.0.0.1:8787", "[::1]:8787"]
    );
    assert_eq!(
        config.server.tls.unwrap().cert,
        Path::new("/etc/tls/cert.pem")
    );
    assert_eq!(config.server.threads, 4);
    assert_eq!(config.server.max_body, Some(ByteSize(32 << 20)));
    assert_eq!(config.server.max_header, Some(ByteSize(65536)));
    assert_eq!(config.server.header_timeout, "1h30m".parse().ok());
    assert_eq!(config.server.write_timeout, "5s".parse().ok());
    assert_eq!(config.log.access, AccessLog::Json);
    let openai = &config.providers["openai"];
    assert_eq!(openai.headers["X-Org"].expose(), "a$b");
    assert_eq!(openai.keys[0].value.as_ref().unwrap().expose(), HIDDEN);
    assert_eq!(openai.keys[1].file.as_deref(), Some(Path::new("/run/key")));
    assert_eq!(
        openai.timeouts.connect,
        Some(Duration(std::time::Duration::from_millis(500)))
    );
    assert!(config.accounts["default"].gateways.contains_key("default"));
    assert!(config.providers.contains_key("mock"));
}

#[test]
fn merge_keys_keep_what_is_there() {
    let config = load(GOOD).unwrap();
    let copy = &config.providers["custom-copy"];
    assert_eq!(copy.base_url.as_deref(), Some("http://127.0.0.1:1/v1"));
    assert_eq!(copy.keys.len(), 2);
    assert_eq!(copy.allow_insecure, Some(true));
    assert!(
        matches!(copy.auth.as_ref().unwrap(), Auth::Header { name, .. } if name == "x-api-key")
    );
}

#[test]
fn the_first_of_several_merged_mappings_wins() {
    type Map = BTreeMap<String, BTreeMap<String, u8>>;
    let text = "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b], z: 3}";
    let map: Map = parse_as(text, &environment).unwrap();
    assert_eq!(
        map["c"],
        BTreeMap::from([("x".into(), 1), ("y".into(), 2), ("z".into(), 3)])
    );
}

#[test]
fn an_empty_file_is_the_default() {
    for text in ["", "\n", "# nothing\n", "---\n", "null", "{}"] {
        assert!(load(text).unwrap().providers.is_empty(), "{text:?}");
    }
}

#[test]
fn enums_are_words_or_one_key_with_settings() {
    let auth = |text: &str| {
        load(&format!("providers: {{ a: {{ auth: {text} }} }}"))
            .map(|c| c.providers["a"].auth.clone().unwrap())
    };
    assert_eq!(auth("bearer"), Ok(Auth::Bearer));
    assert_eq!(auth("{bearer: }"), Ok(Auth::Bearer));
    assert_eq!(
        auth("{aws-sigv4: {service: bedrock}}"),
        Ok(Auth::AwsSigv4 {
            service: "bedrock".into()
        })
    );
}

#[test]
fn the_catalogue_is_read_like_a_configuration() {
    let read = |text| parse_as::<BTreeMap<String, Provider>>(text, &|_| None);
    assert_eq!(read("openai: { format: openai-chat }").unwrap().len(), 1);
    let problems = read("openai: { formt: openai-chat }").unwrap_err();
    assert_eq!(problems[0].path, "openai.formt");
}

#[test]
fn every_secret_place_stays_hidden() {
    for place in [
        "keys: sk-hidden",
        "keys: [sk-hidden]",
        "keys: [{ value: [sk-hidden] }]",
        "keys: [{ value: { sk: sk-hidden } }]",
        "keys: [{ value: !!int sk-hidden }]",
        "keys: [{ value: !sk sk-hidden }]",
        "keys: [{ value: \"${HIDDEN}${\" }]",
        "keys: [{ vaule: sk-hidden }]",
        "headers: sk-hidden",
        "headers: { Authorization: [sk-hidden] }",
        "headers: [sk-hidden]",
        "timeouts: { connect: \"${HIDDEN}\" }",
        "timeouts: \"${HIDDEN}\"",
        "allow_insecure: \"${HIDDEN}\"",
        "format: \"x${HIDDEN}\"",
        "auth: \"${HIDDEN}\"",
        "tls: \"${HIDDEN}\"",
    ] {
        let problems = refused(&format!("providers: {{ openai: {{ {place} }} }}"));
        assert!(
            !format!("{problems:?}").contains(HIDDEN),
            "{place}: {problems:?}"
        );
    }
    let number = refused("providers: { openai: { keys: [{ value: 4711 }] } }");
    assert_eq!(
        number,
        ["providers.openai.keys[0].value: expected text (put it in quotes), found a number"]
    );
}

#[test]
fn a_types_own_words_are_kept_from_variables() {
    #[derive(Debug, Deserialize)]
    struct Listener {
        #[expect(dead_code, reason = "only its errors matter")]
        address: std::net::SocketAddr,
    }
    let read = |text| {
        parse_as::<Listener>(text, &environment).unwrap_err()[0]
            .message
            .clone()
    };
    assert_eq!(
        read("address: here"),
        "invalid socket address syntax, found `here`"
    );
    assert_eq!(
        read("address: ${HIDDEN}"),
        "expected another value, found `${HIDDEN}`"
    );
}

#[test]
fn depth_and_size_are_problems() {
    let depth = 100_000;
    for text in [
        "[".repeat(depth),
        "{a: ".repeat(depth),
        "- ".repeat(depth),
        "? ".repeat(depth),
        "&a [*a]".into(),
    ] {
        let problems = refused(&text);
        assert!(
            problems.len() == 1 && problems[0].contains("nested too deeply"),
            "{problems:?}"
        );
    }
    assert!(refused(&"#".repeat(MAX_TEXT + 1))[0].contains("larger than 16 MiB"));
}

#[test]
fn large_files_are_read() {
    let long = format!("data_dir: \"{}\"", "x".repeat(256 << 10));
    assert!(load(&long).is_ok());
    let problems = refused(&format!("log: {{ access: \"{}\" }}", "x".repeat(256 << 10)));
    assert!(problems[0].len() < 500, "{}", problems[0].len());
}

#[test]
fn aliases_cannot_fill_the_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert_eq!(
        refused(&text),
        ["aliases repeat too much: write the values out"]
    );
    let wide = format!("a: &a [{}]\nb: [{}]", "x,".repeat(2_000), "*a,".repeat(200));
    assert!(
        refused(&wide)[0].contains("more than 250000 values"),
        "{:?}",
        refused(&wide)
    );
}

#[test]
fn many_mistakes_are_cut_short() {
    let problems = refused(&(0..500).map(|n| format!("key{n}: 1\n")).collect::<String>());
    assert_eq!(problems.len(), MAX_PROBLEMS + 1);
    assert!(problems[0].starts_with("key0: unknown key `key0`"));
    assert_eq!(
        problems[MAX_PROBLEMS],
        "more than 100 mistakes: correct these first"
    );
}

/// Damages the good file at every byte in several ways: whatever is left, loading ends
/// with a configuration or with problems.
#[test]
fn damaged_files_never_panic() {
    let damages: [&[u8]; 6] = [b"", b"[", b"\"", b": ", b"\n", b"${"];
    for position in 0..GOOD.len() {
        for damage in damages {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes.splice(position..=position, damage.iter().copied());
            let text = String::from_utf8_lossy(&bytes);
            if let Err(problems) = load(&text) {
                assert!(!problems.is_empty(), "{text}");
                assert!(
                    problems.iter().all(|problem| !problem.contains(HIDDEN)),
                    "{problems:?}\n{text}"
                );
            }
        }
        let _ = load(&GOOD[..position]);
    }
}
