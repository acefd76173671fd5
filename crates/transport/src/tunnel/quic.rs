//! The tunnel over QUIC: the control channel is the edge's first stream, each channel of a device
//! or station a stream that the headend opens once the edge is ready. Cyclic data of stations are
//! datagrams (RFC 9221).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_session::{Close, Decoder, Frame, Side, Violation};
use fieldlock_tls::words;
use quinn::{ConnectionError, RecvStream, SendStream, TransportConfig, VarInt};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::floor::Floored;
use super::{End, Handler, Link, Outbox, Path};
use crate::tls::{alert_of, is_alert};

/// Idle and keep-alive together bound how long a dead peer goes unnoticed: 2.7 s. (A sent
/// keep-alive restarts quinn's idle timer; on a long path the bound is 3 probe time-outs.)
const IDLE: Duration = Duration::from_secs(2);
const KEEP_ALIVE: Duration = Duration::from_millis(700);
/// More than any tunnel needs: requests are small and bounded by credits.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Below quinn's 333 ms, so that a lost first packet costs a dial 0.3 s and not a second.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// The least that is assumed of a way that is known: the first packet is sent again after three times this
/// long, then after twice as long each.
const LEAST_RTT: Duration = Duration::from_millis(5);

/// Octets of datagrams that wait to leave; when there are more the oldest go. All stations may send
/// at once, and by the floor of the window so much leaves within a round trip.
const DATAGRAMS_OUT: usize = 64 * 1024;
/// The same of datagrams that have arrived: a turn of the event loop takes them all.
const DATAGRAMS_IN: usize = 64 * 1024;

/// Transport settings; `streams` is how many bidirectional ones the peer may open. quinn
/// reserves memory for each, so it is as many as there are channels and no more. With `stations`
/// there are datagrams, and a window that does not starve them.
pub fn transport(streams: u32, stations: bool) -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IDLE.try_into().unwrap_or_else(|_| VarInt::MAX.into())))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(0u8.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(CONNECTION_WINDOW.into())
        .datagram_receive_buffer_size(None)
        .initial_rtt(INITIAL_RTT);
    if stations {
        config
            .datagram_receive_buffer_size(Some(DATAGRAMS_IN))
            .datagram_send_buffer_size(DATAGRAMS_OUT)
            .congestion_controller_factory(Arc::<Floored>::default());
    }
    config
}

/// For a dial whose first packets may come too early: they are repeated by the round trip that the way
/// had a moment ago.
pub fn expect_answer(config: &mut TransportConfig, round_trip: Duration) {
    config.initial_rtt(round_trip.clamp(LEAST_RTT, INITIAL_RTT));
}

/// How long the last words of a closing tunnel may take.
const FAREWELL: Duration = Duration::from_millis(300);

/// Runs the tunnel until it ends.
pub async fn run(link: Rc<Link>, handler: Rc<dyn Handler>) -> End {
    let Path::Quic(connection) = &link.path else {
        return End::Transport("not a QUIC tunnel".into());
    };
    let connection = connection.clone();
    let mut tasks = JoinSet::new();
    let end = match control_stream(&connection, link.side).await {
        Ok((send, recv)) => {
            tasks.spawn_local(write(link.control.clone(), send));
            tasks.spawn_local(read(link.clone(), handler.clone(), recv, Some(0)));
            tasks.spawn_local(datagrams(link.clone(), handler.clone(), connection.clone()));
            supervise(&connection, &link, &handler, &mut tasks).await
        }
        Err(end) => end,
    };
    let end = match connection.close_reason() {
        Some(reason) if !matches!(end, End::Closed { .. } | End::Violation(_)) => describe(reason),
        _ => end,
    };
    if matches!(end, End::Closed { .. }) {
        // Closing drops what has not left yet. The other side closes when it has read our
        // goodbye, and whatever stands before it.
        let _ = timeout(FAREWELL, connection.closed()).await;
    }
    let (code, text) = match &end {
        End::Closed { reason, text } => (*reason as u32, text.as_str()),
        End::Violation(_) => (Close::Protocol as u32, ""),
        _ => (0, ""),
    };
    connection.close(code.into(), text.as_bytes());
    end
}

async fn control_stream(
    connection: &quinn::Connection,
    side: Side,
) -> Result<(SendStream, RecvStream), End> {
    let stream = match side {
        Side::Edge => connection.open_bi().await,
        Side::Headend => {
            let hello = fieldlock_session::Liveness::default().hello;
            match timeout(hello, connection.accept_bi()).await {
                Ok(stream) => stream,
                Err(_) => return Err(End::HelloTimeout),
            }
        }
    };
    stream.map_err(describe)
}

async fn supervise(
    connection: &quinn::Connection,
    link: &Rc<Link>,
    handler: &Rc<dyn Handler>,
    tasks: &mut JoinSet<End>,
) -> End {
    let mut opened = false;
    loop {
        let deadline = link.next_deadline();
        let timer = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            end = tasks.join_next() => {
                // A panic of one task ends this tunnel, not the agent.
                return match end {
                    Some(Ok(end)) => end,
                    _ => End::Transport("a task of this tunnel failed".into()),
                };
            }
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    tasks.spawn_local(serve(link.clone(), handler.clone(), send, recv));
                }
                Err(error) => return describe(error),
            },
            () = link.attention.notified() => {
                if let Some(end) = link.closing() {
                    return end;
                }
                if link.side == Side::Headend && link.is_up() && !opened {
                    opened = true;
                    if let Err(end) = open_channels(connection, link, handler, tasks).await {
                        return end;
                    }
                }
            }
            () = timer => {
                if let Err(end) = link.handle_timeout(&**handler, Instant::now()) {
                    return end;
                }
            }
        }
    }
}

async fn open_channels(
    connection: &quinn::Connection,
    link: &Rc<Link>,
    handler: &Rc<dyn Handler>,
    tasks: &mut JoinSet<End>,
) -> Result<(), End> {
    let channels = link.channels.borrow().clone();
    for (channel, outbox) in (1..).zip(channels) {
        // An edge grants as many streams as it offers devices and stations.
        let opening = timeout(IDLE, connection.open_bi()).await;
        let (send, recv) = opening
            .map_err(|_| End::Transport("the edge grants too few streams".into()))?
            .map_err(describe)?;
        if channel > link.devices.get() {
            // A device only answers; a station may be the first to have something to say.
            outbox.push(|out| Frame::Station(&[]).encode(channel, out));
        }
        tasks.spawn_local(write(outbox, send));
        tasks.spawn_local(read(link.clone(), handler.clone(), recv, Some(channel)));
    }
    Ok(())
}

/// The edge's end of a device stream: its first frame tells the channel.
async fn serve(
    link: Rc<Link>,
    handler: Rc<dyn Handler>,
    send: SendStream,
    recv: RecvStream,
) -> End {
    if link.side == Side::Headend {
        return End::Violation(Violation::Credit(
            "an edge opens no stream but the control stream",
        ));
    }
    let mut reader = Reader::new(recv, None);
    loop {
        match reader.chunk(&link, &*handler).await {
            Ok(()) => {}
            Err(end) => return end,
        }
        if let Some(channel) = reader.channel {
            let Some(outbox) = link.channel(channel) else {
                return End::Violation(Violation::Channel { channel });
            };
            return tokio::select! {
                end = write(outbox, send) => end,
                end = reader.run(&link, &*handler) => end,
            };
        }
    }
}

/// Waits for ever where there are none: one is refused by quinn then.
async fn datagrams(link: Rc<Link>, handler: Rc<dyn Handler>, connection: quinn::Connection) -> End {
    loop {
        match connection.read_datagram().await {
            Ok(datagram) => link.deliver_datagram(&*handler, &datagram),
            Err(error) => return describe(error),
        }
        handler.flush();
    }
}

async fn write(outbox: Rc<Outbox>, mut send: SendStream) -> End {
    let mut buffer = Vec::new();
    loop {
        outbox.take(&mut buffer).await;
        if let Err(error) = send.write_all(&buffer).await {
            return End::Transport(format!("writing failed: {error}"));
        }
    }
}

async fn read(
    link: Rc<Link>,
    handler: Rc<dyn Handler>,
    recv: RecvStream,
    channel: Option<u16>,
) -> End {
    Reader::new(recv, channel).run(&link, &*handler).await
}

struct Reader {
    recv: RecvStream,
    decoder: Decoder,
    channel: Option<u16>,
}

impl Reader {
    fn new(recv: RecvStream, channel: Option<u16>) -> Self {
        Self {
            recv,
            decoder: Decoder::default(),
            channel,
        }
    }

    async fn run(&mut self, link: &Rc<Link>, handler: &dyn Handler) -> End {
        loop {
            if let Err(end) = self.chunk(link, handler).await {
                return end;
            }
        }
    }

    /// Reads what has arrived and delivers its frames.
    async fn chunk(&mut self, link: &Rc<Link>, handler: &dyn Handler) -> Result<(), End> {
        let chunk = match self.recv.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => chunk.bytes,
            Ok(None) => return Err(End::Transport("the other side ended a stream".into())),
            Err(error) => return Err(End::Transport(format!("reading failed: {error}"))),
        };
        let now = Instant::now();
        let expected = &mut self.channel;
        let fed = self.decoder.feed(&chunk, |channel, frame| {
            if *expected.get_or_insert(channel) != channel {
                return Err(End::Violation(Violation::Channel { channel }));
            }
            link.deliver(handler, now, channel, frame)
        });
        handler.flush();
        fed
    }
}

/// Why a QUIC connection ended, in words.
pub fn describe(error: ConnectionError) -> End {
    match error {
        ConnectionError::ApplicationClosed(close) => End::Goodbye {
            code: u16::try_from(close.error_code.into_inner()).unwrap_or(0),
            text: String::from_utf8_lossy(&close.reason)
                .chars()
                .filter(|c| !c.is_control())
                .take(256)
                .collect(),
        },
        ConnectionError::TimedOut => End::Dead,
        ConnectionError::ConnectionClosed(close) if is_alert(close.error_code) => {
            End::Rejected(words::alert(alert_of(close.error_code)).into_owned())
        }
        ConnectionError::TransportError(error) if is_alert(error.code) => {
            End::Refused(error.reason)
        }
        error => End::Transport(error.to_string()),
    }
}

/// The headend refused the connection before the handshake (RFC 9000, section 20.1).
pub fn is_busy(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ConnectionClosed(close)
        if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED)
}
