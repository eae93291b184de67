//! Compression of polling answers above a threshold, as the reference's `httpCompression`.

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue};
use std::io::Write;
use tokio::task::yield_now;

/// What is compressed before others get their turn.
const PIECE: usize = 32 * 1024;

/// Compresses `body` if the client takes it and it is larger than `threshold` bytes (0 is never); says so in `answer`.
pub async fn compress(body: Vec<u8>, threshold: usize, request: &HeaderMap, answer: &mut HeaderMap) -> Vec<u8> {
    if threshold == 0 || body.len() < threshold {
        return body;
    }
    let level = Compression::fast();
    // HTTP's "deflate" is the zlib format (RFC 9110, section 8.4.1.2).
    let (name, compressed) = if accepts(request, "gzip") {
        ("gzip", write_all(GzEncoder::new(Vec::new(), level), &body).await.finish())
    } else if accepts(request, "deflate") {
        ("deflate", write_all(ZlibEncoder::new(Vec::new(), level), &body).await.finish())
    } else {
        return body;
    };
    answer.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    compressed.expect("a vector takes every byte")
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
    async fn a_large_answer_is_compressed_for_a_client_that_takes_it() {
        let body = "socket".repeat(1000).into_bytes();
        for (accepted, coding) in [("gzip, deflate, br", "gzip"), ("deflate", "deflate"), ("gzip;q=0, deflate;q=0.5", "deflate")]
        {
            let (compressed, answer) = run(&body, 1024, accepted).await;
            assert_eq!(answer.get(CONTENT_ENCODING).expect("a coding"), coding);
            assert!(compressed.len() < body.len() / 10);
            let mut plain = Vec::new();
            let read = match coding {
                "gzip" => GzDecoder::new(&compressed[..]).read_to_end(&mut plain),
                _ => ZlibDecoder::new(&compressed[..]).read_to_end(&mut plain),
            };
            read.expect("a whole stream");
            assert_eq!(plain, body);
        }
    }

    #[tokio::test]
    async fn anything_else_goes_out_as_it_is() {
        let body = vec![b'a'; 2000];
        for (threshold, accepted) in [(2001, "gzip"), (0, "gzip"), (1024, "br"), (1024, ""), (1024, "gzip;q=0")] {
            let (same, answer) = run(&body, threshold, accepted).await;
            assert_eq!((same.len(), answer.len()), (2000, 0), "{threshold} {accepted}");
        }
    }

    async fn run(body: &[u8], threshold: usize, accepted: &'static str) -> (Vec<u8>, HeaderMap) {
        let request = [(ACCEPT_ENCODING, HeaderValue::from_static(accepted))].into_iter().collect();
        let mut answer = HeaderMap::new();
        (compress(body.to_vec(), threshold, &request, &mut answer).await, answer)
    }
}
