//! The second connection of a tunnel over TLS, for cyclic data, kept up beside it.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use fieldlock_session::dialler::ATTEMPT;
use fieldlock_session::{Backoff, CYCLIC_ALPN};
use fieldlock_transport::peer::tls_peer;
use fieldlock_transport::tunnel::lane::{Token, WELCOME};
use fieldlock_transport::tunnel::{Link, tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::Edge;
use super::dial::{Failed, connect_tls};

/// When it is dialled again, doubling from the first to the last: soon enough for a controller that
/// tries again, too.
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);

/// Keeps up the second connection of a tunnel over TLS, for cyclic data.
pub(super) async fn keep(edge: &Edge, link: &Link) -> Infallible {
    let headend = link.peer.identity.name.as_str();
    let mut backoff = Backoff::new(FIRST, LAST, edge.runtime.seed());
    let mut complained = false;
    loop {
        let token = link.lane.wanted().await;
        let connected = timeout(ATTEMPT, connect(edge, link, token)).await;
        match connected.unwrap_or_else(|_| Err(Failed::network("no answer in time"))) {
            Ok(()) => {
                debug!(headend, "connection for cyclic data stands");
                complained = false;
                let since = Instant::now();
                link.lane.wanted().await;
                if since.elapsed() > LAST {
                    backoff.reset();
                }
            }
            Err(failed) if complained => {
                debug!(headend, "no connection for cyclic data: {}", failed.text);
            }
            Err(failed) => {
                warn!(headend, "no connection for cyclic data: {}", failed.text);
                complained = true;
            }
        }
        sleep(backoff.delay()).await;
    }
}

async fn connect(edge: &Edge, link: &Link, token: Token) -> Result<(), Failed> {
    let config = edge.runtime.posture.trust().cyclic_client();
    let peer = &link.peer;
    let mut stream = connect_tls(config, &peer.identity, peer.address).await?;
    tls_peer(stream.get_ref().1, CYCLIC_ALPN, peer.address).map_err(Failed::refused)?;
    stream.write_all(&token).await.map_err(Failed::network)?;
    stream.flush().await.map_err(Failed::network)?;
    let mut welcome = [u8::MAX; WELCOME.len()];
    let answer = stream.read_exact(&mut welcome).await;
    answer.map_err(|error| Failed::network(tcp::describe(&error)))?;
    if welcome != WELCOME {
        return Err(Failed::network("the headend does not answer as it should"));
    }
    link.lane.offer(stream.into()).map_err(Failed::network)
}
