//! The HTTP/1.1 side of a provider in a storm, on the raw socket.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::provider::{Heard, LISTENS, LONGEST, State, Welcome, add, reset_unread};
use super::script::{Act, Framed, Script};
use crate::support::wire::{Framing, Head, Piece, Wire};

/// Between the last byte and a reset, which may overtake it.
const MOMENT: Duration = Duration::from_millis(20);
/// Before each further read of a body that is read slowly.
const SLOWLY: Duration = Duration::from_millis(40);

/// What becomes of a connection after an exchange.
enum After {
    /// It carries the next.
    Stays,
    /// It ends; all of the request has been read.
    Ends,
    /// It ends, with the body of this request on its way.
    EndsUnread(Box<(Head, Heard)>),
    Resets,
    /// The gateway has ended it.
    Gone,
}

/// Serves a connection to its end.
pub async fn serve(stream: TcpStream, state: &State) {
    let welcome = state.welcome();
    let mut heads = 0;
    if matches!(welcome, Welcome::Reset) {
        reset_unread(&stream).await;
    }
    let mut wire = Wire::new(stream);
    match welcome {
        Welcome::Reset => {}
        Welcome::End => heads += end(wire, Act::ClosesUnanswered, state).await,
        Welcome::Garble => {
            let _ = wire.write(b"\x16\x03\x01 no HTTP\r\n\r\n").await;
            heads += end(wire, Act::NotHttp, state).await;
        }
        Welcome::Serve => {
            while let Some(head) = next_head(&mut wire, state).await {
                heads += 1;
                let exchange = exchange(&mut wire, head, state);
                let after = timeout(LONGEST, exchange).await.unwrap_or_else(|_| {
                    state.wrong("an exchange is kept open".to_owned());
                    After::Resets
                });
                match after {
                    After::Stays => continue,
                    After::Ends => heads += end(wire, Act::Unheeded, state).await,
                    After::EndsUnread(unread) => {
                        heads += end_unread(wire, &unread.0, &unread.1, state).await;
                    }
                    After::Resets => wire.reset(),
                    After::Gone => {}
                }
                break;
            }
        }
    }
    add(&state.tally.heads, heads);
    add(&state.tally.headless, u64::from(heads == 0));
}

/// Ends a connection, and counts the request that the gateway may have sent by then.
async fn end(mut wire: Wire, act: Act, state: &State) -> u64 {
    wire.end().await;
    let head = timeout(LISTENS, wire.head()).await.unwrap_or_else(|_| {
        state.wrong("a connection that has ended is kept open".to_owned());
        None
    });
    let Some(head) = head else { return 0 };
    state.hear_late(act, |name| head.header(name));
    let _ = timeout(LISTENS, wire.gone()).await;
    1
}

/// The same, where the body of a request is still to be read.
async fn end_unread(mut wire: Wire, head: &Head, heard: &Heard, state: &State) -> u64 {
    wire.end().await;
    let reading = read_body(&mut wire, head, heard, state);
    match timeout(LONGEST, reading).await {
        Ok(true) => end(wire, Act::Unheeded, state).await,
        _ => 0,
    }
}

/// The next request, until the storm is over.
async fn next_head(wire: &mut Wire, state: &State) -> Option<Head> {
    tokio::select! {
        head = wire.head() => head,
        () = state.over() => None,
    }
}

async fn exchange(wire: &mut Wire, head: Head, state: &State) -> After {
    let Some(heard) = state.hear(|name| head.header(name)) else {
        return After::Resets;
    };
    let script = &heard.script;
    if script.act == Act::FailsEarly {
        return match answer(wire, script).await {
            Ok(()) => After::EndsUnread(Box::new((head, heard))),
            Err(_) => After::Gone,
        };
    }
    if !read_body(wire, &head, &heard, state).await {
        return After::Gone;
    }
    match script.act {
        Act::ClosesUnanswered => return After::Ends,
        Act::ResetsUnanswered => return After::Resets,
        Act::Stalls => {
            wire.gone().await;
            return After::Gone;
        }
        Act::NotHttp => {
            let _ = wire.write(b"220 mail.example ESMTP\r\n\r\n").await;
            return After::Ends;
        }
        _ => {}
    }
    if answer(wire, script).await.is_err() {
        return After::Gone;
    }
    after(wire, script.act).await
}

/// Reads the body and looks at it. False when it was cut.
async fn read_body(wire: &mut Wire, head: &Head, heard: &Heard, state: &State) -> bool {
    let mut framing = head.framing(Framing::Length(0));
    let mut body = Vec::new();
    loop {
        match wire.piece(&mut framing).await {
            Piece::Data(bytes) => body.extend(bytes),
            Piece::End => {
                state.whole(heard, head.header("content-length"), &body);
                return true;
            }
            Piece::EndOfStream | Piece::Cut => {
                state.cut(heard, &body);
                return false;
            }
        }
        if heard.script.act == Act::ReadsSlowly {
            sleep(SLOWLY).await;
        }
    }
}

/// Writes head and body, as far as they go.
async fn answer(wire: &mut Wire, script: &Script) -> io::Result<()> {
    if script.hints {
        let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </style>\r\n\r\n";
        wire.write(hints).await?;
    }
    wire.write(head_of(script).as_bytes()).await?;
    let mut start = 0;
    for end in &script.pieces {
        let piece = &script.sent()[start..*end];
        match script.framed {
            Framed::Chunked => {
                let size = format!("{:x}\r\n", piece.len());
                let chunk = [size.as_bytes(), piece, b"\r\n"].concat();
                wire.write(&chunk).await?;
            }
            _ => wire.write(piece).await?,
        }
        start = *end;
        sleep(script.pause).await;
    }
    if script.framed == Framed::Chunked && script.act.ends_in_order() {
        wire.write(b"0\r\n\r\n").await?;
    }
    Ok(())
}

fn head_of(script: &Script) -> String {
    let mut head = format!("HTTP/1.1 {} Storm\r\n", script.status);
    for (name, value) in &script.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match script.framed {
        _ if script.status == 204 => {}
        Framed::Length(length) => head.push_str(&format!("content-length: {length}\r\n")),
        Framed::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
        Framed::UntilClose => head.push_str("connection: close\r\n"),
    }
    head.push_str("\r\n");
    head
}

async fn after(wire: &mut Wire, act: Act) -> After {
    match act {
        Act::ThenCloses | Act::UntilClose | Act::EndsShort | Act::ClosesMidway => After::Ends,
        Act::BreaksChunk => {
            let _ = wire.write(b"no size\r\nno chunk\r\n").await;
            After::Ends
        }
        Act::ResetsMidway => {
            sleep(MOMENT).await;
            After::Resets
        }
        Act::StallsMidway => {
            wire.gone().await;
            After::Gone
        }
        _ => After::Stays,
    }
}
