//! Why frames did not cross, counted.

use std::fmt;

use fieldlock_profinet::ar::Refused;

/// Why a frame is not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// Not of a station that is paired, or not for one.
    NotPaired,
    /// The address of a station of the other side, as the source of a frame on this one.
    ForeignSource,
    /// A virtual LAN: tags carry a priority here, and id 0.
    Vlan,
    /// Cut short, too long, or against its own format.
    Malformed,
    /// Clock synchronisation, neighbour discovery, ring redundancy: of meaning on one link only.
    LinkLocal,
    /// Isochronous real-time.
    Irt,
    /// Real-time data over UDP, multicast data, remote service interface, fragments of layer 2.
    NotCarried,
    /// An IPv4 datagram in fragments.
    IpFragment,
    /// Another protocol.
    OtherProtocol,
    /// No rule of the policy.
    Denied,
    /// An answer to nothing that was asked.
    Unasked,
    /// RPC that belongs to no call, or not between these ports.
    NoCall,
    /// Cyclic data, alarm or request of no known AR.
    NoAr,
    /// Cyclic data of an AR whose Connect is not answered yet.
    Early,
    /// Cyclic data or alarm of an AR that is over, from an end that has not noticed yet.
    Ended,
    /// Cyclic data that is not newer than the last.
    Old,
    /// Cyclic data with a transfer status other than 0.
    TransferStatus,
    /// A connection that can't be kept.
    Unfit,
    /// More at a time than a bound allows.
    Overload,
    /// There is no tunnel.
    NoTunnel,
    /// The tunnel did not take it.
    TunnelFull,
    /// The audit log can't be written, and this would change a station.
    NoAudit,
}

impl DropReason {
    pub const ALL: [Self; 22] = [
        Self::NotPaired,
        Self::ForeignSource,
        Self::Vlan,
        Self::Malformed,
        Self::LinkLocal,
        Self::Irt,
        Self::NotCarried,
        Self::IpFragment,
        Self::OtherProtocol,
        Self::Denied,
        Self::Unasked,
        Self::NoCall,
        Self::NoAr,
        Self::Early,
        Self::Ended,
        Self::Old,
        Self::TransferStatus,
        Self::Unfit,
        Self::Overload,
        Self::NoTunnel,
        Self::TunnelFull,
        Self::NoAudit,
    ];

    /// As `status` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotPaired => "not-paired",
            Self::ForeignSource => "foreign-source",
            Self::Vlan => "vlan",
            Self::Malformed => "malformed",
            Self::LinkLocal => "link-local",
            Self::Irt => "irt",
            Self::NotCarried => "not-carried",
            Self::IpFragment => "ip-fragment",
            Self::OtherProtocol => "other-protocol",
            Self::Denied => "denied",
            Self::Unasked => "unasked",
            Self::NoCall => "no-call",
            Self::NoAr => "no-ar",
            Self::Early => "early",
            Self::Ended => "ended",
            Self::Old => "old",
            Self::TransferStatus => "transfer-status",
            Self::Unfit => "unfit",
            Self::Overload => "overload",
            Self::NoTunnel => "no-tunnel",
            Self::TunnelFull => "tunnel-full",
            Self::NoAudit => "no-audit",
        }
    }
}

/// Data and alarms of no AR that is up.
impl From<Refused> for DropReason {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Early => Self::Early,
            Refused::Over => Self::Ended,
            _ => Self::NoAr,
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A counter for each reason.
#[derive(Debug, Clone, Default)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    pub fn add(&mut self, drop: DropReason) {
        self.0[drop as usize] += 1;
    }

    pub fn get(&self, drop: DropReason) -> u64 {
        self.0[drop as usize]
    }

    /// The reasons that occurred, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL
            .into_iter()
            .map(|drop| (drop, self.get(drop)))
            .filter(|(_, count)| *count > 0)
    }
}
