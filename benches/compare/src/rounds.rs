//! Starts everything, then measures in interleaved rounds.

use std::net::SocketAddr;
use std::path::Path;

use fieldlock_testkit::ports::free_address;
use fieldlock_testkit::process::{Directory, Process};

use crate::contender::{Contender, Kind};
use crate::load::{Window, measure};
use crate::pair::Fieldlock;
use crate::rivals::{self, Certificates};
use crate::server;
use crate::shape::Shape;
use crate::vpn::Far;
use crate::{Failure, Plan};
use fieldlock_testkit::usage::MachineTime;

/// Everything measured, in the order of measuring.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) measurements: Vec<Measurement>,
    /// Contenders that could not take part, and why.
    pub(crate) left_out: Vec<(Kind, String)>,
    /// Share of the time that the machine's host gave to others.
    pub(crate) stolen: f64,
}

#[derive(Debug)]
pub(crate) struct Measurement {
    pub(crate) round: u16,
    pub(crate) shape: Shape,
    pub(crate) kind: Kind,
    pub(crate) window: Window,
}

pub(crate) async fn run(plan: &Plan) -> Result<Results, Failure> {
    let directory = Directory::new()?;
    let mut results = Results::default();
    let field = start(plan, directory.path(), &mut results)?;
    let before = MachineTime::read();
    for round in 0..plan.rounds {
        for &shape in &plan.shapes {
            // Rotating, so that no contender always follows the same one.
            for step in 0..field.contenders.len() {
                let place = (usize::from(round) + step) % field.contenders.len();
                let contender = &field.contenders[place];
                let ids = contender.process_ids();
                let window = measure(contender.address, shape, plan.seconds, &ids).await;
                results.measurements.push(Measurement {
                    round,
                    shape,
                    kind: contender.kind,
                    window,
                });
            }
        }
        eprintln!("round {} of {}", round + 1, plan.rounds);
    }
    if let (Some(before), Some(after)) = (before, MachineTime::read()) {
        results.stolen = after.stolen_since(&before);
    }
    Ok(results)
}

struct Field {
    contenders: Vec<Contender>,
    _server: Process,
    _far: Option<Far>,
}

fn start(plan: &Plan, directory: &Path, results: &mut Results) -> Result<Field, Failure> {
    let server = free_address()?;
    let process = server::start(server, directory)?;
    let direct = Contender {
        kind: Kind::Direct,
        address: server,
        processes: Vec::new(),
    };
    let mut contenders = vec![direct.wait_ready()?];
    let mut starter = Starter {
        plan,
        directory,
        certificates: None,
        fieldlock: None,
        far: None,
    };
    let before = plan
        .before
        .iter()
        .flat_map(|_| [Kind::BeforeQuic, Kind::BeforeTls]);
    for kind in plan.peers.iter().copied().chain(before) {
        match starter.start(kind, server) {
            Ok(contender) => contenders.push(contender),
            Err(error) => {
                eprintln!("left out: {}: {error}", kind.name());
                results.left_out.push((kind, error.to_string()));
            }
        }
    }
    Ok(Field {
        contenders,
        _server: process,
        _far: starter.far,
    })
}

/// Makes what several contenders share when the first of them needs it.
struct Starter<'a> {
    plan: &'a Plan,
    directory: &'a Path,
    certificates: Option<Certificates>,
    fieldlock: Option<Fieldlock>,
    far: Option<Far>,
}

impl Starter<'_> {
    fn start(&mut self, kind: Kind, server: SocketAddr) -> Result<Contender, Failure> {
        let directory = self.directory;
        match kind {
            Kind::Direct | Kind::Floor => rivals::haproxy(Kind::Floor, server, directory, None),
            Kind::HaproxyTls => {
                let certificates = self.certificates()?;
                rivals::haproxy(kind, server, directory, Some(certificates))
            }
            Kind::Stunnel => rivals::stunnel(server, directory, self.certificates()?),
            Kind::Rathole => rivals::rathole(server, directory),
            Kind::Boringtun | Kind::Openvpn => self.far()?.start(kind, directory),
            _ => self.fieldlock()?.start(kind, server),
        }
    }

    fn certificates(&mut self) -> Result<&Certificates, Failure> {
        match &mut self.certificates {
            Some(made) => Ok(made),
            none => Ok(none.insert(Certificates::make(self.directory)?)),
        }
    }

    fn far(&mut self) -> Result<&Far, Failure> {
        match &mut self.far {
            Some(made) => Ok(made),
            none => Ok(none.insert(Far::new(self.directory)?)),
        }
    }

    fn fieldlock(&mut self) -> Result<&Fieldlock, Failure> {
        let (program, before) = (self.plan.fieldlock.as_deref(), self.plan.before.as_deref());
        match &mut self.fieldlock {
            Some(made) => Ok(made),
            none => Ok(none.insert(Fieldlock::prepare(program, before, self.directory)?)),
        }
    }
}
