//! Undoes content encodings piece by piece, in bounded memory.
//!
//! What comes out is passed on in small parts, so that neither a large answer nor one that was
//! made to swell takes more room than the windows of its codings: 32 KiB for gzip and deflate,
//! 8 MiB for zstd, 16 MiB for brotli.

use std::io::{self, ErrorKind, Write};

use brotli::writer::{BrotliDecompressStream, BrotliResult, StandardAlloc};
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use zstd::stream::raw::{DParameter, Operation};

/// Largest window of a zstd body, as a power of two: 8 MiB, which RFC 9659 has HTTP clients
/// support.
const ZSTD_WINDOW: u32 = 23;
/// Most codings that are undone one after the other.
const MAX_CODINGS: usize = 4;
/// Bytes that are passed on at a time.
const PART: usize = 16 << 10;
/// Bytes that flate2 is given at a time: they come to at most 1032 times as many.
const BITE: usize = 512;

/// Why an answer cannot be looked into any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its content encoding is not known.
    UnknownCoding,
    /// It is not what its content encoding says.
    Broken,
    /// Decoded, it is larger than what is looked into.
    TooLarge,
}

/// Takes what comes out.
type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Fault>;

/// Undoes the codings of one answer.
pub(super) struct Decoding {
    /// In the order in which they are undone.
    codings: Vec<Coding>,
}

impl Decoding {
    /// For an answer with this `Content-Encoding`, none of whose codings may come to more than
    /// `most` bytes.
    ///
    /// # Errors
    /// When one of them is unknown, or there are more than four.
    pub fn new(content_encoding: &str, most: usize) -> Result<Self, Fault> {
        // The coding applied last stands last.
        let names = content_encoding.rsplit(',').map(str::trim);
        let applied =
            names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"));
        let codings = applied
            .map(|name| Coding::new(name, most))
            .take(MAX_CODINGS + 1);
        let codings = codings.collect::<Result<Vec<_>, _>>()?;
        match codings.len() > MAX_CODINGS {
            true => Err(Fault::UnknownCoding),
            false => Ok(Self { codings }),
        }
    }

    /// Whether there is nothing to undo.
    pub fn is_identity(&self) -> bool {
        self.codings.is_empty()
    }

    /// Undoes another piece.
    ///
    /// # Errors
    /// See [`Fault`]; nothing may be pushed afterwards.
    pub fn push(&mut self, piece: &[u8], sink: Sink<'_>) -> Result<(), Fault> {
        run(&mut self.codings, piece, sink)
    }

    /// Passes on what is left when no piece comes any more. Whether it was whole.
    ///
    /// # Errors
    /// As [`Decoding::push`].
    pub fn finish(mut self, sink: Sink<'_>) -> Result<bool, Fault> {
        let mut whole = true;
        let mut codings = &mut self.codings[..];
        while let Some((first, rest)) = codings.split_first_mut() {
            whole &= first.finish(&mut |plain| run(rest, plain, sink))?;
            codings = rest;
        }
        Ok(whole)
    }
}

fn run(codings: &mut [Coding], piece: &[u8], sink: Sink<'_>) -> Result<(), Fault> {
    match codings.split_first_mut() {
        Some((first, rest)) => first.push(piece, &mut |plain| run(rest, plain, sink)),
        None => sink(piece),
    }
}

/// One coding.
struct Coding {
    coder: Coder,
    /// Something of it has come. Nothing at all is whole in any coding.
    begun: bool,
    /// Bytes that may still come out.
    left: usize,
}

enum Coder {
    Gzip(MultiGzDecoder<Vec<u8>>),
    /// Until its first two bytes tell which of the other two it is.
    Deflate(Vec<u8>),
    Zlib(ZlibDecoder<Vec<u8>>),
    Bare(DeflateDecoder<Vec<u8>>),
    Brotli(Box<Brotli>),
    Zstd(Zstd),
}

impl Coding {
    fn new(name: &str, most: usize) -> Result<Self, Fault> {
        let coder = match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Coder::Gzip(MultiGzDecoder::new(Vec::new())),
            "deflate" => Coder::Deflate(Vec::new()),
            "br" => Coder::Brotli(Box::new(Brotli::new())),
            "zstd" => Coder::Zstd(Zstd::new().map_err(|_| Fault::Broken)?),
            _ => return Err(Fault::UnknownCoding),
        };
        Ok(Self {
            coder,
            begun: false,
            left: most,
        })
    }

    fn push(&mut self, piece: &[u8], sink: Sink<'_>) -> Result<(), Fault> {
        self.begun |= !piece.is_empty();
        self.coder.push(piece, &mut bounded(&mut self.left, sink))
    }

    fn finish(&mut self, sink: Sink<'_>) -> Result<bool, Fault> {
        let sink = &mut bounded(&mut self.left, sink);
        Ok(self.coder.finish(sink)? || !self.begun)
    }
}

fn bounded(left: &mut usize, sink: Sink<'_>) -> impl FnMut(&[u8]) -> Result<(), Fault> {
    move |plain| {
        *left = left.checked_sub(plain.len()).ok_or(Fault::TooLarge)?;
        sink(plain)
    }
}

impl Coder {
    fn push(&mut self, piece: &[u8], sink: Sink<'_>) -> Result<(), Fault> {
        match self {
            Self::Gzip(decoder) => inflate(decoder, MultiGzDecoder::get_mut, piece, sink),
            Self::Zlib(decoder) => inflate(decoder, ZlibDecoder::get_mut, piece, sink),
            Self::Bare(decoder) => inflate(decoder, DeflateDecoder::get_mut, piece, sink),
            Self::Brotli(decoder) => decoder.push(piece, sink),
            Self::Zstd(decoder) => decoder.push(piece, sink),
            Self::Deflate(first) => {
                first.extend_from_slice(piece);
                let Some(coder) = Self::deflate(first) else {
                    return Ok(());
                };
                let first = std::mem::take(first);
                *self = coder;
                self.push(&first, sink)
            }
        }
    }

    /// What RFC 9110 calls deflate is the zlib format, but some send bare deflate data.
    fn deflate(first: &[u8]) -> Option<Self> {
        let start = first.first_chunk::<2>()?;
        let is_zlib = start[0] & 0x0f == 8 && u16::from_be_bytes(*start) % 31 == 0;
        Some(match is_zlib {
            true => Self::Zlib(ZlibDecoder::new(Vec::new())),
            false => Self::Bare(DeflateDecoder::new(Vec::new())),
        })
    }

    fn finish(&mut self, sink: Sink<'_>) -> Result<bool, Fault> {
        let (ended, left) = match self {
            Self::Gzip(decoder) => (decoder.try_finish(), decoder.get_mut()),
            Self::Zlib(decoder) => (decoder.try_finish(), decoder.get_mut()),
            Self::Bare(decoder) => (decoder.try_finish(), decoder.get_mut()),
            Self::Brotli(decoder) => return Ok(decoder.ended),
            Self::Zstd(decoder) => return Ok(decoder.wanted == 0),
            Self::Deflate(_) => return Ok(false),
        };
        sink(left)?;
        match ended {
            Ok(()) => Ok(true),
            Err(cut) if cut.kind() == ErrorKind::UnexpectedEof => Ok(false),
            Err(_) => Err(Fault::Broken),
        }
    }
}

/// flate2 puts what it makes of a bite into a buffer of ours.
fn inflate<D: Write>(
    decoder: &mut D,
    made: fn(&mut D) -> &mut Vec<u8>,
    piece: &[u8],
    sink: Sink<'_>,
) -> Result<(), Fault> {
    for bite in piece.chunks(BITE) {
        decoder.write_all(bite).map_err(|_| Fault::Broken)?;
        let made = made(decoder);
        sink(made)?;
        made.clear();
        made.shrink_to(PART);
    }
    Ok(())
}

struct Brotli {
    state: brotli::BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    ended: bool,
}

impl Brotli {
    fn new() -> Self {
        let alloc = StandardAlloc::default;
        // Strict: without the windows of up to 1 GiB that are no part of the `br` coding.
        let state = brotli::BrotliState::new_strict(alloc(), alloc(), alloc());
        Self {
            state,
            ended: false,
        }
    }

    fn push(&mut self, piece: &[u8], sink: Sink<'_>) -> Result<(), Fault> {
        let mut part = [0; PART];
        let (mut read, mut available) = (0, piece.len());
        loop {
            let (mut room, mut written, mut total) = (PART, 0, 0);
            let result = BrotliDecompressStream(
                &mut available,
                &mut read,
                piece,
                &mut room,
                &mut written,
                &mut part,
                &mut total,
                &mut self.state,
            );
            sink(&part[..written])?;
            match result {
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::NeedsMoreInput => return Ok(()),
                BrotliResult::ResultSuccess if available == 0 => {
                    self.ended = true;
                    return Ok(());
                }
                BrotliResult::ResultSuccess | BrotliResult::ResultFailure => {
                    return Err(Fault::Broken);
                }
            }
        }
    }
}

struct Zstd {
    decoder: zstd::stream::raw::Decoder<'static>,
    /// Bytes that it asks for; none at the end of a frame.
    wanted: usize,
}

impl Zstd {
    fn new() -> io::Result<Self> {
        let mut decoder = zstd::stream::raw::Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW))?;
        Ok(Self { decoder, wanted: 1 })
    }

    fn push(&mut self, mut piece: &[u8], sink: Sink<'_>) -> Result<(), Fault> {
        let mut part = [0; PART];
        let mut is_full = false;
        // A full buffer may have left something behind, unless a frame ended with it.
        while !piece.is_empty() || (is_full && self.wanted > 0) {
            let step = self.decoder.run_on_buffers(piece, &mut part);
            let step = step.map_err(|_| Fault::Broken)?;
            sink(&part[..step.bytes_written])?;
            piece = &piece[step.bytes_read..];
            is_full = step.bytes_written == PART;
            self.wanted = step.remaining;
        }
        Ok(())
    }
}
