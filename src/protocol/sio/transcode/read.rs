//! What msgpack from a peer says, as JSON and attachments.

use super::super::DecodeError;
use super::write::ENDLESS;
use bytes::{Buf, Bytes, TryGetError};
use bytestring::ByteString;
use rmp::Marker;
use std::fmt::Display;
use std::io::Write as _;

/// Lists and maps inside one another; JavaScript's decoders call themselves for each, and would run out of stack.
pub(super) const MAX_DEPTH: usize = 1_000;

/// What a value begins with: all of it, or how many values follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Head<'a> {
    Nil,
    /// JavaScript's, as old versions of `notepack.io` write it.
    Undefined,
    Bool(bool),
    Unsigned(u64),
    /// Below 0.
    Signed(i64),
    Float(f64),
    /// Text, which need not be UTF-8.
    Str(&'a [u8]),
    Bin(&'a [u8]),
    /// Milliseconds since 1970.
    Date(f64),
    Extension(i8, &'a [u8]),
    Array(u32),
    Map(u32),
}

/// Reads msgpack from the bytes of a peer.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    source: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn of(source: &'a Bytes) -> Self {
        Self { source, rest: source }
    }

    /// Whether everything was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads one value, or of a list or map its beginning.
    pub(crate) fn head(&mut self) -> Result<Head<'a>, DecodeError> {
        let head = match Marker::from_u8(self.rest.try_get_u8()?) {
            Marker::Null => Head::Nil,
            Marker::False => Head::Bool(false),
            Marker::True => Head::Bool(true),
            Marker::FixPos(number) => Head::Unsigned(number.into()),
            Marker::U8 => Head::Unsigned(self.rest.try_get_u8()?.into()),
            Marker::U16 => Head::Unsigned(self.rest.try_get_u16()?.into()),
            Marker::U32 => Head::Unsigned(self.rest.try_get_u32()?.into()),
            Marker::U64 => Head::Unsigned(self.rest.try_get_u64()?),
            Marker::FixNeg(number) => signed(number.into()),
            Marker::I8 => signed(self.rest.try_get_i8()?.into()),
            Marker::I16 => signed(self.rest.try_get_i16()?.into()),
            Marker::I32 => signed(self.rest.try_get_i32()?.into()),
            Marker::I64 => signed(self.rest.try_get_i64()?),
            Marker::F32 => Head::Float(self.rest.try_get_f32()?.into()),
            Marker::F64 => Head::Float(self.rest.try_get_f64()?),
            Marker::FixStr(length) => Head::Str(self.take(length.into())?),
            marker @ (Marker::Str8 | Marker::Str16 | Marker::Str32) => Head::Str(self.take_announced(marker)?),
            marker @ (Marker::Bin8 | Marker::Bin16 | Marker::Bin32) => Head::Bin(self.take_announced(marker)?),
            marker @ (Marker::Ext8 | Marker::Ext16 | Marker::Ext32) => {
                let length = self.announced(marker)?;
                self.extension(length, false)?
            }
            Marker::FixExt1 => self.extension(1, true)?,
            Marker::FixExt2 => self.extension(2, true)?,
            Marker::FixExt4 => self.extension(4, true)?,
            Marker::FixExt8 => self.extension(8, true)?,
            Marker::FixExt16 => self.extension(16, true)?,
            Marker::FixArray(len) => Head::Array(len.into()),
            marker @ (Marker::Array16 | Marker::Array32) => Head::Array(self.announced(marker)?),
            Marker::FixMap(len) => Head::Map(len.into()),
            marker @ (Marker::Map16 | Marker::Map32) => Head::Map(self.announced(marker)?),
            Marker::Reserved => return Err(DecodeError::Malformed),
        };
        Ok(head)
    }

    fn extension(&mut self, length: u32, is_fixed: bool) -> Result<Head<'a>, DecodeError> {
        let kind = self.rest.try_get_i8()?;
        let bytes = self.take(length)?;
        let mut content = bytes;
        Ok(match (kind, length) {
            (0, 1) if is_fixed => Head::Undefined,
            (0, 8) if is_fixed => Head::Date(content.try_get_i64()? as f64),
            (0, _) if !is_fixed => Head::Bin(bytes),
            (-1, 4) => Head::Date(f64::from(content.try_get_u32()?) * 1e3),
            (-1, 8) => {
                let packed = content.try_get_u64()?;
                Head::Date((packed & 0x3_ffff_ffff) as f64 * 1e3 + (packed >> 34) as f64 / 1e6)
            }
            (-1, 12) => {
                let nanoseconds = content.try_get_u32()?;
                Head::Date(content.try_get_i64()? as f64 * 1e3 + f64::from(nanoseconds) / 1e6)
            }
            _ => Head::Extension(kind, bytes),
        })
    }

    /// The length behind a marker.
    fn announced(&mut self, marker: Marker) -> Result<u32, DecodeError> {
        Ok(match marker {
            Marker::Str8 | Marker::Bin8 | Marker::Ext8 => self.rest.try_get_u8()?.into(),
            Marker::Str16 | Marker::Bin16 | Marker::Ext16 | Marker::Array16 | Marker::Map16 => self.rest.try_get_u16()?.into(),
            _ => self.rest.try_get_u32()?,
        })
    }

    fn take_announced(&mut self, marker: Marker) -> Result<&'a [u8], DecodeError> {
        let length = self.announced(marker)?;
        self.take(length)
    }

    fn take(&mut self, length: u32) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length as usize).ok_or(DecodeError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Passes over one value with everything inside.
    pub(crate) fn skip(&mut self) -> Result<(), DecodeError> {
        // What a peer announces is only counted, never made room for.
        let mut left: u64 = 1;
        while left > 0 {
            left -= 1;
            left += match self.head()? {
                Head::Array(len) => len.into(),
                Head::Map(len) => u64::from(len) * 2,
                _ => 0,
            };
        }
        Ok(())
    }

    /// Passes over an undefined value, and nothing else.
    pub(crate) fn skip_undefined(&mut self) -> Result<bool, DecodeError> {
        let mut ahead = self.clone();
        let is_undefined = ahead.head()? == Head::Undefined;
        if is_undefined {
            *self = ahead;
        }
        Ok(is_undefined)
    }

    /// The text of a string.
    pub(crate) fn text(&self, bytes: &'a [u8]) -> ByteString {
        ByteString::try_from(self.source.slice_ref(bytes)).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned().into())
    }
}

impl From<TryGetError> for DecodeError {
    fn from(_: TryGetError) -> Self {
        Self::Malformed
    }
}

fn signed(number: i64) -> Head<'static> {
    u64::try_from(number).map_or(Head::Signed(number), Head::Unsigned)
}

/// JSON that is being written from msgpack.
#[derive(Debug)]
pub(crate) struct Json {
    text: Vec<u8>,
    attachments: Vec<Bytes>,
    max_attachments: usize,
    has_lookalike: bool,
}

/// A list or map whose end is to come.
struct Open {
    left: u32,
    is_map: bool,
    is_empty: bool,
}

impl Json {
    /// Nothing yet, and room for so many attachments.
    pub(crate) const fn with_attachments(max: usize) -> Self {
        Self { text: Vec::new(), attachments: Vec::new(), max_attachments: max, has_lookalike: false }
    }

    /// Appends the next values, with a comma between two.
    ///
    /// # Errors
    /// They are no msgpack, or too deep.
    pub(crate) fn append(&mut self, reader: &mut Reader<'_>, values: u32) -> Result<(), DecodeError> {
        for index in 0..values {
            if index > 0 {
                self.text.push(b',');
            }
            self.append_value(reader)?;
        }
        Ok(())
    }

    /// What was written.
    ///
    /// # Errors
    /// There are attachments and, beside them, a map of the peer's own that reads like a placeholder, which JSON cannot tell apart.
    pub(crate) fn finish(self) -> Result<(ByteString, Vec<Bytes>), DecodeError> {
        if self.has_lookalike && !self.attachments.is_empty() {
            return Err(DecodeError::IllegalPlaceholder);
        }
        Ok((String::from_utf8(self.text).expect("made of strings").into(), self.attachments))
    }

    fn append_value(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            match reader.head()? {
                Head::Array(_) | Head::Map(_) if open.len() == MAX_DEPTH => return Err(DecodeError::InvalidPayload),
                Head::Array(left) => {
                    self.text.push(b'[');
                    open.push(Open { left, is_map: false, is_empty: true });
                }
                Head::Map(left) => {
                    self.text.push(b'{');
                    open.push(Open { left, is_map: true, is_empty: true });
                }
                Head::Nil | Head::Undefined => self.text.extend_from_slice(b"null"),
                Head::Bool(value) => self.append_display(value),
                Head::Unsigned(number) => self.append_display(number),
                Head::Signed(number) => self.append_display(number),
                Head::Float(number) => self.append_float(number),
                Head::Str(text) => self.append_str(text),
                Head::Date(time) => match iso(time) {
                    Some(text) => self.append_str(text.as_bytes()),
                    None => self.text.extend_from_slice(b"null"),
                },
                Head::Bin(bytes) => self.attach(reader.source.slice_ref(bytes))?,
                // As `notepack.io` shows what it does not know.
                Head::Extension(kind, bytes) => {
                    write!(self.text, "[{kind},").expect(ENDLESS);
                    self.attach(reader.source.slice_ref(bytes))?;
                    self.text.push(b']');
                }
            }
            // What follows belongs to the innermost list or map that is not at its end.
            loop {
                let Some(container) = open.last_mut() else { return Ok(()) };
                if container.left == 0 {
                    self.text.push(if container.is_map { b'}' } else { b']' });
                    open.pop();
                    continue;
                }
                container.left -= 1;
                if container.is_map {
                    let key = reader.head()?;
                    // A list in the place of a key is refused below: its own members would be skipped here.
                    let is_name = matches!(key, Head::Str(_) | Head::Unsigned(_) | Head::Signed(_));
                    if is_name && reader.skip_undefined()? {
                        continue;
                    }
                    self.separate(container);
                    self.append_key(reader, key)?;
                } else {
                    self.separate(container);
                }
                break;
            }
        }
    }

    fn separate(&mut self, container: &mut Open) {
        if !container.is_empty {
            self.text.push(b',');
        }
        container.is_empty = false;
    }

    fn append_key(&mut self, reader: &Reader<'_>, key: Head<'_>) -> Result<(), DecodeError> {
        match key {
            Head::Str(key) => {
                self.has_lookalike |= key == b"_placeholder" && reader.clone().head()? == Head::Bool(true);
                self.append_str(key);
            }
            Head::Unsigned(key) => write!(self.text, "\"{key}\"").expect(ENDLESS),
            Head::Signed(key) => write!(self.text, "\"{key}\"").expect(ENDLESS),
            _ => return Err(DecodeError::InvalidPayload),
        }
        self.text.push(b':');
        Ok(())
    }

    fn append_str(&mut self, text: &[u8]) {
        serde_json::to_writer(&mut self.text, &String::from_utf8_lossy(text))
            .expect("a string is JSON, and a Vec takes every byte");
    }

    fn append_float(&mut self, number: f64) {
        if number.fract() == 0.0 && number.abs() < 1e21 {
            // An integer without fraction or exponent, as JavaScript has it, whose JSON has no -0 either.
            self.append_display(number + 0.0);
        } else {
            serde_json::to_writer(&mut self.text, &number).expect(ENDLESS);
        }
    }

    fn append_display(&mut self, value: impl Display) {
        write!(self.text, "{value}").expect(ENDLESS);
    }

    fn attach(&mut self, bytes: Bytes) -> Result<(), DecodeError> {
        let num = self.attachments.len();
        if num >= self.max_attachments {
            return Err(DecodeError::TooManyAttachments);
        }
        write!(self.text, r#"{{"_placeholder":true,"num":{num}}}"#).expect(ENDLESS);
        self.attachments.push(bytes);
        Ok(())
    }
}

/// A number of milliseconds since 1970 as JavaScript's `toISOString` writes it; `None` is no date.
fn iso(time: f64) -> Option<String> {
    const DAY: i64 = 86_400_000;
    // Not a number included.
    if !(-8.64e15..=8.64e15).contains(&time) {
        return None;
    }
    let time = time as i64;
    let (days, rest) = (time.div_euclid(DAY), time.rem_euclid(DAY));
    // The calendar repeats every 146,097 days; years that begin in March have their odd day at the end.
    let day = days + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + era * 400 + i64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });

    let year = if (0..=9_999).contains(&year) { format!("{year:04}") } else { format!("{year:+07}") };
    let (hour, minute, second, milli) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60, rest % 1_000);
    Some(format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{read, unhex};
    use super::*;

    #[test]
    fn what_any_version_of_notepack_writes_is_read() {
        for (msgpack, json) in [
            ("c0", "null"),
            ("d40000", "null"),
            ("93d40000d40000c2", "[null,null,false]"),
            ("82a161d40000a16201", r#"{"b":1}"#),
            ("82a16101a162d40000", r#"{"a":1}"#),
            ("81a161d40000", "{}"),
            ("ff", "-1"),
            ("d080", "-128"),
            ("d100ff", "255"),
            ("d38000000000000000", "-9223372036854775808"),
            ("cfffffffffffffffff", "18446744073709551615"),
            ("ca3dcccccd", "0.10000000149011612"),
            ("cb8000000000000000", "0"),
            ("cb3ff0000000000000", "1"),
            ("cb4341c37937e08000", "10000000000000000"),
            ("cb444b1ae4d6e2ef50", "1e+21"),
            ("cb3e7ad7f29abcaf48", "1e-7"),
            ("cb7ff8000000000000", "null"),
            ("cbfff0000000000000", "null"),
            ("a5610a22c3a9", r#""a\n\"é""#),
            ("a3eda080", r#""\u{fffd}\u{fffd}\u{fffd}""#),
            ("d6ff00000000", r#""1970-01-01T00:00:00.000Z""#),
            ("d7ff1d5353006553f100", r#""2023-11-14T22:13:20.123Z""#),
            ("d7000000018bcfe5687b", r#""2023-11-14T22:13:20.123Z""#),
            ("c70cff00000000ffffffffffffffff", r#""1969-12-31T23:59:59.000Z""#),
            ("c70cff000000007fffffffffffffff", "null"),
            ("8201020304", r#"{"1":2,"3":4}"#),
            ("81ff05", r#"{"-1":5}"#),
        ] {
            let json = json.replace("\\u{fffd}", "\u{fffd}");
            assert_eq!(read(&unhex(msgpack)), Ok((json, 0)), "{msgpack}");
        }
    }

    #[test]
    fn bytes_become_attachments() {
        for (msgpack, json) in [
            ("c4026162", r#"{"_placeholder":true,"num":0}"#),
            ("c5000161", r#"{"_placeholder":true,"num":0}"#),
            ("c60000000161", r#"{"_placeholder":true,"num":0}"#),
            ("c702006162", r#"{"_placeholder":true,"num":0}"#),
            ("d40561", r#"[5,{"_placeholder":true,"num":0}]"#),
            ("81a161c40161", r#"{"a":{"_placeholder":true,"num":0}}"#),
        ] {
            assert_eq!(read(&unhex(msgpack)), Ok((json.to_owned(), 1)), "{msgpack}");
        }
        assert_eq!(read(&unhex("93c400c400c400")), Err(DecodeError::TooManyAttachments));
    }

    #[test]
    fn nobody_passes_off_a_map_as_an_attachment() {
        let lookalike = "82ac5f706c616365686f6c646572c3a36e756d00";
        assert_eq!(read(&unhex(lookalike)), Ok((r#"{"_placeholder":true,"num":0}"#.to_owned(), 0)));
        for both in [format!("92{lookalike}c400"), format!("92c400{lookalike}"), format!("82a161c400a16291{lookalike}")] {
            assert_eq!(read(&unhex(&both)), Err(DecodeError::IllegalPlaceholder), "{both}");
        }
        let unmarked = "9281ac5f706c616365686f6c646572c2c400";
        assert_eq!(read(&unhex(unmarked)).map(|(_, attachments)| attachments), Ok(1));
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for msgpack in [
            "",
            "c1",
            "91",
            "81",
            "81a1",
            "81a161",
            "a261",
            "cc",
            "cd00",
            "cb00",
            "c403ffff",
            "c6ffffffff00",
            "dd",
            "ddffffffff00",
            "dfffffffff",
            "d4",
            "d400",
            "d7ff00",
            "c70cff00",
            "c7",
            "d9",
        ] {
            assert_eq!(read(&unhex(msgpack)), Err(DecodeError::Malformed), "{msgpack}");
            assert_eq!(Reader::of(&unhex(msgpack)).skip(), Err(DecodeError::Malformed), "{msgpack}");
        }
        for key in ["90", "80", "c400", "c0", "cb3ff0000000000000"] {
            for value in ["00", "d40000"] {
                assert_eq!(read(&unhex(&format!("81{key}{value}"))), Err(DecodeError::InvalidPayload), "{key}{value}");
            }
        }
    }

    #[test]
    fn dates_are_those_of_javascript() {
        for (time, text) in [
            (951_782_400_000.0, "2000-02-29T00:00:00.000Z"),
            (-1.0, "1969-12-31T23:59:59.999Z"),
            (-62_167_219_200_000.0, "0000-01-01T00:00:00.000Z"),
            (-62_167_219_200_001.0, "-000001-12-31T23:59:59.999Z"),
            (253_402_300_799_999.0, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000.0, "+010000-01-01T00:00:00.000Z"),
            (8.64e15, "+275760-09-13T00:00:00.000Z"),
            (-8.64e15, "-271821-04-20T00:00:00.000Z"),
            (1.9, "1970-01-01T00:00:00.001Z"),
        ] {
            assert_eq!(iso(time).as_deref(), Some(text), "{time}");
        }
        assert_eq!((iso(8.64e15 + 1.0), iso(f64::NAN)), (None, None));
    }
}
