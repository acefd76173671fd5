//! One connection: what it asks, and what is said.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use fieldlock_audit::Kind;
use fieldlock_status::{Answer, MAX_LINE, Refused, Request, RequestError};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as NoKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::debug;

use super::{Desk, Place, Refusal, Reports};

/// Who has not begun to ask by then does not mean to: `fieldlock status` of 0.1.0 reads and says
/// nothing.
const SILENCE: Duration = Duration::from_millis(250);
/// For the rest of a request.
pub(super) const REQUEST: Duration = Duration::from_secs(2);
/// For an answer: who reads slower is cut.
const ANSWER: Duration = Duration::from_secs(2);

pub(super) async fn converse<A: Reports>(mut stream: UnixStream, desk: Rc<Desk<A>>, place: Place) {
    let served = match hear(&mut stream).await {
        Ok(None) => tell_all(&mut stream, &desk).await,
        Ok(Some(request)) => attend(&mut stream, &desk, place, request).await,
        Err(failed) => Err(failed),
    };
    match served {
        Ok(()) => {}
        Err(Failed::Refused(refusal)) => refuse(&mut stream, &refusal).await,
        Err(Failed::Gone(error)) => debug!("control socket: a client was cut: {error}"),
    }
}

/// Why a connection does not end well.
enum Failed {
    Refused(Refusal),
    Gone(io::Error),
}

impl<R: Into<Refusal>> From<R> for Failed {
    fn from(refusal: R) -> Self {
        Self::Refused(refusal.into())
    }
}

async fn attend<A: Reports>(
    stream: &mut UnixStream,
    desk: &Rc<Desk<A>>,
    place: Place,
    request: Request,
) -> Result<(), Failed> {
    let agent = &*desk.agent;
    let answer = match request {
        Request::Status => return tell_all(stream, desk).await,
        Request::Subscribe => return follow(stream, desk, place).await,
        Request::Edges(page) => Answer::Edges(agent.edges(&page).ok_or(Refusal::NoEdges)?),
        Request::Devices(page) => Answer::Devices(agent.devices(&page).ok_or(Refusal::NoEdges)?),
        Request::Device { name } => Answer::Device(agent.device(&name).ok_or(Refusal::NoDevice)?),
        Request::Alarms => Answer::Alarms {
            alarms: agent.alarms(),
        },
        Request::Recent { kind, limit } => {
            let kind = kind.as_deref().map(kind_of).transpose()?;
            let events = agent.recent().latest(kind, usize::from(limit));
            Answer::Recent { events }
        }
    };
    say(stream, &answer.to_line()).await
}

/// The request, if one is made.
async fn hear(stream: &mut UnixStream) -> Result<Option<Request>, Failed> {
    let mut line = Vec::new();
    match timeout(SILENCE, read_piece(stream, &mut line)).await {
        Ok(more) => more.map_err(Failed::Gone)?,
        Err(_) => return Ok(None),
    };
    if line.is_empty() {
        return Ok(None);
    }
    match timeout(REQUEST, read_rest(stream, &mut line)).await {
        Ok(read) => read.map_err(Failed::Gone)?,
        Err(_) => return Err(Refusal::Unfinished.into()),
    }
    Ok(Some(parse(&line)?))
}

/// Up to where the line ends, or can't be one any more.
async fn read_rest(stream: &mut UnixStream, line: &mut Vec<u8>) -> io::Result<()> {
    while line.len() <= MAX_LINE && !line.contains(&b'\n') {
        if !read_piece(stream, line).await? {
            break;
        }
    }
    Ok(())
}

/// Whether there may be more.
async fn read_piece(stream: &mut UnixStream, line: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = [0; 512];
    let length = stream.read(&mut piece).await?;
    line.extend_from_slice(&piece[..length]);
    Ok(length > 0)
}

fn parse(line: &[u8]) -> Result<Request, RequestError> {
    match line.iter().position(|octet| *octet == b'\n') {
        Some(end) if end + 1 < line.len() => Err(RequestError::MoreThanOne),
        _ => Request::parse(line),
    }
}

fn kind_of(name: &str) -> Result<Kind, Refusal> {
    let kind = Kind::deserialize(IntoDeserializer::<NoKind>::into_deserializer(name));
    match kind {
        Ok(Kind::Other) | Err(_) => Err(Refusal::NoKind),
        Ok(kind) => Ok(kind),
    }
}

async fn tell_all<A: Reports>(stream: &mut UnixStream, desk: &Desk<A>) -> Result<(), Failed> {
    // It is never closed.
    let _turn = desk.documents.acquire().await;
    // Texts, numbers and lists of them: there is nothing in it that JSON can't say.
    let mut text = serde_json::to_string(&desk.agent.status()).unwrap_or_default();
    text.push('\n');
    say(stream, &text).await
}

async fn follow<A: Reports>(
    stream: &mut UnixStream,
    desk: &Rc<Desk<A>>,
    place: Place,
) -> Result<(), Failed> {
    let turn = desk.documents.acquire().await;
    let mut following = desk.follow().ok_or(Refusal::FeedFull)?;
    // Others may ask while this one listens.
    drop(place);
    say(stream, &std::mem::take(&mut following.state)).await?;
    drop(turn);
    loop {
        match following.deltas.recv().await {
            Ok(delta) => say(stream, &delta).await?,
            Err(_) => return Err(Failed::Gone(io::ErrorKind::TimedOut.into())),
        }
    }
}

async fn say(stream: &mut UnixStream, text: &str) -> Result<(), Failed> {
    match timeout(ANSWER, stream.write_all(text.as_bytes())).await {
        Ok(written) => written.map_err(Failed::Gone),
        Err(_) => Err(Failed::Gone(io::ErrorKind::TimedOut.into())),
    }
}

pub(super) async fn refuse(stream: &mut UnixStream, refusal: &Refusal) {
    let error = refusal.to_string();
    debug!("control socket: {error}");
    let _ = say(stream, &Refused { error }.to_line()).await;
}
