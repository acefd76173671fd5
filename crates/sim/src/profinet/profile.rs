//! What real controllers choose where the standard lets them, as captures of their Connects show it.

use super::controller::ControllerConfig;
use super::device::DeviceConfig;
use super::rpc::Order;

/// A controller, with a device as it was seen with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Keeps ARUUID and session key over restarts.
    S71200,
    /// The same FrameID both ways; the advanced start-up.
    S71500,
    /// Gives the output CR a FrameID, which the device overrides.
    S7Software,
    /// Phoenix Contact; keeps ARUUID and session key over restarts.
    PcWorx,
    /// A new ARUUID for each Connect, and a session key that counts.
    Codesys,
    /// Test tools for the device stack p-net.
    PNet,
    /// On Hilscher's chips: the AlarmCR ahead of the IOCRs, alarms in VLAN 4.
    Hilscher,
}

/// What a Connect asks for beside modules, cycle and watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asks {
    /// FrameID of the input CR.
    pub input: u16,
    /// Of the output CR; 0xFFFF leaves it to the device.
    pub output: u16,
    /// IOCRReference of the two.
    pub references: [u16; 2],
    /// Send clocks within the reduction ratio, from 1.
    pub phase: u16,
    /// ARProperties.
    pub properties: u32,
    /// LocalAlarmReference; `None` chooses one for each AR.
    pub alarm_reference: Option<u16>,
    /// MaxAlarmDataLength, 200 to 1432 octets.
    pub max_alarm_data: u16,
    /// 802.1Q tags of alarms of high and low priority: priority in the top three bits, VLAN id.
    pub alarm_tags: [u16; 2],
    /// The AlarmCR stands ahead of the IOCRs.
    pub alarm_first: bool,
    /// ARUUID and session key 1 stay the same however often it connects.
    pub keeps_uuid: bool,
}

impl Asks {
    /// As most controllers do: the same FrameID both ways, once the device has assigned the other.
    pub const USUAL: Self = Self {
        input: 0x8000,
        output: 0xffff,
        references: [1, 2],
        phase: 1,
        properties: 0x0000_0011,
        alarm_reference: None,
        max_alarm_data: 200,
        alarm_tags: [0xc000, 0xa000],
        alarm_first: false,
        keeps_uuid: false,
    };
}

impl Profile {
    pub const ALL: [Self; 7] = [
        Self::S71200,
        Self::S71500,
        Self::S7Software,
        Self::PcWorx,
        Self::Codesys,
        Self::PNet,
        Self::Hilscher,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::S71200 => "s7-1200",
            Self::S71500 => "s7-1500",
            Self::S7Software => "s7-software",
            Self::PcWorx => "pc-worx",
            Self::Codesys => "codesys",
            Self::PNet => "p-net",
            Self::Hilscher => "hilscher",
        }
    }

    /// Makes a controller ask so, with the cycle and watchdog that go with it.
    pub fn controller(self, config: &mut ControllerConfig) {
        let usual = Asks::USUAL;
        let asks = Asks {
            max_alarm_data: 256,
            ..usual
        };
        let (order, ratio, watchdog, asks) = match self {
            Self::S71200 => {
                let asks = Asks {
                    keeps_uuid: true,
                    ..asks
                };
                (Order::Big, 2, 3, asks)
            }
            Self::S71500 => {
                let asks = Asks {
                    output: 0x8000,
                    properties: 0x4000_0011,
                    ..asks
                };
                (Order::Little, 2, 3, asks)
            }
            Self::S7Software => {
                let asks = Asks {
                    input: 0xc001,
                    output: 0xc002,
                    ..asks
                };
                (Order::Little, 2, 3, asks)
            }
            Self::PcWorx => {
                let asks = Asks {
                    input: 0xc002,
                    phase: 7,
                    alarm_reference: Some(0x8001),
                    keeps_uuid: true,
                    ..usual
                };
                (Order::Big, 8, 24, asks)
            }
            Self::Codesys => {
                let asks = Asks {
                    input: 0x8001,
                    max_alarm_data: 226,
                    ..usual
                };
                (Order::Little, 4, 3, asks)
            }
            Self::PNet => {
                let asks = Asks {
                    input: 0x8080,
                    ..usual
                };
                (Order::Little, 32, 3, asks)
            }
            Self::Hilscher => {
                let asks = Asks {
                    references: [51, 52],
                    alarm_tags: [0xc004, 0xa004],
                    alarm_first: true,
                    ..usual
                };
                (Order::Little, 1, 3, asks)
            }
        };
        config.order = order;
        config.send_clock = 32;
        config.reduction_ratio = ratio;
        config.watchdog_factor = watchdog;
        config.activity_timeout = 200;
        config.rta_retries = 3;
        config.rta_timeout_factor = match self {
            Self::PcWorx => 5,
            Self::Hilscher => 10,
            _ => 1,
        };
        config.asks = asks;
    }

    /// Makes a device assign FrameIDs as the one that was seen.
    pub fn device(self, config: &mut DeviceConfig) {
        config.first_frame_id = match self {
            Self::S71200 => 0x8080,
            Self::S71500 | Self::Codesys | Self::Hilscher => 0x8000,
            Self::S7Software => 0xc001,
            Self::PcWorx => 0xc000,
            Self::PNet => 0x8300,
        };
        config.overrides_frame_ids = self == Self::S7Software;
        // Captured devices answer from these, too.
        config.rpc_port = match self {
            Self::S71200 => 1_208,
            Self::S71500 => 1_952,
            _ => config.rpc_port,
        };
    }
}
