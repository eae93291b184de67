//! What a socket knows of the request that it came with.

use crate::engine::{Handshake as Request, Headers, Session, Version};
use bytestring::ByteString;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a socket knows of the request that it came with, and the `auth` that its client sent.
///
/// It serialises to the reference's `handshake` object.
#[derive(Clone)]
pub struct Handshake {
    source: Source,
    auth: Option<ByteString>,
    issued: SystemTime,
}

#[derive(Clone)]
enum Source {
    Session(Arc<Session>),
    /// Of a socket on another node.
    Told(Arc<Request>),
}

impl Handshake {
    pub(super) fn new(session: Arc<Session>, auth: Option<ByteString>) -> Self {
        Self { source: Source::Session(session), auth, issued: SystemTime::now() }
    }

    /// From the reference's `handshake` object.
    pub(super) fn told<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(default)]
        struct Told<'a> {
            headers: HashMap<String, serde_json::Value>,
            address: String,
            secure: bool,
            issued: f64,
            url: String,
            query: BTreeMap<String, serde_json::Value>,
            #[serde(borrow)]
            auth: Option<&'a RawValue>,
        }
        impl Default for Told<'_> {
            fn default() -> Self {
                Self {
                    headers: HashMap::new(),
                    address: String::new(),
                    secure: false,
                    issued: 0.0,
                    url: String::new(),
                    query: BTreeMap::new(),
                    auth: None,
                }
            }
        }
        let told = Told::deserialize(deserializer)?;
        let mut headers = HeaderMap::new();
        for (name, value) in &told.headers {
            // Node has a list where there are several cookies to set, and nowhere else in a request.
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(text(value).as_bytes())) {
                headers.append(name, value);
            }
        }
        // As a number of seconds it would lose milliseconds. What is no time in JavaScript is the nearest that is one.
        let issued = UNIX_EPOCH + Duration::from_millis(told.issued.clamp(0.0, 8.64e15) as u64);
        let request = Request {
            version: Version::V4,
            headers: Headers::from(&headers),
            query: told.query.into_iter().map(|(key, value)| (key, text(&value))).collect(),
            url: told.url,
            address: told.address,
            secure: told.secure,
            issued,
        };
        Ok(Self { source: Source::Told(Arc::new(request)), auth: told.auth.map(|auth| auth.get().into()), issued })
    }

    fn request(&self) -> &Request {
        match &self.source {
            Source::Session(session) => session.request(),
            Source::Told(request) => request,
        }
    }

    /// The headers of the session's first request.
    pub fn headers(&self) -> &Headers {
        &self.request().headers
    }

    /// The text of the first header of that name, if it is one.
    pub fn header(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.headers().get(name)?).ok()
    }

    /// The first query parameter of that name.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.queries().iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All query parameters in their order, Socket.IO's own included.
    pub fn queries(&self) -> &[(String, String)] {
        &self.request().query
    }

    /// The client's address; behind trusted proxies the one that they report.
    pub fn address(&self) -> &str {
        &self.request().address
    }

    /// Path and query of the session's first request.
    pub fn url(&self) -> &str {
        &self.request().url
    }

    /// Whether the client came over TLS.
    pub fn is_secure(&self) -> bool {
        self.request().secure
    }

    /// Whether the request has an Origin header.
    pub fn is_cross_domain(&self) -> bool {
        self.request().is_cross_domain()
    }

    /// When the client asked for this namespace.
    pub fn issued(&self) -> SystemTime {
        self.issued
    }

    /// What the client sent as `auth`, as `T`; without any it reads as `{}`. A client of Socket.IO 2 sends the query of its namespace, an object of strings.
    ///
    /// # Errors
    /// It is of another type.
    pub fn auth<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.auth_json())
    }

    /// What the client sent as `auth`, as JSON; `{}` if it sent none.
    pub fn auth_json(&self) -> &str {
        self.auth.as_deref().unwrap_or("{}")
    }
}

impl Serialize for Handshake {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let issued = self.issued.duration_since(UNIX_EPOCH).unwrap_or_default();
        let auth: &RawValue = serde_json::from_str(self.auth_json()).map_err(serde::ser::Error::custom)?;
        let mut map = serializer.serialize_map(Some(9))?;
        map.serialize_entry("headers", &Joined(self.headers()))?;
        map.serialize_entry("time", &date(issued.as_secs()))?;
        map.serialize_entry("address", self.address())?;
        map.serialize_entry("xdomain", &self.is_cross_domain())?;
        map.serialize_entry("secure", &self.is_secure())?;
        map.serialize_entry("issued", &u64::try_from(issued.as_millis()).unwrap_or(u64::MAX))?;
        map.serialize_entry("url", self.url())?;
        map.serialize_entry("query", &Query(self.queries()))?;
        map.serialize_entry("auth", auth)?;
        map.end()
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL and the headers may carry the sid, auth a password.
        f.debug_struct("Handshake").field("address", &self.address()).field("issued", &self.issued).finish_non_exhaustive()
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// As Node gives them: one text per name, several values joined.
struct Joined<'a>(&'a Headers);

impl Serialize for Joined<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut joined: Vec<(&str, String)> = Vec::new();
        for (name, value) in self.0.iter() {
            let value = String::from_utf8_lossy(value);
            match joined.last_mut().filter(|(last, _)| *last == name) {
                Some((_, values)) => values.extend([if name == "cookie" { "; " } else { ", " }, &value]),
                None => joined.push((name, value.into_owned())),
            }
        }
        serializer.collect_map(joined)
    }
}

/// A key that is repeated has its first value, as routing has it.
struct Query<'a>(&'a [(String, String)]);

impl Serialize for Query<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seen = HashSet::new();
        let first = self.0.iter().filter(|(key, _)| seen.insert(key));
        serializer.collect_map(first.map(|(key, value)| (key, value)))
    }
}

/// JavaScript's `Date.prototype.toString` in UTC.
fn date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    format!(
        "{} {} {:02} {year} {:02}:{:02}:{:02} GMT+0000 (Coordinated Universal Time)",
        DAYS[(days % 7) as usize],
        MONTHS[month],
        day + 1,
        time / 3600,
        time / 60 % 60,
        time % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::{Handshake, date};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_handshake_that_was_told_was_issued_in_the_same_millisecond() {
        for (told, issued) in [("1795313405291", 1_795_313_405_291), ("0.5", 0), ("-1", 0), ("1e300", 8_640_000_000_000_000)] {
            let told = format!(r#"{{"issued":{told}}}"#);
            let handshake = Handshake::told(&mut serde_json::Deserializer::from_str(&told)).expect("an object");
            assert_eq!(handshake.issued(), UNIX_EPOCH + Duration::from_millis(issued), "{told}");
        }
    }

    #[test]
    fn a_date_reads_as_in_javascript() {
        for (seconds, text) in [
            (0, "Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)"),
            (951_782_400, "Tue Feb 29 2000 00:00:00 GMT+0000 (Coordinated Universal Time)"),
            (1_795_229_442, "Sat Nov 21 2026 02:50:42 GMT+0000 (Coordinated Universal Time)"),
            (1_798_761_599, "Thu Dec 31 2026 23:59:59 GMT+0000 (Coordinated Universal Time)"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
