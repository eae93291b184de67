//! What long-polling costs that does nothing: hyper answers from a hash map, and no request waits.

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};

/// What each session's next request that waits is answered.
type Sessions = HashMap<String, &'static str>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    LocalSet::new().run_until(serve()).await
}

async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    let sessions = Rc::new(RefCell::new(Sessions::new()));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let sessions = Rc::clone(&sessions);
        spawn_local(async move {
            let service = service_fn(|request| {
                let body = answer(&mut sessions.borrow_mut(), &request);
                async {
                    Ok::<_, Infallible>(
                        Response::builder()
                            .header("Content-Type", "text/plain; charset=UTF-8")
                            .body(Full::new(body))
                            .expect("valid"),
                    )
                }
            });
            // A client that goes is no fault of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(sessions: &mut Sessions, request: &Request<Incoming>) -> Bytes {
    let Some((_, sid)) = request.uri().query().unwrap_or_default().split_once("&sid=") else {
        let sid = format!("0-{:018}", sessions.len());
        let open = format!(r#"0{{"sid":"{sid}","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#);
        sessions.insert(sid, "40{\"sid\":\"0-00000000000000000\"}\x1e42[\"auth\",{}]");
        return open.into();
    };
    let Some(next) = sessions.get_mut(sid) else { return Bytes::new() };
    if request.method() == Method::POST {
        return Bytes::from_static(b"ok");
    }
    Bytes::from_static(std::mem::replace(next, r#"42["message-back","0123456789abcdef"]"#).as_bytes())
}
