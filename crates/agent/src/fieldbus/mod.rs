//! PROFINET at an agent: one interface, and the bridge between it and the tunnels.
//!
//! - `metrics`: what monitoring sees of it.
//! - `pending`: what waits for the interface, or for its record.
//! - `record`: what the bridge tells, on record.
//! - `status`: what `fieldlock status` shows of it.
//!
//! Everything that is decided is decided in [`fieldlock_conduit::profinet`].

mod metrics;
mod pending;
mod record;
mod status;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_audit::{Ticket, Unavailable};
use fieldlock_conduit::profinet::{
    ArName, Bridge, BridgeSettings, Event, LinkId, Output, Role, StationSettings, Tagging,
};
use fieldlock_profinet::ar::Ended;
use fieldlock_profinet::{Mac, StationName};
use fieldlock_rawsock::{Counters, Filter, JoinError, LinkError, PacketSocket, Timer, Vlans};
use fieldlock_status::profinet::{EndedAr, Pair};
use fieldlock_transport::tunnel::{Link, NotSent};
use tokio::sync::Notify;
use tokio::time::{interval, sleep};
use tracing::{info, warn};

use crate::ledger::{Alarm, Ledger};
use crate::posture::Posture;
use crate::settings::profinet::{Controller, Profinet, Station, TagRule};
use crate::{StartError, random};
use pending::{Pending, Way};

/// How often the cable is looked at, and an interface that is gone looked for.
const REOPEN: Duration = Duration::from_secs(1);
/// How often the round trips of the tunnels are looked at.
const MEASURE: Duration = Duration::from_secs(1);

/// The fieldbus of one agent.
#[derive(Debug)]
pub struct Fieldbus {
    interface: String,
    bridge: RefCell<Bridge>,
    links: RefCell<BTreeMap<LinkId, Rc<Link>>>,
    pending: RefCell<Pending>,
    ledger: Rc<Ledger>,
    /// The last ARs that ended, and why: for who asks what happened.
    ended: RefCell<VecDeque<EndedAr>>,
    counters: RefCell<Counters>,
    /// There is something to send, to join, or another deadline.
    wake: Notify,
}

/// ARs that ended and are remembered.
const MAX_ENDED: usize = 16;

/// The interface and the timer, opened while it is permitted.
#[derive(Debug)]
pub struct Opened {
    socket: PacketSocket,
    timer: Timer,
}

impl Opened {
    /// Needs CAP_NET_RAW, and no runtime.
    pub fn open(profinet: &Profinet) -> Result<Self, StartError> {
        Ok(Self {
            socket: PacketSocket::open(&profinet.interface, Filter { vlans: Vlans::All })
                .map_err(StartError::Fieldbus)?,
            timer: Timer::new().map_err(StartError::Io)?,
        })
    }
}

impl Fieldbus {
    /// `role`: whose wire it is, the controllers' or the devices'. An edge has no controllers
    /// configured.
    pub fn start(
        role: fieldlock_pki::Role,
        opened: Opened,
        profinet: &Profinet,
        (stations, controllers): (&[Station], &[Controller]),
        posture: &Posture,
        ledger: &Rc<Ledger>,
    ) -> Result<Rc<Self>, StartError> {
        let settings = BridgeSettings {
            role: match role {
                fieldlock_pki::Role::Headend => Role::Headend,
                _ => Role::Edge,
            },
            tagging: match profinet.tag {
                TagRule::Keep => Tagging::Keep,
                TagRule::Priority => Tagging::Priority,
            },
            max_ars: profinet.max_ars,
            seed: u64::from_be_bytes(random()?),
        };
        let stations = stations.iter().map(station_settings).collect();
        let controllers = controllers.iter().map(named).collect();
        let rules = (posture.policy(), posture.now());
        let bridge = Bridge::new(Instant::now(), settings, rules, stations, controllers);
        let fieldbus = Rc::new(Self {
            interface: profinet.interface.clone(),
            bridge: RefCell::new(bridge),
            links: RefCell::default(),
            pending: RefCell::default(),
            ledger: ledger.clone(),
            ended: RefCell::default(),
            counters: RefCell::default(),
            wake: Notify::new(),
        });
        fieldbus.turn(|bridge, _| bridge.start());
        info!(
            interface = fieldbus.interface,
            "PROFINET: interface is open"
        );
        tokio::task::spawn_local(fieldbus.clone().run(opened));
        tokio::task::spawn_local(fieldbus.clone().measure());
        Ok(fieldbus)
    }

    /// A tunnel is up that carries `stations`, in the order of the hello.
    pub fn link_up(&self, link: &Rc<Link>, stations: &[String]) {
        let known =
            |(channel, name): (u16, &String)| Some((channel, name.parse::<StationName>().ok()?));
        let channels: Vec<_> = (0..link.stations())
            .zip(stations)
            .filter_map(known)
            .collect();
        if channels.is_empty() {
            return;
        }
        let id = LinkId(link.number);
        self.links.borrow_mut().insert(id, link.clone());
        let peer: Arc<str> = link.peer.identity.name.as_str().into();
        self.turn(|bridge, now| {
            bridge.link_up(now, id, peer, &channels, link.max_datagram());
            if let Some(round_trip) = link.round_trip() {
                bridge.set_round_trip(id, round_trip);
            }
        });
    }

    pub fn link_down(&self, link: &Link) {
        let id = LinkId(link.number);
        if self.links.borrow_mut().remove(&id).is_some() {
            self.turn(|bridge, now| bridge.link_down(now, id));
        }
    }

    /// A frame came on the channel of the n-th station.
    pub fn station(&self, link: &Link, station: u16, frame: &[u8]) {
        let id = LinkId(link.number);
        self.turn(|bridge, now| {
            self.tell(bridge);
            bridge.handle_station(now, id, station, frame);
        });
    }

    pub fn datagram(&self, link: &Link, datagram: &[u8]) {
        let id = LinkId(link.number);
        self.turn(|bridge, now| bridge.handle_datagram(now, id, datagram));
    }

    /// Other rules are in force: what is open is judged by them.
    pub fn judge_anew(&self, posture: &Posture) {
        let (policy, wall) = (posture.policy(), posture.now());
        self.turn(|bridge, now| bridge.set_policy(now, policy, wall));
    }

    /// The configuration was read again. The interface stays the one that was opened.
    pub fn reconfigure(
        &self,
        profinet: &Profinet,
        stations: &[Station],
        controllers: &[Controller],
    ) {
        if profinet.interface != self.interface {
            warn!(
                interface = self.interface,
                "PROFINET: another interface takes a restart, since the right to open one is given up"
            );
        }
        let stations = stations.iter().map(station_settings).collect();
        let controllers: Vec<_> = controllers.iter().map(named).collect();
        self.turn(|bridge, now| bridge.set_parties(now, stations, &controllers));
    }

    /// Something comes in that is not from the interface.
    fn turn(&self, act: impl FnOnce(&mut Bridge, Instant)) {
        self.handle(act);
        self.wake.notify_one();
    }

    /// Something comes in, and what the bridge wants done is done.
    fn handle(&self, act: impl FnOnce(&mut Bridge, Instant)) {
        let mut bridge = self.bridge.borrow_mut();
        act(&mut bridge, Instant::now());
        self.drain(&mut bridge);
    }

    /// Tells the bridge how log and tunnels are, before frames that may change a station, open an AR
    /// or lead to a datagram: once for all that are heard together. What tunnels take changes only
    /// while a task of theirs runs. The log is behind a lock, too much for each cyclic frame; should
    /// it fail in between, what changes a station waits for its record and is dropped.
    fn tell(&self, bridge: &mut Bridge) {
        bridge.set_writable(self.ledger.is_writable());
        for (id, link) in self.links.borrow().iter() {
            bridge.set_max_datagram(*id, link.max_datagram());
        }
    }

    /// Does what the bridge wants done; all that stands behind a change of a station waits for the
    /// record of that.
    fn drain(&self, bridge: &mut Bridge) {
        let mut behind = None;
        while let Some(output) = bridge.poll_output() {
            if !self.carry_out(output, &mut behind) {
                bridge.handle_not_taken();
            }
        }
        // Such a record may be the one that the log could not take.
        if behind.is_some() {
            bridge.set_writable(self.ledger.is_writable());
        }
    }

    /// `false` for what a tunnel did not take. `behind`: the record without which nothing leaves.
    fn carry_out(
        &self,
        output: Output<'_>,
        behind: &mut Option<Result<Ticket, Unavailable>>,
    ) -> bool {
        let mut pending = self.pending.borrow_mut();
        match (output, &*behind) {
            (Output::Wire(frame), None) => pending.push(frame),
            (Output::Wire(frame), Some(Ok(ticket))) => {
                pending.hold(*ticket, Way::Wire, frame);
            }
            (Output::Wire(_), Some(Err(_))) => pending.overflow += 1,
            (
                Output::Station {
                    link,
                    channel,
                    frame,
                },
                behind,
            ) => {
                return match behind {
                    None => self.send(link, |link| link.send_station(channel, frame)),
                    Some(Ok(ticket)) => pending.hold(*ticket, Way::Station(link, channel), frame),
                    Some(Err(_)) => false,
                };
            }
            (Output::Datagram { link, datagram }, _) => {
                return self.send(link, |link| link.send_datagram(datagram));
            }
            (Output::Join(mac), _) => pending.memberships.push((mac, true)),
            (Output::Leave(mac), _) => pending.memberships.push((mac, false)),
            (Output::Event(event), _) => self.note(event, behind),
        }
        true
    }

    fn send(&self, link: LinkId, send: impl FnOnce(&Link) -> Result<(), NotSent>) -> bool {
        let links = self.links.borrow();
        links.get(&link).is_some_and(|link| send(link).is_ok())
    }

    /// Puts on record what the bridge tells.
    fn note(&self, event: Event, behind: &mut Option<Result<Ticket, Unavailable>>) {
        if let Event::ArDown { ar, why, lasted } = &event {
            self.remember(ar, *why, *lasted);
        }
        if let Some(intent) = record::note(&self.ledger, event) {
            *behind = Some(intent);
        }
    }

    /// Owns the interface: hears, sends, and keeps the deadlines.
    async fn run(self: Rc<Self>, opened: Opened) {
        let Opened {
            mut socket,
            mut timer,
        } = opened;
        let durable = Rc::new(Notify::new());
        self.ledger.listen(durable.clone());
        let mut look = interval(REOPEN);
        loop {
            let deadline = self.bridge.borrow().poll_timeout();
            if let Err(error) = timer.set(deadline) {
                warn!(%error, "PROFINET: the timer can't be set");
            }
            let mut first = true;
            let heard = tokio::select! {
                heard = socket.recv(|frame| self.handle(|bridge, now| {
                    if std::mem::take(&mut first) {
                        self.tell(bridge);
                    }
                    bridge.handle_wire(now, frame);
                })) => heard.map(|_| ()),
                _ = timer.expired() => {
                    self.handle(|bridge, now| bridge.handle_timeout(now));
                    Ok(())
                }
                () = self.wake.notified() => Ok(()),
                () = durable.notified() => Ok(()),
                _ = look.tick() => {
                    self.look_at_cable(&socket);
                    // A system call: not for each frame.
                    self.counters.replace(socket.counters());
                    Ok(())
                }
            };
            let done = heard.and_then(|()| self.settle(&mut socket));
            if let Err(error) = done {
                self.link_lost(&error).await;
            }
        }
    }

    /// The kernel tells of an interface that goes down, and not of a carrier that is gone.
    fn look_at_cable(&self, socket: &PacketSocket) {
        if socket.is_plugged() {
            self.ledger
                .clear(Alarm::ProfinetInterfaceDown, &self.interface);
        } else {
            let text = format!(
                "interface `{}` is down or has no carrier: is its cable plugged in?",
                self.interface
            );
            self.ledger
                .raise(Alarm::ProfinetInterfaceDown, &self.interface, &text);
        }
    }

    /// Joins, leaves and sends what is pending.
    fn settle(&self, socket: &mut PacketSocket) -> Result<(), LinkError> {
        let mut pending = self.pending.borrow_mut();
        for (mac, wanted) in pending.memberships.drain(..) {
            let done = match wanted {
                true => socket.join(mac),
                false => socket.leave(mac),
            };
            if let Err(error) = done {
                membership_failed(&error);
            }
        }
        let kept = self.ledger.is_writable().then(|| self.ledger.durable());
        pending.release(kept, |link, channel, frame| {
            let links = self.links.borrow();
            let link = links.get(&link);
            link.is_some_and(|link| link.send_station(channel, frame).is_ok())
        });
        let Pending { octets, frames, .. } = &mut *pending;
        let slices: Vec<&[u8]> = frames
            .iter()
            .filter_map(|range| octets.get(range.clone()))
            .collect();
        let sent = socket.try_send(&slices);
        // What the interface's queue did not take is late already.
        let count = sent.as_ref().copied().unwrap_or(0);
        pending.frames.drain(..count);
        pending.forget();
        sent.map(|_| ())
    }

    async fn link_lost(&self, error: &LinkError) {
        let text = format!("interface `{}`: {error}", self.interface);
        self.ledger
            .raise(Alarm::ProfinetInterfaceDown, &self.interface, &text);
        sleep(REOPEN).await;
        // What waited all that time is the past.
        self.pending.borrow_mut().forget();
    }

    fn remember(&self, ar: &ArName, why: Ended, lasted: Duration) {
        let mut ended = self.ended.borrow_mut();
        if ended.len() == MAX_ENDED {
            ended.pop_front();
        }
        ended.push_back(EndedAr {
            pair: Pair {
                station: ar.station.as_ref().map(ToString::to_string),
                controller: ar.controller.name.as_deref().map(str::to_owned),
                controller_mac: ar.controller.mac.to_string(),
            },
            time: crate::status::time(jiff::Timestamp::now().as_second()),
            lasted_ms: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
            why: why.to_string(),
        });
    }

    /// Ages are judged by the worst round trip.
    async fn measure(self: Rc<Self>) {
        let mut tick = interval(MEASURE);
        loop {
            tick.tick().await;
            let links: Vec<_> = self
                .links
                .borrow()
                .iter()
                .map(|(id, link)| {
                    link.measure();
                    (*id, link.round_trip())
                })
                .collect();
            let mut bridge = self.bridge.borrow_mut();
            for (id, round_trip) in links {
                if let Some(round_trip) = round_trip {
                    bridge.set_round_trip(id, round_trip);
                }
            }
        }
    }
}

fn membership_failed(error: &JoinError) {
    warn!(%error, "PROFINET: a station can't be heard");
}

fn station_settings(station: &Station) -> StationSettings {
    StationSettings {
        name: station.name.clone(),
        mac: station.mac,
        redundancy: station.redundancy,
        spread: station.spread,
        play_out: station.play_out,
        hold: station.hold.map(|hold| hold.max_age.0),
        fail_safe_limit: station.fail_safe_limit.map(|limit| limit.0),
    }
}

fn named(controller: &Controller) -> (Arc<str>, Mac) {
    (controller.name.to_arc(), controller.mac)
}
