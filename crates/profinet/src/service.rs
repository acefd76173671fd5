//! What a policy can allow one station to do with another.

use std::fmt;

/// A service of PROFINET, as policies and audit records name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// DCP Identify: asking for a station, and its answer.
    Identify,
    /// DCP Get.
    Get,
    /// DCP Hello of a device that has just started.
    Hello,
    /// DCP Set of the IP suite. Takes a station off the network of its owner.
    SetIp,
    /// DCP Set of the name-of-station. Likewise.
    SetName,
    /// DCP Set, signal: the station blinks.
    Signal,
    /// DCP Set, reset to factory (suboptions 5 and 6).
    Reset,
    /// Any other DCP Set.
    SetOther,
    /// An application relation: Connect, Control, Release.
    Connect,
    /// Cyclic data of an application relation.
    Cyclic,
    /// Alarms of an application relation.
    Alarm,
    /// Reading a record, implicit reads included.
    Read,
    /// Writing a record.
    Write,
}

impl Service {
    pub const ALL: [Self; 13] = [
        Self::Identify,
        Self::Get,
        Self::Hello,
        Self::SetIp,
        Self::SetName,
        Self::Signal,
        Self::Reset,
        Self::SetOther,
        Self::Connect,
        Self::Cyclic,
        Self::Alarm,
        Self::Read,
        Self::Write,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Get => "get",
            Self::Hello => "hello",
            Self::SetIp => "set-ip",
            Self::SetName => "set-name",
            Self::Signal => "signal",
            Self::Reset => "reset",
            Self::SetOther => "set-other",
            Self::Connect => "connect",
            Self::Cyclic => "cyclic",
            Self::Alarm => "alarm",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }

    /// Changes the configuration of the station itself, beside any AR.
    pub fn is_set(self) -> bool {
        matches!(
            self,
            Self::SetIp | Self::SetName | Self::Signal | Self::Reset | Self::SetOther
        )
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// ARType of an ARBlockReq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArType {
    /// 0x0001: a controller with its cyclic data.
    IoController,
    /// 0x0006: an engineering tool; with ARProperties.DeviceAccess it reads and writes records only.
    Supervisor,
    /// 0x0010: isochronous.
    RtClass3,
    /// 0x0020: one of several of a redundant controller.
    Redundant,
    Other(u16),
}

impl ArType {
    pub fn from_code(code: u16) -> Self {
        match code {
            0x0001 => Self::IoController,
            0x0006 => Self::Supervisor,
            0x0010 => Self::RtClass3,
            0x0020 => Self::Redundant,
            other => Self::Other(other),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::IoController => "io-controller",
            Self::Supervisor => "supervisor",
            Self::RtClass3 => "rt-class-3",
            Self::Redundant => "redundant",
            Self::Other(_) => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_own_name() {
        for service in Service::ALL {
            assert_eq!(Service::from_name(service.name()), Some(service));
        }
        assert_eq!(Service::from_name("Identify"), None);
    }
}
