//! Learns which address belongs to which controller or station, and rejects frames with another's.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldlock_profinet::ar::{Ar, End, Ended, Pair};
use fieldlock_profinet::{Frame, Mac};

use super::bridge::{Bridge, Ingress, Role};
use super::dispatch::Received;
use super::drops::DropReason;
use super::event::Event;
use super::output::Requester;
use super::parties::{Controller, MAX_CONTROLLERS, MAX_CONTROLLERS_OF_PEER, Parties};

/// Another station may answer to a name when the one before has been silent for this long.
const SETTLED: Duration = Duration::from_secs(3);
/// Who has been silent for this long, and has no AR, makes room for others.
const SILENT: Duration = Duration::from_secs(60);

impl Bridge {
    /// Who speaks with this address on the controllers' side.
    pub(super) fn who(&self, mac: Mac) -> Requester {
        let known = self.parties.controller_of(mac);
        let name = known.and_then(|index| self.parties.controllers[index].name.clone());
        Requester { mac, name }
    }

    /// A controller speaks. At the edge one that is not known yet is entered, if the policy has
    /// anything for it: its frames, which come back by its address, are heard from here on.
    pub(super) fn note_controller(
        &mut self,
        now: Instant,
        mac: Mac,
        ingress: Ingress,
    ) -> Result<usize, DropReason> {
        if !mac.is_station() {
            return Err(DropReason::Malformed);
        }
        if let Some(station) = self.parties.station_of(mac) {
            return Err(self.conflict(station, mac, "it speaks as a controller"));
        }
        let (peer, station) = match ingress {
            Ingress::Wire => (None, None),
            Ingress::Tunnel { link, station } => {
                let link = self.parties.link(link).ok_or(DropReason::NoTunnel)?;
                (Some(link.peer.clone()), Some(station))
            }
        };
        let Some(index) = self.parties.controller_of(mac) else {
            let (Some(peer), Some(station)) = (peer, station) else {
                return Err(DropReason::NotPaired);
            };
            return self.enter_controller(now, mac, peer, station);
        };
        let known = self.parties.controllers[index].peer.as_ref();
        if known != peer.as_ref()
            && let (Some(peer), Some(station)) = (peer, station)
        {
            // The first headend keeps it while it is up: a second one can't take it over.
            if known.is_some_and(|known| self.parties.is_up(known)) {
                return Err(DropReason::ForeignSource);
            }
            self.take_over(now, index, peer, station)?;
        }
        self.parties.controllers[index].seen = Some(now);
        Ok(index)
    }

    /// A controller is heard of through a tunnel for the first time.
    fn enter_controller(
        &mut self,
        now: Instant,
        mac: Mac,
        peer: Arc<str>,
        station: usize,
    ) -> Result<usize, DropReason> {
        if !self.may_enter(mac, &peer, station) {
            return Err(DropReason::Denied);
        }
        let known = &self.parties.controllers;
        let of_peer = |known: &&Controller| known.peer.as_ref() == Some(&peer);
        let own_full = known.iter().filter(of_peer).count() >= MAX_CONTROLLERS_OF_PEER;
        if own_full || known.len() >= MAX_CONTROLLERS {
            let busy = |mac| self.table.iter().any(|ar| ar.pair.controller == mac);
            let idle = known.iter().filter(|known| {
                (!own_full || of_peer(known)) && is_silent(now, known.seen) && !busy(known.mac)
            });
            let longest = idle.min_by_key(|known| known.seen).map(|known| known.mac);
            let longest = longest.ok_or(DropReason::Overload)?;
            self.forget_controllers(|known, _| known.mac == longest);
        }
        self.output.join(mac);
        self.parties.controllers.push(Controller {
            name: None,
            mac,
            station: None,
            ip: None,
            peer: Some(peer),
            seen: Some(now),
        });
        Ok(self.parties.controllers.len() - 1)
    }

    /// A controller is heard of through another headend, since its own is gone. What it had open
    /// the other one knows nothing of.
    fn take_over(
        &mut self,
        now: Instant,
        index: usize,
        peer: Arc<str>,
        station: usize,
    ) -> Result<(), DropReason> {
        let mac = self.parties.controllers[index].mac;
        if !self.may_enter(mac, &peer, station) {
            return Err(DropReason::Denied);
        }
        let of_it = self.table.iter().filter(|ar| ar.pair.controller == mac);
        let open: Vec<_> = of_it.map(|ar| ar.id).collect();
        for id in open {
            let change = self
                .table
                .end(now, id, Ended::Withdrawn("the loss of the tunnel"));
            self.apply(now, change);
        }
        self.calls.forget(|pair| pair.controller == mac);
        self.parties.controllers[index].peer = Some(peer);
        self.views.forget();
        Ok(())
    }

    /// Takes note of the IP address from which somebody speaks. It may not be that of another one,
    /// whose traffic would go astray.
    pub(super) fn note_ip(
        &mut self,
        came: &Received<'_>,
        station: usize,
        controller: Mac,
        ip: Ipv4Addr,
    ) -> Result<(), DropReason> {
        if ip.is_unspecified() {
            return Ok(());
        }
        if self.is_of_another(came.now, ip, came.frame.src) {
            let reason = "it speaks from the IP address of another station";
            return Err(self.conflict(station, came.frame.src, reason));
        }
        match came.end {
            End::Device => self.parties.stations[station].ip = Some(ip),
            End::Controller => {
                if let Some(index) = self.parties.controller_of(controller) {
                    self.parties.controllers[index].ip = Some(ip);
                }
            }
        }
        Ok(())
    }

    /// Whether an IP address is that of somebody else than `mac`, who is not gone.
    pub(super) fn is_of_another(&self, now: Instant, ip: Ipv4Addr, mac: Mac) -> bool {
        let Parties {
            stations,
            controllers,
            ..
        } = &self.parties;
        let stations = stations
            .iter()
            .map(|known| (known.mac, known.ip, known.seen));
        let controllers = controllers.iter();
        let controllers = controllers.map(|known| (Some(known.mac), known.ip, known.seen));
        let mut known = stations.chain(controllers);
        known.any(|(other, other_ip, seen)| {
            let Some(other) = other.filter(|other| *other != mac) else {
                return false;
            };
            let pair = |ar: &Ar| ar.pair.controller == other || ar.pair.device == other;
            other_ip == Some(ip) && (!is_silent(now, seen) || self.table.iter().any(pair))
        })
    }

    /// A station speaks under an address. Its first one is taken; another only where no AR of it is
    /// open and none is configured.
    pub(super) fn note_station(
        &mut self,
        now: Instant,
        station: usize,
        mac: Mac,
    ) -> Result<(), DropReason> {
        if !mac.is_station() {
            return Err(DropReason::Malformed);
        }
        let known = self.parties.stations[station].mac;
        if known != Some(mac) {
            let other = self.parties.station_of(mac).is_some();
            if other || self.parties.controller_of(mac).is_some() {
                return Err(self.conflict(station, mac, "another station has this address"));
            }
            if self.parties.stations[station].settings.mac.is_some() {
                return Err(self.conflict(station, mac, "its configured address is another"));
            }
            if let Some(known) = known {
                // Two that answer would take turns.
                let seen = self.parties.stations[station].seen;
                if seen.is_some_and(|seen| now.saturating_duration_since(seen) < SETTLED) {
                    return Err(self.conflict(station, mac, "two answer to its name"));
                }
                if self.table.iter().any(|ar| ar.pair.device == known) {
                    return Err(self.conflict(station, mac, "it has an AR under another address"));
                }
                if self.settings.role == Role::Headend {
                    self.output.leave(known);
                }
                self.calls.forget(|pair| pair.device == known);
                self.parties.stations[station].ip = None;
            }
            self.parties.stations[station].mac = Some(mac);
            if self.settings.role == Role::Headend {
                self.output.join(mac);
            }
            let station = self.parties.stations[station].name().clone();
            self.output.event(Event::Found { station, mac });
        }
        self.parties.stations[station].seen = Some(now);
        Ok(())
    }

    pub(super) fn conflict(
        &mut self,
        station: usize,
        mac: Mac,
        reason: &'static str,
    ) -> DropReason {
        self.output.event(Event::Conflict {
            station: self.parties.stations[station].name().clone(),
            mac,
            reason,
        });
        DropReason::ForeignSource
    }

    /// A frame that is cut short, or against its format.
    pub(super) fn malformed(
        &mut self,
        came: &Received<'_>,
        reason: &dyn fmt::Display,
    ) -> DropReason {
        self.not_understood(came, reason);
        DropReason::Malformed
    }

    /// Tells of a frame that says nothing to anybody here, where its sender is known: strangers
    /// are counted alone.
    pub(super) fn not_understood(&mut self, came: &Received<'_>, reason: &dyn fmt::Display) {
        let Frame { src, dst, .. } = *came.frame;
        let (controller, device) = match came.end {
            End::Controller => (src, dst),
            End::Device => (dst, src),
        };
        let controller_known = self.parties.controller_of(controller).is_some();
        let station = self.parties.station_of(device);
        let sender_known = match came.end {
            End::Controller => controller_known,
            End::Device => station.is_some(),
        };
        if sender_known {
            self.output.event(Event::NotUnderstood {
                who: controller_known.then(|| self.who(controller)),
                station: station.map(|index| self.parties.stations[index].name().clone()),
                reason: reason.to_string().into(),
            });
        }
    }

    /// The two stations of a unicast frame that came from `end`.
    pub(super) fn pair(&mut self, came: &Received<'_>) -> Result<(usize, Pair), DropReason> {
        let Received {
            now,
            end,
            ingress,
            frame,
            ..
        } = *came;
        let pair = match end {
            End::Controller => Pair {
                controller: frame.src,
                device: frame.dst,
            },
            End::Device => Pair {
                controller: frame.dst,
                device: frame.src,
            },
        };
        let station = self
            .parties
            .station_of(pair.device)
            .ok_or(DropReason::NotPaired)?;
        if let Ingress::Tunnel { station: of, .. } = ingress
            && of != station
        {
            return Err(DropReason::NotPaired);
        }
        match end {
            End::Controller => {
                self.note_controller(now, pair.controller, ingress)?;
            }
            End::Device => {
                self.parties
                    .controller_of(pair.controller)
                    .ok_or(DropReason::NotPaired)?;
                self.note_station(now, station, pair.device)?;
            }
        }
        Ok((station, pair))
    }
}

fn is_silent(now: Instant, seen: Option<Instant>) -> bool {
    seen.is_none_or(|seen| now.saturating_duration_since(seen) >= SILENT)
}
