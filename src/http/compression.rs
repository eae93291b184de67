//! Compression of polling answers above a threshold, as the reference's `httpCompression`.

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};
use std::io::Write;
use tokio::task::yield_now;

/// What is compressed before others get their turn.
const PIECE: usize = 32 * 1024;

/// A coding of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// gzip.
    Gzip,
    /// HTTP's "deflate", which is the zlib format (RFC 9110, section 8.4.1.2).
    Deflate,
}

impl Coding {
    /// The one that the client of a request takes.
    pub fn accepted(request: &HeaderMap) -> Option<Self> {
        request.get(ACCEPT_ENCODING)?;
        [Self::Gzip, Self::Deflate].into_iter().find(|coding| accepts(request, coding.name()))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// What an answer says of it.
    pub const fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// Compresses a body.
    pub async fn compress(self, body: &[u8]) -> Vec<u8> {
        let level = Compression::fast();
        let compressed = match self {
            Self::Gzip => write_all(GzEncoder::new(Vec::new(), level), body).await.finish(),
            Self::Deflate => write_all(ZlibEncoder::new(Vec::new(), level), body).await.finish(),
        };
        compressed.expect("a vector takes every byte")
    }
}

async fn write_all<W: Write>(mut encoder: W, body: &[u8]) -> W {
    for piece in body.chunks(PIECE) {
        encoder.write_all(piece).expect("a vector takes every byte");
        if body.len() > PIECE {
            yield_now().await;
        }
    }
    encoder
}

/// Whether a coding is named with a weight above zero.
fn accepts(request: &HeaderMap, coding: &str) -> bool {
    request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
        |item| {
            let (name, weight) = item.split_once(';').unwrap_or((item, ""));
            let weight = weight.trim().strip_prefix("q=").map_or(1.0, |q| q.trim().parse().unwrap_or(1.0));
            name.trim().eq_ignore_ascii_case(coding) && weight > 0.0
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::{GzDecoder, ZlibDecoder};
    use std::io::Read;

    #[tokio::test]
    async fn what_was_compressed_is_the_same_when_it_is_unpacked() {
        let body = "socket".repeat(1000).into_bytes();
        for coding in [Coding::Gzip, Coding::Deflate] {
            let compressed = coding.compress(&body).await;
            assert!(compressed.len() < body.len() / 10);
            let mut plain = Vec::new();
            let read = match coding {
                Coding::Gzip => GzDecoder::new(&compressed[..]).read_to_end(&mut plain),
                Coding::Deflate => ZlibDecoder::new(&compressed[..]).read_to_end(&mut plain),
            };
            read.expect("a whole stream");
            assert_eq!(plain, body);
        }
    }

    #[test]
    fn a_coding_is_one_that_the_client_takes() {
        for (accepted, coding) in [
            ("gzip, deflate, br", Some(Coding::Gzip)),
            ("deflate", Some(Coding::Deflate)),
            ("gzip;q=0, deflate;q=0.5", Some(Coding::Deflate)),
            ("br", None),
            ("", None),
            ("gzip;q=0", None),
        ] {
            let request = [(ACCEPT_ENCODING, HeaderValue::from_static(accepted))].into_iter().collect();
            assert_eq!(Coding::accepted(&request), coding, "{accepted}");
        }
    }
}
