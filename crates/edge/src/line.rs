//! One connection to a device: a TCP socket, with TLS on it or not, or a serial line.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use fieldlock_conduit::device::ConnId;
use fieldlock_transport::socket::{self, Reader, Writer};
use fieldlock_transport::tls::Proof;
use fieldlock_transport::tunnel::Outbox;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_serial::{DataBits, Parity, SerialPortBuilderExt, SerialStream, StopBits};

use super::device::Device;
use super::mbaps;
use crate::settings::{ModbusRtu, ModbusTcp, Parity as ConfiguredParity};
use fieldlock_agent::sandbox::hint;

const READ: usize = 4096;

/// How long a device is waited for that was told that nothing more comes. The core waits no longer.
const SEAL_WITHIN: Duration = Duration::from_secs(2);

/// Dropping it closes the connection, or gives up opening it.
pub(super) struct Line {
    pub(super) conn: ConnId,
    /// `None` once it closes by itself.
    task: Option<JoinHandle<()>>,
    out: Rc<Out>,
}

#[derive(Default)]
struct Out {
    tcp: std::cell::OnceCell<Rc<Writer>>,
    serial: std::cell::OnceCell<Rc<Outbox>>,
    /// Nothing more is to be sent: the device is waited for to close.
    seal: Notify,
    /// Of a device that speaks MBAPS.
    proof: std::cell::OnceCell<Proof>,
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Line {
    pub(super) fn open(device: &Rc<Device>, conn: ConnId) -> Self {
        let out = Rc::new(Out::default());
        let task = run(device.clone(), conn, out.clone());
        Self {
            conn,
            task: Some(tokio::task::spawn_local(task)),
            out,
        }
    }

    /// Lets the connection end in an orderly way: the device hears that nothing more comes, carries out
    /// what it has, and closes; [`Device::sealed`] is told then.
    pub(super) fn seal(mut self) {
        self.task = None;
        self.out.seal.notify_one();
    }

    /// What the certificate of a device that speaks MBAPS has proved.
    pub(super) fn proof(&self) -> Option<&Proof> {
        self.out.proof.get()
    }

    /// Lets `append` add bytes and writes them; nothing happens while it is being opened.
    pub(super) fn send(&self, append: impl FnOnce(&mut Vec<u8>) -> bool) -> io::Result<()> {
        if let Some(writer) = self.out.tcp.get() {
            if writer.push(append) {
                writer.flush()?;
            }
        } else if let Some(outbox) = self.out.serial.get() {
            outbox.push(|out| {
                append(out);
            });
        }
        Ok(())
    }
}

async fn run(device: Rc<Device>, conn: ConnId, out: Rc<Out>) {
    if let Some(tcp) = &device.config.modbus_tcp {
        run_tcp(&device, tcp, conn, &out).await;
    } else if let Some(rtu) = &device.config.modbus_rtu {
        run_serial(&device, rtu, conn, &out).await;
    }
}

async fn run_tcp(device: &Rc<Device>, settings: &ModbusTcp, conn: ConnId, out: &Out) {
    let (mut reader, writer) = match connect(device, settings, out).await {
        Ok(halves) => halves,
        Err(error) => {
            device.connect_failed(conn, &format!("{}: {error}", settings.address));
            return;
        }
    };
    let writer = Rc::new(writer);
    let _ = out.tcp.set(writer.clone());
    device.connected(conn);
    tokio::select! {
        why = converse_tcp(device, conn, &mut reader, &writer) => device.lost(conn, &why),
        () = out.seal.notified() => {
            writer.end();
            // It is reset if it does not close: what it has not read by then it shall not read later.
            writer.reset_on_close();
            let _ = timeout(SEAL_WITHIN, until_end(&mut reader)).await;
            device.sealed(conn);
        }
    }
}

async fn until_end(reader: &mut Reader) {
    let mut late = Vec::with_capacity(READ);
    while reader.read(&mut late).await.is_ok_and(|count| count > 0) {
        late.clear();
    }
}

/// What it takes counts against the time that the core gives a connection to stand.
async fn connect(
    device: &Device,
    settings: &ModbusTcp,
    out: &Out,
) -> Result<(Reader, Writer), String> {
    let connected = async {
        let stream = TcpStream::connect(settings.address.as_str()).await?;
        socket::prepare_client(&stream)?;
        Ok::<_, io::Error>(stream)
    };
    let stream = connected.await.map_err(|error| error.to_string())?;
    let Some(mbaps) = &settings.mbaps else {
        return Ok(socket::split(stream, None));
    };
    let shaken = mbaps::shake_hands(&device.posture, &device.name, mbaps, stream);
    let (stream, sealed, proof) = shaken.await?;
    let _ = out.proof.set(proof);
    Ok(socket::split(stream, Some(sealed)))
}

async fn converse_tcp(
    device: &Rc<Device>,
    conn: ConnId,
    reader: &mut Reader,
    writer: &Writer,
) -> String {
    let mut input = Vec::with_capacity(READ);
    loop {
        tokio::select! {
            biased;
            received = reader.read(&mut input) => match received {
                Ok(0) => return "closed by the device".into(),
                Ok(_) => {
                    device.received(conn, &input);
                    input.clear();
                }
                Err(error) => return error.to_string(),
            },
            drained = writer.drain() => {
                if let Err(error) = drained {
                    return error.to_string();
                }
            }
        }
    }
}

async fn run_serial(device: &Rc<Device>, settings: &ModbusRtu, conn: ConnId, out: &Out) {
    let mut port = match open_serial(settings) {
        Ok(port) => port,
        Err(error) => {
            let error = io::Error::from(error);
            let text = format!("{}: {error}{}", settings.path.display(), hint(&error));
            device.connect_failed(conn, &text);
            return;
        }
    };
    let outbox = Rc::new(Outbox::default());
    let _ = out.serial.set(outbox.clone());
    device.connected(conn);
    let mut input = Vec::with_capacity(READ);
    let mut output = Vec::new();
    let why = loop {
        tokio::select! {
            received = port.read_buf(&mut input) => match received {
                Ok(0) => break "the serial port has gone".to_owned(),
                Ok(_) => {
                    device.received(conn, &input);
                    input.clear();
                }
                Err(error) => break error.to_string(),
            },
            () = outbox.take(&mut output) => {
                if let Err(error) = port.write_all(&output).await {
                    break error.to_string();
                }
            }
        }
    };
    device.lost(conn, &why);
}

pub(super) fn open_serial(settings: &ModbusRtu) -> tokio_serial::Result<SerialStream> {
    let parity = match settings.parity {
        ConfiguredParity::Even => Parity::Even,
        ConfiguredParity::Odd => Parity::Odd,
        ConfiguredParity::None => Parity::None,
    };
    // Modbus over Serial Line, section 2.5.1: 11 bits a character.
    let stop_bits = match (settings.stop_bits, parity) {
        (Some(2), _) | (None, Parity::None) => StopBits::Two,
        _ => StopBits::One,
    };
    tokio_serial::new(settings.path.to_string_lossy(), settings.baud)
        .data_bits(DataBits::Eight)
        .parity(parity)
        .stop_bits(stop_bits)
        .open_native_async()
}
