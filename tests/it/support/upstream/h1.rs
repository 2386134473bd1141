//! The HTTP/1.1 side of a fake provider, on the raw socket.

use std::sync::Arc;

use super::super::wire::{Framing, Head, Piece, Wire};
use super::reply::Framed;
use super::{Answer, End, Exchange, Part, Received, Reply, Shared};

/// Serves one connection until either side ends it.
pub(super) async fn serve(mut wire: Wire, connection: usize, shared: Arc<Shared>) {
    while let Some(head) = wire.head().await {
        let (exchange, reply) = shared.begin(record(&head, connection));
        let Some(kept) = react(wire, &head, &exchange, reply).await else {
            return;
        };
        wire = kept;
    }
}

fn record(head: &Head, connection: usize) -> Received {
    let mut words = head.start.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    Received {
        connection,
        method: word(),
        target: word(),
        version: word(),
        headers: head.headers.clone(),
        ..Received::default()
    }
}

/// Plays `reply`; gives the connection back when it can carry another request.
async fn react(mut wire: Wire, head: &Head, exchange: &Exchange, reply: Reply) -> Option<Wire> {
    if matches!(&reply, Reply::Answer(answer) if answer.before_body) {
        return answer(wire, exchange, early(reply)).await;
    }
    if !read_body(&mut wire, head, exchange).await {
        exchange.abandon();
        return None;
    }
    match reply {
        Reply::Answer(scripted) => answer(wire, exchange, scripted).await,
        Reply::Digest => {
            let digest = exchange.received().digest?;
            answer(wire, exchange, Answer::json(&digest.json())).await
        }
        Reply::Upgrade(headers) => echo(wire, &headers).await,
        Reply::Silence => {
            wire.gone().await;
            exchange.abandon();
            None
        }
        Reply::Close => None,
        Reply::Reset => {
            wire.reset();
            None
        }
        Reply::Raw(bytes) => {
            let _ = wire.write(&bytes).await;
            None
        }
    }
}

/// Unwraps an answer that is given before the body and ends the connection after it.
fn early(reply: Reply) -> Answer {
    match reply {
        Reply::Answer(answer) => answer.header("connection", "close"),
        _ => unreachable!("only answers come before the body"),
    }
}

/// Reads the body into the record. False when it was cut.
async fn read_body(wire: &mut Wire, head: &Head, exchange: &Exchange) -> bool {
    if head.header("expect").is_some() {
        let _ = wire.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    }
    let mut framing = head.framing(Framing::Length(0));
    loop {
        match wire.piece(&mut framing).await {
            Piece::Data(bytes) => exchange.take(&bytes),
            Piece::End => {
                exchange.whole();
                return true;
            }
            Piece::EndOfStream | Piece::Cut => return false,
        }
    }
}

async fn answer(mut wire: Wire, exchange: &Exchange, answer: Answer) -> Option<Wire> {
    let framing = answer.framing();
    tokio::time::sleep(answer.late).await;
    if let Some(gate) = &answer.after
        && !play(&mut wire, &Part::Wait(gate.clone()), framing).await
    {
        exchange.abandon();
        return None;
    }
    let mut whole = wire
        .write(head_of(&answer, framing).as_bytes())
        .await
        .is_ok();
    for part in &answer.parts {
        whole = whole && play(&mut wire, part, framing).await;
    }
    if !whole {
        exchange.abandon();
        return None;
    }
    finish(wire, exchange, &answer, framing).await
}

async fn finish(
    mut wire: Wire,
    exchange: &Exchange,
    answer: &Answer,
    framing: Framed,
) -> Option<Wire> {
    match answer.end {
        End::Clean => {
            if framing == Framed::Chunked {
                wire.write(b"0\r\n\r\n").await.ok()?;
            }
            if answer.before_body {
                // A close over unread bytes would reset the connection and lose the answer.
                wire.gone().await;
                return None;
            }
            (framing != Framed::UntilClose).then_some(wire)
        }
        End::Close => None,
        End::Reset => {
            wire.reset();
            None
        }
        End::Hang => {
            wire.gone().await;
            exchange.abandon();
            None
        }
    }
}

fn head_of(answer: &Answer, framing: Framed) -> String {
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match framing {
        // 1xx, 204 and 304 have no body whose length could be told.
        Framed::Length(_) if matches!(answer.status, 100..=199 | 204 | 304) => {}
        Framed::Length(length) => head.push_str(&format!("content-length: {length}\r\n")),
        Framed::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
        Framed::UntilClose => head.push_str("connection: close\r\n"),
    }
    head.push_str("\r\n");
    head
}

/// Plays one part. False when the gateway went away meanwhile.
async fn play(wire: &mut Wire, part: &Part, framing: Framed) -> bool {
    match part {
        // An empty chunk would be the last one.
        Part::Bytes(bytes) if bytes.is_empty() => true,
        Part::Bytes(bytes) if framing == Framed::Chunked => {
            let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
            chunk.extend_from_slice(bytes);
            chunk.extend_from_slice(b"\r\n");
            wire.write(&chunk).await.is_ok()
        }
        Part::Bytes(bytes) => wire.write(bytes).await.is_ok(),
        Part::Pause(duration) => tokio::select! {
            () = tokio::time::sleep(*duration) => true,
            () = wire.gone() => false,
        },
        Part::Wait(gate) => tokio::select! {
            () = gate.passed() => true,
            () = wire.gone() => false,
        },
    }
}

/// Switches protocols, then sends every byte back.
async fn echo(mut wire: Wire, headers: &[(String, String)]) -> Option<Wire> {
    let mut head = String::from("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    wire.write(head.as_bytes()).await.ok()?;
    while let Some(bytes) = wire.any().await {
        wire.write(&bytes).await.ok()?;
    }
    None
}
