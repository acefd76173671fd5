//! How the names of headers are spelled. HTTP does not care, but clients do: libest compares octet by
//! octet with the spelling of the RFCs. hyper writes each word of a name with a capital, which is
//! right for all but these.

use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::http::Extensions;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const SPELLED: &[u8] = b"HTTP/1.1 200 OK\r\nWWW-Authenticate: x\r\nETag: x\r\n\r\n";

/// What makes a response spell them so. hyper keeps the spelling of a message that it reads, for
/// proxies, and has no other way to be told one: so it reads one.
pub(super) async fn of_rfcs() -> hyper::Result<Extensions> {
    let (near, mut far) = duplex(1024);
    let (mut sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(near))
        .await?;
    let answer = async {
        // The request comes first; what it says does not matter.
        let _ = far.read(&mut [0; 256]).await;
        let _ = far.write_all(SPELLED).await;
        drop(far);
    };
    let asked = sender.send_request(Request::new(Empty::<Bytes>::new()));
    let (response, (), _) = tokio::join!(asked, answer, connection);
    Ok(response?.extensions().clone())
}
