//! `--check --dial`: does what the configuration names answer?

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use fieldlock_session::Transport;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::dial::try_headend;
use super::line::open_serial;
use super::names::Names;
use super::{mbaps, transient_endpoint};
use crate::settings::{Device, File, Headend, ModbusTcp, Transport as Configured};
use fieldlock_agent::posture::Posture;
use fieldlock_agent::runtime::posture_of;
use fieldlock_agent::{Dialled, StartError};

pub(crate) async fn reach(file: &Path) -> Result<Vec<Dialled>, StartError> {
    let settings = File::load(file)?;
    let posture = posture_of(&settings)?;
    let mut dialled = Vec::new();
    for device in &settings.device {
        dialled.push(reach_device(&posture, device).await);
    }
    for headend in &settings.headend {
        dialled.extend(reach_headend(&posture, headend).await?);
    }
    Ok(dialled)
}

async fn reach_device(posture: &Posture, device: &Device) -> Dialled {
    let begun = Instant::now();
    let (address, outcome) = match (&device.modbus_tcp, &device.modbus_rtu) {
        (Some(tcp), _) => {
            let connecting = connect(posture, &device.name, tcp);
            let within = tcp.connect_timeout.0;
            let outcome = timeout(within, connecting).await;
            let late = || Err(format!("no answer within {within:?}"));
            let outcome = outcome.unwrap_or_else(|_| late());
            (tcp.address.clone(), outcome.map(|()| answered(begun)))
        }
        (_, Some(rtu)) => {
            let opened = open_serial(rtu).map_err(|error| io::Error::from(error).to_string());
            let said = "can be opened; whether a device is on the line only a request tells";
            (rtu.path.display().to_string(), opened.map(|_| said.into()))
        }
        // The configuration has been checked to name one.
        (None, None) => (String::new(), Err("no address".into())),
    };
    Dialled {
        what: format!("device {} at {address}", device.name),
        outcome,
    }
}

async fn connect(posture: &Posture, name: &str, tcp: &ModbusTcp) -> Result<(), String> {
    let stream = TcpStream::connect(tcp.address.as_str()).await;
    let stream = stream.map_err(|error| error.to_string())?;
    if let Some(mbaps) = &tcp.mbaps {
        mbaps::shake_hands(posture, name, mbaps, stream).await?;
    }
    Ok(())
}

async fn reach_headend(posture: &Posture, headend: &Headend) -> Result<Vec<Dialled>, StartError> {
    let endpoint = transient_endpoint()?;
    let trust = posture.trust();
    let what = format!("headend {}", headend.name);
    let mut dialled = Vec::new();
    let complain = |why| {
        dialled.push(Dialled {
            what: what.clone(),
            outcome: Err(why),
        });
    };
    let addresses = Names::new(&headend.address).resolve(complain).await;
    let transports: &[Transport] = match headend.transport {
        Configured::Auto => &[Transport::Quic, Transport::Tls],
        Configured::Quic => &[Transport::Quic],
        Configured::Tls => &[Transport::Tls],
    };
    for address in addresses {
        for &transport in transports {
            let begun = Instant::now();
            let tried = try_headend(&endpoint, &trust, &headend.name, (transport, address)).await;
            dialled.push(Dialled {
                what: format!("{what} at {address} over {}", transport.name()),
                outcome: tried.map(|()| answered(begun)),
            });
        }
    }
    Ok(dialled)
}

fn answered(since: Instant) -> String {
    let took = since.elapsed().max(Duration::from_micros(100));
    format!("answers, {:.1} ms", took.as_secs_f64() * 1e3)
}
