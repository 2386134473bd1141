//! How a message is written: as protobuf, or as the JSON that OTLP makes of it.
//!
//! Sources: Protocol Buffers, encoding; OTLP 1.11, "JSON Protobuf Encoding": ids are hexadecimal
//! digits, 64-bit integers are strings, enums are numbers, names are in lowerCamelCase.

use serde::Serialize;

/// What bodies look like.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// `application/json`.
    #[default]
    Json,
    /// `application/x-protobuf`.
    Protobuf,
}

impl Encoding {
    /// The header `content-type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }
}

/// A field: its number in protobuf, its name in JSON.
#[derive(Debug, Clone, Copy)]
pub struct Field(pub u32, pub &'static str);

/// Writes the fields of a message.
pub trait Form: Default {
    /// `string`.
    fn text(&mut self, field: Field, text: &str);
    /// `bytes` that are an id.
    fn id(&mut self, field: Field, id: &[u8]);
    /// `bool`.
    fn flag(&mut self, field: Field, flag: bool);
    /// An enum.
    fn choice(&mut self, field: Field, number: u32);
    /// `int64`.
    fn number(&mut self, field: Field, number: i64);
    /// `double`; JSON has no word for what is no number, and leaves it out.
    fn double(&mut self, field: Field, number: f64);
    /// `fixed32`.
    fn fixed32(&mut self, field: Field, number: u32);
    /// `fixed64`.
    fn fixed64(&mut self, field: Field, number: u64);
    /// `repeated fixed64`.
    fn all_fixed64(&mut self, field: Field, numbers: &[u64]);
    /// `repeated double`.
    fn doubles(&mut self, field: Field, numbers: &[f64]);
    /// Another message.
    fn message(&mut self, field: Field, write: impl FnOnce(&mut Self));
    /// One of several messages, which stand between [`Form::open`] and [`Form::close`].
    fn element(&mut self, field: Field, write: impl FnOnce(&mut Self));
    /// Begins several messages.
    fn open(&mut self, field: Field);
    /// Ends them.
    fn close(&mut self);
    /// Elements that were written before: what [`Form::finish`] gave.
    fn elements(&mut self, written: &[u8]);
    /// The bytes of elements, or of a whole message that was written with `whole`.
    fn finish(self) -> Vec<u8>;
    /// The message that stands by itself.
    fn whole(&mut self, write: impl FnOnce(&mut Self));

    /// Several messages.
    fn messages<T>(
        &mut self,
        field: Field,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.open(field);
        for item in items {
            self.element(field, |form| write(form, item));
        }
        self.close();
    }
}

/// As much as the spans of most requests take, in bytes.
const USUAL: usize = 4096;

/// Protobuf.
pub struct Protobuf(Vec<u8>);

impl Default for Protobuf {
    fn default() -> Self {
        Self(Vec::with_capacity(USUAL))
    }
}

impl Protobuf {
    fn tag(&mut self, field: Field, wire_type: u32) {
        self.varint(u64::from(field.0 << 3 | wire_type));
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, field: Field, bytes: &[u8]) {
        self.tag(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// The length stands in front of what it is the length of, so it is put there afterwards. Most
    /// messages need one byte for it, which is kept free.
    fn prefixed(&mut self, write: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.0.push(0);
        write(self);
        let length = self.0.len() - at - 1;
        if let (0..0x80, Ok(byte)) = (length, u8::try_from(length)) {
            self.0[at] = byte;
            return;
        }
        let mut prefix = Self(Vec::new());
        prefix.varint(length as u64);
        self.0.splice(at..=at, prefix.0);
    }
}

impl Form for Protobuf {
    fn text(&mut self, field: Field, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn id(&mut self, field: Field, id: &[u8]) {
        self.bytes(field, id);
    }

    fn flag(&mut self, field: Field, flag: bool) {
        self.choice(field, flag.into());
    }

    fn choice(&mut self, field: Field, number: u32) {
        self.tag(field, 0);
        self.varint(number.into());
    }

    fn number(&mut self, field: Field, number: i64) {
        self.tag(field, 0);
        self.varint(number.cast_unsigned());
    }

    fn double(&mut self, field: Field, number: f64) {
        self.fixed64(field, number.to_bits());
    }

    fn fixed32(&mut self, field: Field, number: u32) {
        self.tag(field, 5);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn fixed64(&mut self, field: Field, number: u64) {
        self.tag(field, 1);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn all_fixed64(&mut self, field: Field, numbers: &[u64]) {
        self.tag(field, 2);
        self.varint(8 * numbers.len() as u64);
        for number in numbers {
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn doubles(&mut self, field: Field, numbers: &[f64]) {
        self.tag(field, 2);
        self.varint(8 * numbers.len() as u64);
        for number in numbers {
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn message(&mut self, field: Field, write: impl FnOnce(&mut Self)) {
        self.tag(field, 2);
        self.prefixed(write);
    }

    fn element(&mut self, field: Field, write: impl FnOnce(&mut Self)) {
        self.message(field, write);
    }

    fn open(&mut self, _field: Field) {}

    fn close(&mut self) {}

    fn elements(&mut self, written: &[u8]) {
        self.0.extend_from_slice(written);
    }

    fn finish(self) -> Vec<u8> {
        self.0
    }

    fn whole(&mut self, write: impl FnOnce(&mut Self)) {
        write(self);
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// JSON. Writing to a `Vec` cannot fail.
pub struct Json(Vec<u8>);

impl Default for Json {
    fn default() -> Self {
        Self(Vec::with_capacity(USUAL))
    }
}

impl Json {
    fn comma(&mut self) {
        if !matches!(self.0.last(), None | Some(b'{' | b'[')) {
            self.0.push(b',');
        }
    }

    /// Names of fields need no escapes.
    fn name(&mut self, field: Field) {
        self.comma();
        self.0.push(b'"');
        self.0.extend_from_slice(field.1.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn object(&mut self, write: impl FnOnce(&mut Self)) {
        self.0.push(b'{');
        write(self);
        self.0.push(b'}');
    }

    fn plain(&mut self, value: &(impl Serialize + ?Sized)) {
        let _ = serde_json::to_writer(&mut self.0, value);
    }

    fn quoted(&mut self, value: &impl Serialize) {
        self.0.push(b'"');
        self.plain(value);
        self.0.push(b'"');
    }
}

impl Form for Json {
    fn text(&mut self, field: Field, text: &str) {
        self.name(field);
        self.plain(text);
    }

    fn id(&mut self, field: Field, id: &[u8]) {
        self.name(field);
        self.0.push(b'"');
        for byte in id {
            let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
            self.0.extend_from_slice(&digits);
        }
        self.0.push(b'"');
    }

    fn flag(&mut self, field: Field, flag: bool) {
        self.name(field);
        self.plain(&flag);
    }

    fn choice(&mut self, field: Field, number: u32) {
        self.fixed32(field, number);
    }

    fn number(&mut self, field: Field, number: i64) {
        self.name(field);
        self.quoted(&number);
    }

    fn double(&mut self, field: Field, number: f64) {
        if number.is_finite() {
            self.name(field);
            self.plain(&number);
        }
    }

    fn fixed32(&mut self, field: Field, number: u32) {
        self.name(field);
        self.plain(&number);
    }

    fn fixed64(&mut self, field: Field, number: u64) {
        self.name(field);
        self.quoted(&number);
    }

    fn all_fixed64(&mut self, field: Field, numbers: &[u64]) {
        self.open(field);
        for number in numbers {
            self.comma();
            self.quoted(number);
        }
        self.close();
    }

    fn doubles(&mut self, field: Field, numbers: &[f64]) {
        self.name(field);
        self.plain(numbers);
    }

    fn message(&mut self, field: Field, write: impl FnOnce(&mut Self)) {
        self.name(field);
        self.object(write);
    }

    fn element(&mut self, _field: Field, write: impl FnOnce(&mut Self)) {
        self.comma();
        self.object(write);
    }

    fn open(&mut self, field: Field) {
        self.name(field);
        self.0.push(b'[');
    }

    fn close(&mut self) {
        self.0.push(b']');
    }

    fn elements(&mut self, written: &[u8]) {
        self.comma();
        self.0.extend_from_slice(written);
    }

    fn finish(self) -> Vec<u8> {
        self.0
    }

    fn whole(&mut self, write: impl FnOnce(&mut Self)) {
        self.object(write);
    }
}
