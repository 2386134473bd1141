//! Answers of any size, cut anywhere, in any content encoding.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use super::*;
use crate::wire::aside::Aside;

type Encode = fn(&[u8]) -> Vec<u8>;

/// Content codings, and how they are made; bare deflate data is called deflate as well.
const CODINGS: [(&str, Encode); 5] = [
    ("gzip", gzip),
    ("deflate", zlib),
    ("deflate", bare),
    ("br", brotli),
    ("zstd", zstd),
];

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn bare(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn brotli(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ::brotli::CompressorWriter::new(Vec::new(), 4096, 3, 20);
    encoder.write_all(plain).unwrap();
    encoder.into_inner()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(plain, 1).unwrap()
}

fn sse(format: Format) -> Observer {
    Observer::new(format, Some(b"text/event-stream"), None)
}

fn json(encoding: Option<&str>) -> Observer {
    Observer::new(Format::OpenaiChat, Some(b"application/json"), encoding)
}

/// What is seen of pieces that are read as they come.
fn seen<'a>(mut observer: Observer, pieces: impl IntoIterator<Item = &'a [u8]>) -> Observed {
    pieces.into_iter().for_each(|piece| observer.read(piece));
    observer.finish()
}

/// What is seen of pieces that wait for the end, if they are small.
fn seen_later(mut observer: Observer, pieces: &[Bytes]) -> Observed {
    pieces.iter().for_each(|piece| observer.push(piece));
    observer.finish()
}

#[test]
fn observers_pass_from_thread_to_thread() {
    fn check<T: Send + Sync>() {}
    check::<Observer>();
}

#[test]
fn the_same_is_seen_however_an_answer_is_cut() {
    for case in cases("usage") {
        let whole = seen(case.observer(None), [&case.body[..]]);
        // Each of the larger ones is cut in many places, too.
        let step = 1 + case.body.len() / 500;
        for cut in (0..=case.body.len()).step_by(step) {
            let (head, tail) = case.body.split_at(cut);
            let cut_once = seen(case.observer(None), [head, tail]);
            assert_eq!(cut_once, whole, "{} cut at {cut}", case.name);
        }
        let bytes = seen(case.observer(None), case.body.chunks(1));
        assert_eq!(bytes, whole, "{}", case.name);
        let pieces: Vec<_> = case.body.chunks(7).map(Bytes::copy_from_slice).collect();
        assert_eq!(
            seen_later(case.observer(None), &pieces),
            whole,
            "{}",
            case.name
        );
    }
}

#[test]
fn the_same_is_seen_in_every_coding() {
    for case in cases("usage") {
        let whole = seen(case.observer(None), [&case.body[..]]);
        for (coding, encode) in CODINGS {
            let body = encode(&case.body);
            let observer = || case.observer(Some(coding));
            let at = |what: &str| format!("{} {coding} {what}", case.name);
            assert_eq!(seen(observer(), [&body[..]]), whole, "{}", at("whole"));
            assert_eq!(seen(observer(), body.chunks(1)), whole, "{}", at("by byte"));
            if body.len() > 250 {
                continue;
            }
            for cut in 0..=body.len() {
                let (head, tail) = body.split_at(cut);
                assert_eq!(seen(observer(), [head, tail]), whole, "{}", at("cut"));
            }
        }
    }
}

#[test]
fn codings_are_undone_in_turn_and_members_one_after_the_other() {
    let body = br#"{"model":"m","usage":{"prompt_tokens":5,"completion_tokens":7}}"#;
    let whole = seen(json(None), [&body[..]]);
    let twice = brotli(&gzip(body));
    for size in [1, 3, 1000] {
        let found = seen(json(Some("identity, gzip , BR")), twice.chunks(size));
        assert_eq!(found, whole, "{size}");
    }
    let (head, tail) = body.split_at(20);
    let members = [gzip(head), gzip(b""), gzip(tail)].concat();
    let frames = [zstd(head), zstd(tail)].concat();
    for size in [1, 5, 1000] {
        assert_eq!(
            seen(json(Some("gzip")), members.chunks(size)),
            whole,
            "{size}"
        );
        assert_eq!(
            seen(json(Some("zstd")), frames.chunks(size)),
            whole,
            "{size}"
        );
    }
}

#[test]
fn what_cannot_be_decoded_has_no_usage() {
    let body = br#"{"usage":{"prompt_tokens":5}}"#;
    let unknown = [
        "compress",
        "aws-chunked",
        "gzip, x",
        "gzip, gzip, gzip, gzip, gzip",
    ];
    for coding in unknown {
        let seen = seen(json(Some(coding)), [&body[..]]);
        assert_eq!(
            (seen.usage, seen.fault),
            (None, Some(Fault::UnknownCoding)),
            "{coding}"
        );
    }
    for (coding, encode) in CODINGS {
        let mut broken = encode(body);
        let cut = seen(json(Some(coding)), [&broken[..broken.len() / 2]]);
        assert_eq!((cut.usage, cut.ended), (None, false), "{coding}");
        broken.fill(0xff);
        let seen = seen(json(Some(coding)), broken.chunks(3));
        assert_eq!((seen.usage, seen.ended), (None, false), "{coding}");
        assert_eq!(seen.fault, Some(Fault::Broken), "{coding}");
    }
}

/// Whatever the noise, nothing panics, and no more is held than may be.
#[test]
fn noise_is_survived() {
    let mut random = crate::cache::entry::tests::noise(0x5eed);
    for case in cases("usage") {
        for (coding, encode) in CODINGS
            .into_iter()
            .chain([("identity", <[u8]>::to_vec as _)])
        {
            let good = encode(&case.body);
            for _ in 0..20 {
                let mut bad = good.clone();
                for _ in 0..=random() % 4 {
                    let at = random() as usize % bad.len();
                    bad[at] = random() as u8;
                }
                seen(
                    case.observer(Some(coding)),
                    bad.chunks(1 + random() as usize % 99),
                );
            }
        }
    }
}

#[test]
fn a_stream_that_breaks_off_shows_what_was_said_before() {
    let start = r#"data: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":90,"output_tokens":1}}}"#;
    let delta = r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"Hi"}}"#;
    let stream = format!("{start}\n\n{delta}\n\n{delta}");
    for (coding, encode) in CODINGS {
        let body = encode(stream.as_bytes());
        let kind = Some(&b"text/event-stream"[..]);
        let observer = Observer::new(Format::AnthropicMessages, kind, Some(coding));
        let found = seen(observer, [&body[..body.len() - 1]]);
        // The last bytes of some codings are checksums: without them, all has come.
        assert_eq!(
            found.fault.unwrap_or(Fault::Broken),
            Fault::Broken,
            "{coding}"
        );
        assert!(!found.ended, "{coding}");
    }
    let found = seen(sse(Format::AnthropicMessages), [stream.as_bytes()]);
    assert_eq!(found.usage, Some(usage(90, 1, 0, 0, 0)));
    assert_eq!(found.model.as_deref(), Some("m"));
    assert!(!found.ended && !found.text.is_empty());
}

#[test]
fn a_large_stream_is_read_in_little_memory() {
    let delta = format!(
        "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n",
        "x".repeat(900)
    );
    let huge = format!(
        "data: {{\"usage\":{{\"prompt_tokens\":1}},\"x\":\"{}\"}}\n\n",
        "y".repeat(2 << 20)
    );
    let end = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9}}\n\ndata: [DONE]\n\n";
    let mut observer = sse(Format::OpenaiChat);
    let mut pieces = vec![Bytes::from(delta); 8000];
    pieces.push(huge.into());
    pieces.push(end.into());
    let mut most = 0;
    for piece in &pieces {
        observer.push(piece);
        most = most.max(observer.held());
    }
    assert!(most < 3 << 20, "{most}");
    let seen = observer.finish();
    assert_eq!(seen.usage, Some(usage(7, 9, 0, 0, 0)));
    assert!(seen.ended);
}

/// Images and embeddings: huge, with usage in front or behind.
#[test]
fn usage_is_found_at_both_ends_of_a_huge_document() {
    let usage_object = r#""model":"image-1","usage":{"input_tokens":50,"output_tokens":4160,"output_tokens_details":{"image_tokens":4160}}"#;
    let decoy = r#""revised_prompt":"say \"usage\":{\"input_tokens\":1}""#;
    let image = "QUJD".repeat(2 << 20);
    let bodies = [
        format!(r#"{{{usage_object},"data":[{{"b64_json":"{image}",{decoy}}}]}}"#),
        format!(r#"{{"data":[{{{decoy},"b64_json":"{image}"}}],{usage_object}}}"#),
    ];
    for body in bodies {
        for (coding, encode) in [("identity", <[u8]>::to_vec as Encode), ("gzip", gzip)] {
            let encoded = Bytes::from(encode(body.as_bytes()));
            let mut observer = json(Some(coding));
            let mut most = 0;
            for at in (0..encoded.len()).step_by(50_000) {
                observer.push(&encoded.slice(at..encoded.len().min(at + 50_000)));
                most = most.max(observer.held());
            }
            assert!(most < 5 << 20, "{most}");
            let seen = observer.finish();
            let expected = Usage {
                output_image: 4160,
                ..usage(50, 4160, 0, 0, 0)
            };
            assert_eq!(seen.usage, Some(expected), "{coding}");
            assert_eq!(seen.model.as_deref(), Some("image-1"));
        }
    }
}

/// Gemini without `alt=sse`, and Ollama: an array or lines that break off.
#[test]
fn what_was_said_before_a_document_broke_off_counts() {
    let array = r#"[{"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":1}},{"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":4}},{"candi"#;
    let found = seen(json(None), [array.as_bytes()]);
    assert_eq!(found.usage, Some(usage(9, 4, 0, 0, 0)));
    assert!(!found.ended);
    let lines = "{\"model\":\"m\",\"message\":{\"content\":\"Hi\"},\"done\":false}\n{\"mod";
    let found = seen(json(None), [lines.as_bytes()]);
    assert_eq!((found.usage, found.model.as_deref()), (None, Some("m")));
    assert!(!found.ended && !found.text.is_empty());
}

/// 80 MiB out of a few hundred KiB, and the same once more inside of itself.
#[test]
fn a_bomb_costs_bounded_memory_and_is_not_defused() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![b' '; 1 << 20];
    (0..80).for_each(|_| encoder.write_all(&zeros).unwrap());
    let bomb = encoder.finish().unwrap();
    for (coding, body) in [("gzip", bomb.clone()), ("gzip, gzip", gzip(&bomb))] {
        for kind in [
            "application/json",
            "text/event-stream",
            "application/vnd.amazon.eventstream",
        ] {
            let mut observer =
                Observer::new(Format::OpenaiChat, Some(kind.as_bytes()), Some(coding));
            for piece in body.chunks(40_000) {
                observer.push(&Bytes::copy_from_slice(piece));
                assert!(observer.held() < 5 << 20, "{coding} {kind}");
            }
            let seen = observer.finish();
            assert_eq!(
                (seen.usage, seen.fault),
                (None, Some(Fault::TooLarge)),
                "{coding} {kind}"
            );
            assert!(!seen.ended);
        }
    }
}

/// Of an opaque answer nothing is kept, nor of one that is sound.
#[test]
fn an_opaque_answer_passes_unseen() {
    let body = Bytes::from_static(br#"{"model":"m","usage":{"prompt_tokens":5}}"#);
    let heads = [
        (Format::Opaque, &b"application/json"[..]),
        (Format::OpenaiChat, b"Audio/mpeg"),
    ];
    for (format, content_type) in heads {
        let mut observer = Observer::new(format, Some(content_type), None);
        observer.push(&body);
        assert_eq!(observer.held(), size_of::<Observer>());
        assert_eq!(observer.finish(), Observed::default());
    }
}

#[test]
fn all_is_known_where_a_stream_tells_it() {
    let streams = ["usage", "documented"].into_iter().flat_map(cases);
    let streams =
        streams.filter(|case| case.field("content-type").starts_with("text/event-stream"));
    let mut count = 0;
    for case in streams {
        for size in [1, 7, case.body.len()] {
            let (mut aside, mut passed) = (Aside::default(), Vec::new());
            let (mut observer, mut told) = (Some(case.observer(None)), None);
            for piece in case.body.chunks(size).map(Bytes::copy_from_slice) {
                observer
                    .iter_mut()
                    .for_each(|observer| observer.push(&piece));
                let piece = aside.push(piece, || {
                    told = observer.take().map(Observer::finish);
                    None
                });
                passed.extend_from_slice(&piece);
            }
            passed.extend_from_slice(&aside.finish(|| {
                told = observer.take().map(Observer::finish);
                None
            }));
            assert!(passed == case.body, "{}", case.name);
            let told = told.unwrap_or_else(|| panic!("{} is told nothing", case.name));
            assert_eq!(shown(told.usage), case.field("usage"), "{}", case.name);
        }
        count += 1;
    }
    assert!(count > 10, "{count} streams");
}
