//! A simulated edge: an honest one, that answers reads by itself and has no device behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_session::frame::CONTROL;
use fieldlock_session::{
    Close, Decoder, DeviceOffer, Event, Frame, Hello, Liveness, Outcome, Session, VERSION,
    Violation,
};
use quinn::{Connection, RecvStream, SendStream, TransportConfig, VarInt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep_until;
use tokio_rustls::client::TlsStream;

use crate::site::edge_name;

const READ: usize = 1024;

/// How a tunnel ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) text: String,
    /// The headend does not want this edge: it comes back less often.
    pub(crate) refused: bool,
}

impl End {
    pub(crate) fn lost(error: impl ToString) -> Self {
        Self {
            text: error.to_string(),
            refused: false,
        }
    }
}

impl From<Violation> for End {
    fn from(error: Violation) -> Self {
        Self::lost(error)
    }
}

impl From<fieldlock_session::FrameError> for End {
    fn from(error: fieldlock_session::FrameError) -> Self {
        Self::lost(error)
    }
}

/// The session, and what it has to say.
struct Side<'a> {
    session: Session,
    control: Vec<u8>,
    device: Vec<u8>,
    up: &'a (dyn Fn() + Send + Sync),
}

impl<'a> Side<'a> {
    fn new(number: u32, heartbeat: bool, up: &'a (dyn Fn() + Send + Sync)) -> Self {
        let now = Instant::now();
        let session = Session::edge(&hello(number), Liveness::default(), heartbeat, now);
        let mut side = Self {
            session,
            control: Vec::new(),
            device: Vec::new(),
            up,
        };
        side.session.poll_transmit(&mut side.control);
        side
    }

    fn take(&mut self, now: Instant, channel: u16, frame: Frame<'_>) -> Result<(), End> {
        if channel == CONTROL {
            let event = self.session.handle(now, frame)?;
            self.session.poll_transmit(&mut self.control);
            return self.act(event);
        }
        if let Frame::Request { id, pdu, .. } = frame {
            let answer = Frame::Answer {
                id,
                outcome: Outcome::Answered,
                pdu: &answer(pdu),
            };
            answer.encode(channel, &mut self.device);
        }
        Ok(())
    }

    fn act(&mut self, event: Option<Event>) -> Result<(), End> {
        match event {
            Some(Event::Up(_)) => (self.up)(),
            Some(Event::Goodbye { code, text }) => {
                let refused = Close::from_code(code).is_some_and(Close::is_refusal);
                return Err(End { text, refused });
            }
            Some(Event::Dead) => return Err(End::lost("nothing heard")),
            Some(Event::HelloTimeout) => return Err(End::lost("no hello in time")),
            _ => {}
        }
        Ok(())
    }

    fn handle_timeout(&mut self) -> Result<(), End> {
        let event = self.session.handle_timeout(Instant::now());
        self.session.poll_transmit(&mut self.control);
        self.act(event)
    }

    /// Far away when there is nothing to wait for.
    fn deadline(&self) -> tokio::time::Instant {
        let far = || Instant::now() + Duration::from_secs(3600);
        self.session.poll_timeout().unwrap_or_else(far).into()
    }
}

/// Holds a tunnel over QUIC until it ends; calls `up` when it is.
pub(crate) async fn quic(
    number: u32,
    connection: Connection,
    up: &(dyn Fn() + Send + Sync),
) -> End {
    let Err(end) = hold_quic(number, &connection, up).await;
    end
}

async fn hold_quic(
    number: u32,
    connection: &Connection,
    up: &(dyn Fn() + Send + Sync),
) -> Result<std::convert::Infallible, End> {
    let mut side = Side::new(number, false, up);
    let (mut send, mut recv) = connection.open_bi().await.map_err(End::lost)?;
    let (mut control, mut requests) = (Decoder::default(), Decoder::default());
    let mut device: Option<(SendStream, RecvStream)> = None;
    loop {
        flush(&mut send, &mut side.control).await?;
        if let Some((send, _)) = &mut device {
            flush(send, &mut side.device).await?;
        }
        let has_device = device.is_some();
        let asked = async {
            match &mut device {
                Some((_, recv)) => recv.read_chunk(usize::MAX, true).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            chunk = recv.read_chunk(usize::MAX, true) => {
                let chunk = chunk.map_err(End::lost)?.ok_or_else(|| End::lost("stream ended"))?;
                let now = Instant::now();
                control.feed(&chunk.bytes, |channel, frame| side.take(now, channel, frame))?;
            }
            chunk = asked => {
                let chunk = chunk.map_err(End::lost)?.ok_or_else(|| End::lost("stream ended"))?;
                let now = Instant::now();
                requests.feed(&chunk.bytes, |channel, frame| side.take(now, channel, frame))?;
            }
            stream = connection.accept_bi(), if !has_device => {
                device = Some(stream.map_err(End::lost)?);
            }
            () = sleep_until(side.deadline()) => side.handle_timeout()?,
        }
    }
}

async fn flush(send: &mut SendStream, bytes: &mut Vec<u8>) -> Result<(), End> {
    if !bytes.is_empty() {
        send.write_all(bytes).await.map_err(End::lost)?;
        bytes.clear();
    }
    Ok(())
}

/// Holds a tunnel over TLS until it ends; calls `up` when it is.
pub(crate) async fn tls(
    number: u32,
    mut stream: Box<TlsStream<TcpStream>>,
    up: &(dyn Fn() + Send + Sync),
) -> End {
    let Err(end) = hold_tls(number, &mut stream, up).await;
    end
}

async fn hold_tls(
    number: u32,
    stream: &mut TlsStream<TcpStream>,
    up: &(dyn Fn() + Send + Sync),
) -> Result<std::convert::Infallible, End> {
    let mut side = Side::new(number, true, up);
    let mut decoder = Decoder::default();
    let mut input = [0; READ];
    loop {
        let mut output = std::mem::take(&mut side.control);
        output.append(&mut side.device);
        if !output.is_empty() {
            stream.write_all(&output).await.map_err(End::lost)?;
            stream.flush().await.map_err(End::lost)?;
            side.session.sent(Instant::now());
        }
        tokio::select! {
            count = stream.read(&mut input) => {
                let count = count.map_err(End::lost)?;
                if count == 0 {
                    return Err(End::lost("the headend closed the connection"));
                }
                let now = Instant::now();
                side.session.received(now);
                decoder.feed(&input[..count], |channel, frame| side.take(now, channel, frame))?;
            }
            () = sleep_until(side.deadline()) => side.handle_timeout()?,
        }
    }
}

fn hello(number: u32) -> Hello {
    let mut instance = [0x5C; 16];
    instance[..4].copy_from_slice(&number.to_be_bytes());
    Hello {
        version: VERSION,
        agent_version: "simulated".into(),
        instance,
        policy: [0; 32],
        trust: None,
        bundle: None,
        tunnel: 0,
        devices: vec![DeviceOffer {
            name: edge_name(number),
            credit: 16,
            answer_within: 1000,
            quirks: 0,
        }],
        stations: Vec::new(),
        cyclic: None,
    }
}

/// To a read of holding registers; whatever else is asked is an illegal function.
fn answer(pdu: &[u8]) -> Vec<u8> {
    match *pdu {
        [3, _, _, 0, count @ 1..=125] => {
            let mut answer = vec![3, 2 * count];
            answer.resize(2 + 2 * usize::from(count), 0);
            answer
        }
        [function, ..] => vec![function | 0x80, 1],
        [] => Vec::new(),
    }
}

/// As an agent sets it.
pub(crate) fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(VarInt::from_u32(2_000).into()))
        .keep_alive_interval(Some(Duration::from_millis(700)))
        .max_concurrent_bidi_streams(1u8.into())
        .max_concurrent_uni_streams(0u8.into())
        .stream_receive_window(VarInt::from_u32(64 * 1024))
        .datagram_receive_buffer_size(None)
        .initial_rtt(Duration::from_millis(100));
    Arc::new(config)
}
