use std::borrow::Cow;
use std::time::Instant;

use tokio_modbus::client::{Client as _, Context, Reader as _, Writer as _, tcp};

use super::*;
use crate::station::{ALARM_HIGH, LEVEL, OUTFLOW_LIMIT, PUMP_1_ENABLED, SETPOINT, TICKS};

#[tokio::test]
async fn it_reads_writes_and_remembers() {
    let plc = start(Options::default()).await;
    let mut client = connect(&plc).await;

    let registers = client.read_holding_registers(0, 100).await.unwrap();
    assert_eq!(registers.unwrap().len(), 100);
    let inputs = client.read_input_registers(LEVEL, 1).await.unwrap();
    assert!(inputs.unwrap()[0] > 0);
    let coils = client.read_coils(0, 16).await.unwrap().unwrap();
    assert!(coils[usize::from(PUMP_1_ENABLED)] && !coils[usize::from(ALARM_HIGH)]);
    assert!(client.read_discrete_inputs(8, 3).await.unwrap().is_ok());

    let write = client.write_single_register(SETPOINT, 900).await;
    write.unwrap().unwrap();
    let write = client.write_multiple_registers(SETPOINT, &[901, 700]).await;
    write.unwrap().unwrap();
    let write = client.write_single_coil(PUMP_1_ENABLED, false).await;
    write.unwrap().unwrap();
    let write = client.masked_write_register(50, 0x00F0, 0x0F0F).await;
    write.unwrap().unwrap();
    let read = client.read_write_multiple_registers(40, 2, 42, &[7]).await;
    assert_eq!(read.unwrap().unwrap(), [901, 700]);

    assert_eq!(plc.register(SETPOINT), Some(901));
    assert_eq!(plc.register(OUTFLOW_LIMIT), Some(700));
    assert_eq!(plc.register(100), None);
    assert_eq!(plc.coil(PUMP_1_ENABLED), Some(false));
    let functions: Vec<_> = plc.writes().iter().map(|write| write.function).collect();
    assert_eq!(functions, [6, 16, 5, 22, 23]);
    assert_eq!((plc.write_count(), plc.connections()), (5, 1));
    assert_eq!(plc.writes()[3].values, [0x0F0F & !0x00F0]);
}

#[tokio::test]
async fn its_server_id_ends_where_its_length_says() {
    let plc = start(Options::default()).await;
    let mut client = connect(&plc).await;
    let answer = client.call(Request::ReportServerId).await.unwrap().unwrap();
    let text = b"Fieldlock pump station".to_vec();
    assert_eq!(answer, Response::ReportServerId(1, true, text));
    // A byte too many would be the beginning of this answer.
    let read = client.read_holding_registers(SETPOINT, 1).await;
    assert_eq!(read.unwrap().unwrap(), [800]);
}

#[tokio::test]
async fn it_refuses_as_a_plc_does() {
    let plc = start(Options::default()).await;
    let mut client = connect(&plc).await;
    let (address, value) = (
        ExceptionCode::IllegalDataAddress,
        ExceptionCode::IllegalDataValue,
    );
    let read = client.read_holding_registers(90, 11).await.unwrap();
    assert_eq!(read, Err(address));
    let read = client.read_holding_registers(0, 126).await.unwrap();
    assert_eq!(read, Err(value));
    let write = client.write_single_register(LEVEL, 1).await.unwrap();
    assert_eq!(write, Err(address));
    let write = client.write_single_register(SETPOINT, 2001).await.unwrap();
    assert_eq!(write, Err(value));
    let write = client.write_single_coil(ALARM_HIGH, false).await.unwrap();
    assert_eq!(write, Err(address));
    let vendor = client.call(Request::Custom(0x5A, Cow::Borrowed(&[1, 2])));
    assert_eq!(vendor.await.unwrap(), Err(ExceptionCode::IllegalFunction));
    assert_eq!((plc.write_count(), plc.requests()), (0, 6));
}

#[tokio::test]
async fn it_says_what_it_is() {
    let plc = start(Options::default()).await;
    let mut client = connect(&plc).await;
    let request = Request::try_from(Bytes::from_static(&[0x2B, 14, 1, 0])).unwrap();
    let answer = client.call(request).await.unwrap().unwrap();
    let Response::ReadDeviceIdentification(answer) = answer else {
        panic!("{answer:?}");
    };
    let texts: Vec<_> = answer
        .device_id_objects
        .iter()
        .filter_map(|object| object.value_as_str())
        .collect();
    assert_eq!(texts, ["Fieldlock", "pump-station", "1.0"]);
}

#[tokio::test]
async fn the_process_moves() {
    let plc = start(Options::default()).await;
    let before = plc.register(TICKS);
    let deadline = Instant::now() + Duration::from_secs(10);
    while plc.register(TICKS) == before {
        assert!(Instant::now() < deadline, "no tick");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn delay_and_silence_are_switched_while_it_runs() {
    let delay = Duration::from_millis(80);
    let plc = start(Options {
        answer_delay: delay,
        silent: false,
    })
    .await;
    let mut client = connect(&plc).await;
    let asked = Instant::now();
    client.read_holding_registers(0, 1).await.unwrap().unwrap();
    assert!(asked.elapsed() >= delay);

    plc.set_answer_delay(Duration::ZERO);
    plc.set_silent(true);
    let write = client.write_single_register(SETPOINT, 950);
    let waited = tokio::time::timeout(Duration::from_millis(100), write).await;
    assert!(waited.is_err(), "{waited:?}");
    assert_eq!(plc.register(SETPOINT), Some(950));

    plc.set_silent(false);
    let mut client = connect(&plc).await;
    client.read_holding_registers(0, 1).await.unwrap().unwrap();
}

#[tokio::test]
async fn dropping_it_frees_the_port_and_ends_its_connections() {
    let plc = start(Options::default()).await;
    let address = plc.address();
    let mut client = connect(&plc).await;
    client.read_holding_registers(0, 1).await.unwrap().unwrap();
    drop(plc);
    let read = client.read_holding_registers(0, 1).await;
    assert!(read.is_err(), "{read:?}");
    Plc::start(address, Options::default()).await.unwrap();
}

async fn start(options: Options) -> Plc {
    Plc::start(([127, 0, 0, 1], 0).into(), options)
        .await
        .unwrap()
}

async fn connect(plc: &Plc) -> Context {
    tcp::connect(plc.address()).await.unwrap()
}
