//! The demo step by step.

mod evidence;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fieldlock_audit::Kind;
use fieldlock_sim::station::{OUTFLOW_LIMIT, SETPOINT};
use fieldlock_sim::{Options, Plc};
use fieldlock_status::Status;

use super::agent::Agent;
use super::client::{Client, UNIT};
use super::log::{AuditLog, describe};
use super::screen::{Screen, time};
use super::site::{Addresses, DEVICE, HEADEND, NO_POLICY, POLICY, SITE, Site};
use super::trouble::{Trouble, expect, wait_for};

/// What the HMI sets, and what it must not.
const ALLOWED: u16 = 1100;
const TOO_HIGH: u16 = 1900;

/// Between two looks at the process: long enough to see it move.
const LOOK: Duration = Duration::from_millis(500);

/// How long the tunnel may take to be found dead, or to come back.
const PATIENCE: Duration = Duration::from_secs(20);

const PATH_UNAVAILABLE: u8 = 0x0A;

pub(super) struct Story<'a> {
    site: &'a Site,
    screen: &'a mut Screen,
    began: Instant,
    plc: Plc,
    headend: Agent,
    edge: Agent,
    addresses: Addresses,
    client: Client,
    headend_log: AuditLog,
    edge_log: AuditLog,
    /// Lines of the summary: what, and how it went.
    shown: Vec<(&'static str, String)>,
}

impl<'a> Story<'a> {
    pub(super) async fn begin(site: &'a Site, screen: &'a mut Screen) -> Result<Self, Trouble> {
        let began = Instant::now();
        screen.line(
            "Fieldlock demo: HMI -> headend ==tunnel==> edge -> PLC, all on this machine, on loopback",
        );
        enrol(site, screen).await?;

        screen.step("PLC, headend and edge start");
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let plc = Plc::start(any_port, Options::default()).await;
        let plc = plc.map_err(Trouble::io("start the simulated PLC"))?;
        screen.row(
            "PLC",
            format!("{}, a simulated pump station", plc.address()),
        );
        let (mut headend, addresses) = start_headend(site, plc.address()).await?;
        screen.row(
            "headend",
            format!(
                "{}, Modbus/TCP for the HMI; tunnels on {}",
                addresses.clients, addresses.tunnel
            ),
        );
        let dialled = Instant::now();
        let mut edge = Agent::start("edge", site.program(), site.path())?;
        let tunnel = edge
            .wait_status("the edge's tunnel", tunnel_of_edge)
            .await?;
        let connected = |status: &Status| is_connected(status).then_some(());
        headend
            .wait_status("the device at the headend", connected)
            .await?;
        screen.row("edge", "dials the headend; listens nowhere");
        screen.good(
            "tunnel up",
            format!(
                "{tunnel}, {} after the edge was started",
                time(dialled.elapsed())
            ),
        );

        let client = Client::connect(addresses.clients).await?;
        Ok(Self {
            headend_log: AuditLog::of(&headend.state()),
            edge_log: AuditLog::of(&edge.state()),
            shown: vec![("tunnel, mutually authenticated", tunnel.to_string())],
            site,
            screen,
            began,
            plc,
            headend,
            edge,
            addresses,
            client,
        })
    }

    pub(super) async fn read_process(&mut self) -> Result<(), Trouble> {
        self.screen.step("The HMI reads the moving process");
        self.show_process(4).await
    }

    async fn show_process(&mut self, looks: u32) -> Result<(), Trouble> {
        self.screen
            .line("     level     inflow    outflow   pump 1   pump 2   setpoint    answered in");
        for look in 0..looks {
            if look > 0 {
                tokio::time::sleep(LOOK).await;
            }
            let answer = self.client.read(0, 41).await?;
            let took = time(answer.took);
            let registers = answer.granted("the registers of the process")?;
            let [level, inflow, outflow, pump_1, pump_2] = std::array::from_fn(|at| registers[at]);
            self.screen.line(&format!(
                "   {level:>4} mm  {} l/s  {} l/s  {:>7}  {:>7}    {:>4} mm     {took:>8}",
                tenths(inflow),
                tenths(outflow),
                runs(pump_1),
                runs(pump_2),
                registers[usize::from(SETPOINT)],
            ));
        }
        Ok(())
    }

    pub(super) async fn write_setpoint(&mut self) -> Result<(), Trouble> {
        self.screen
            .step(&format!("The HMI sets the level to {ALLOWED} mm: allowed"));
        let answer = self.client.write(SETPOINT, ALLOWED).await?;
        let took = time(answer.took);
        answer.granted("the write's echo")?;
        self.screen.good("answer", format!("written, in {took}"));
        expect(
            "setpoint in the PLC",
            Some(ALLOWED),
            self.plc.register(SETPOINT),
        )?;
        self.screen
            .row("PLC has", format!("holding {SETPOINT} = {ALLOWED}"));
        for kind in [Kind::WriteIntent, Kind::WriteOutcome] {
            let record = self.edge_log.next(kind).await?;
            self.screen.audit("edge", describe(&record));
        }
        self.screen.row(
            "",
            "(the intent was on disk before the write left for the PLC)",
        );
        self.show_process(3).await?;
        let text = format!("PLC has {ALLOWED}, intent and outcome on record, {took}");
        self.shown.push(("allowed write", text));
        Ok(())
    }

    pub(super) async fn try_forbidden_writes(&mut self) -> Result<(), Trouble> {
        self.screen.step("The HMI tries what it may not");
        for (register, value, why) in [
            (SETPOINT, TOO_HIGH, "a level beyond its bounds"),
            (OUTFLOW_LIMIT, 0, "a register that is not its own"),
        ] {
            let before = self.plc.register(register);
            self.screen
                .row("write", format!("holding {register} = {value}, {why}"));
            let answer = self.client.write(register, value).await?;
            let refused = answer.refused("a forbidden write")?;
            self.screen
                .bad("answer", format!("{refused}, in {}", time(answer.took)));
            let record = self.headend_log.next(Kind::Denied).await?;
            self.screen.audit("headend", describe(&record));
            expect("register in the PLC", before, self.plc.register(register))?;
            self.shown.push(("forbidden write", refused.to_string()));
        }
        self.check_ledger()
    }

    /// Somebody takes over the headend and lets everything through: the edge does not.
    pub(super) async fn lose_the_headend(&mut self) -> Result<(), Trouble> {
        self.screen
            .step("The headend is taken over and lets everything through");
        self.set_headend_policy(NO_POLICY).await?;
        let answer = self.client.write(SETPOINT, TOO_HIGH).await?;
        let refused = answer.refused("a write that the edge forbids")?;
        self.screen
            .row("write", format!("holding {SETPOINT} = {TOO_HIGH}, again"));
        self.screen.bad(
            "answer",
            format!("{refused}, from the edge, in {}", time(answer.took)),
        );
        let record = self.edge_log.next(Kind::Denied).await?;
        self.screen.audit("edge", describe(&record));
        self.check_ledger()?;
        self.set_headend_policy(POLICY).await?;
        self.shown.push((
            "same, headend taken over",
            refused.to_string() + ", by the edge",
        ));
        Ok(())
    }

    async fn set_headend_policy(&mut self, text: &str) -> Result<(), Trouble> {
        let hash = |status: &Status| Some(status.common().policy.clone());
        let before = self
            .headend
            .wait_status("the headend's policy", hash)
            .await?;
        self.site.write_policy("headend", text)?;
        self.headend.reload()?;
        let changed = |status: &Status| hash(status).filter(|now| *now != before);
        self.headend
            .wait_status("the headend's other policy", changed)
            .await?;
        Ok(())
    }

    fn check_ledger(&self) -> Result<(), Trouble> {
        expect("writes in the PLC's ledger:", 1, self.plc.write_count())?;
        expect(
            "setpoint in the PLC",
            Some(ALLOWED),
            self.plc.register(SETPOINT),
        )?;
        let text = format!("still {ALLOWED} mm; its own ledger has exactly 1 write");
        self.screen.good("PLC", text);
        Ok(())
    }

    pub(super) async fn cut_and_restore(&mut self) -> Result<(), Trouble> {
        self.screen
            .step("The edge is killed (kill -9), and started again");
        self.edge.kill().await?;
        let (killed, mut answers) = (Instant::now(), Vec::new());
        // First 0x0B: the request left, and no answer came. Then, when the tunnel is known to
        // be dead, 0x0A: it was certainly never sent.
        while answers.last() != Some(&PATH_UNAVAILABLE) {
            let answer = self.client.read(0, 1).await?;
            let refused = answer.refused("a read without an edge")?;
            let text = format!("{refused}, in {}", time(answer.took));
            self.screen.bad("answer", text);
            answers.push(refused.0);
            if killed.elapsed() > PATIENCE {
                let what = "exception 0x0a".to_owned();
                return Err(Trouble::InVain {
                    what,
                    within: PATIENCE,
                });
            }
        }
        self.screen.row("", format!(
            "(tunnel known dead after {}; the HMI kept its connection and never waited in vain)",
            time(killed.elapsed())
        ));

        let started = Instant::now();
        self.edge = Agent::start("edge", self.site.program(), self.site.path())?;
        let client = &mut self.client;
        let level = wait_for("an answer through the new tunnel", PATIENCE, async || {
            Ok(client.read(0, 1).await?.got.ok())
        });
        let level = level.await?.first().copied().unwrap_or_default();
        let back = time(started.elapsed());
        self.screen.good(
            "back",
            format!("level {level} mm, {back} after the edge was started"),
        );
        self.check_ledger()?;
        self.shown.push((
            "edge killed",
            "exceptions 0x0b, then 0x0a; no request hung".to_owned(),
        ));
        self.shown
            .push(("edge started again", format!("first answer after {back}")));
        Ok(())
    }

    pub(super) fn sum_up(&self) {
        self.screen.heading("Shown");
        for (what, how) in &self.shown {
            self.screen.line(&format!("   {what:<32}{how}"));
        }
        let plc = format!(
            "{} requests, {} write",
            self.plc.requests(),
            self.plc.write_count()
        );
        self.screen
            .line(&format!("   {:<32}{plc}", "reached the PLC"));
        self.screen.line(&format!(
            "   {:<32}{}",
            "the whole demo",
            time(self.began.elapsed())
        ));
    }

    /// Prints how to use what runs, and waits; returns only when an agent ends.
    pub(super) async fn keep(&mut self) -> Result<(), Trouble> {
        let Addresses { clients, .. } = self.addresses;
        let (host, port) = (clients.ip(), clients.port());
        let mbpoll = format!("mbpoll -m tcp -p {port} -a {UNIT} -0 -1");
        let program = self.site.program().display();
        let screen = &*self.screen;
        screen.heading("Running until Ctrl-C. Your turn:");
        screen.row("Modbus/TCP", format!("{clients}, unit {UNIT}"));
        screen.row("read", format!("{mbpoll} -r 0 -c 10 {host}"));
        screen.row("write", format!("{mbpoll} -r {SETPOINT} {host} 900"));
        screen.row(
            "be refused",
            format!("{mbpoll} -r {SETPOINT} {host} {TOO_HIGH}"),
        );
        for agent in [&self.headend, &self.edge] {
            let socket = agent.socket();
            screen.row(
                "status",
                format!("{program} status --socket {}", socket.display()),
            );
        }
        for agent in [&self.headend, &self.edge] {
            let state = agent.state();
            screen.row(
                "audit",
                format!("{program} audit tail -f --state {}", state.display()),
            );
        }
        for agent in [&self.headend, &self.edge] {
            screen.row("log", agent.log().display());
        }
        let policy = self.site.path().join("policy-edge.toml");
        screen.row(
            "policy",
            format!("{} (edit it, the edge notices)", policy.display()),
        );
        Err(tokio::select! {
            trouble = self.headend.end() => trouble,
            trouble = self.edge.end() => trouble,
        })
    }
}

async fn enrol(site: &Site, screen: &mut Screen) -> Result<(), Trouble> {
    screen.step("A CA, two identities, one policy");
    screen.command(&format!("ca init --site {SITE}"));
    let root = site.make_ca().await?;
    for (role, name) in [("headend", HEADEND), ("edge", DEVICE)] {
        screen.command(&format!(
            "ca issue --role {role} --name {name} --state {role}"
        ));
        site.issue(role, name).await?;
        site.write_policy(role, POLICY)?;
    }
    screen.row(
        "root",
        format!("SHA-256 {}...", root.get(..29).unwrap_or(&root)),
    );
    screen.row(
        "policy",
        "the HMI may read; it may write holding 40 within 300 to 1200; nothing else",
    );
    Ok(())
}

/// Somebody else may take a port between the choice and its use: then with others.
async fn start_headend(site: &Site, plc: SocketAddr) -> Result<(Agent, Addresses), Trouble> {
    const ATTEMPTS: usize = 5;
    let mut attempt = 1;
    loop {
        let addresses = site.configure(plc)?;
        let mut headend = Agent::start("headend", site.program(), site.path())?;
        match headend.wait_status("the headend", |_| Some(())).await {
            Ok(()) => return Ok((headend, addresses)),
            Err(Trouble::Ended { .. }) if attempt < ATTEMPTS && lost_port(&headend) => attempt += 1,
            Err(trouble) => return Err(trouble),
        }
    }
}

fn lost_port(headend: &Agent) -> bool {
    let log = std::fs::read_to_string(headend.log()).unwrap_or_default();
    let last = log.lines().last().unwrap_or_default();
    last.contains("can't listen on")
}

/// What a status says about a tunnel.
struct Tunnel {
    transport: String,
    key_exchange: String,
}

fn tunnel_of_edge(status: &Status) -> Option<Tunnel> {
    let Status::Edge(edge) = status else {
        return None;
    };
    let tunnel = edge.headends.first()?.tunnels.first()?;
    Some(Tunnel {
        transport: tunnel.transport.clone(),
        key_exchange: tunnel.key_exchange.clone(),
    })
}

fn is_connected(status: &Status) -> bool {
    let Status::Headend(headend) = status else {
        return false;
    };
    headend
        .devices
        .first()
        .is_some_and(|device| device.connected)
}

impl std::fmt::Display for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let transport = match self.transport.as_str() {
            "quic" => "QUIC",
            "tls" => "TLS over TCP",
            other => other,
        };
        write!(f, "{transport}, TLS 1.3, {}", self.key_exchange)
    }
}

/// `40.5`, right-aligned.
fn tenths(register: u16) -> String {
    format!("{:>5.1}", f64::from(register) / 10.0)
}

fn runs(pump: u16) -> &'static str {
    match pump {
        0 => "stopped",
        _ => "running",
    }
}
