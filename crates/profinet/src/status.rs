//! PNIOStatus: what went wrong, in four octets (IEC 61158-6-10, 5.2.3).

use std::fmt;

/// ErrorCode, ErrorDecode, ErrorCode1, ErrorCode2; all 0 for success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PnioStatus {
    pub code: u8,
    pub decode: u8,
    pub code1: u8,
    pub code2: u8,
}

/// ErrorCode of an RTA abort.
const RTA_ERROR: u8 = 0xcf;
/// ErrorDecode of errors of PROFINET itself.
const PNIO: u8 = 0x81;
/// And of those of reading and writing records.
const PNIORW: u8 = 0x80;
/// ErrorCode1 of the reasons for which an AR ends.
const RTA_ABORT: u8 = 0xfd;

impl PnioStatus {
    pub fn from_octets([code, decode, code1, code2]: [u8; 4]) -> Self {
        Self {
            code,
            decode,
            code1,
            code2,
        }
    }

    pub fn octets(self) -> [u8; 4] {
        [self.code, self.decode, self.code1, self.code2]
    }

    pub fn is_ok(self) -> bool {
        self == Self::default()
    }

    /// Why an AR was aborted, for a status CF 81 FD xx.
    pub fn abort_reason(self) -> Option<&'static str> {
        match (self.code, self.decode, self.code1) {
            (RTA_ERROR, PNIO, RTA_ABORT) => Some(abort_reason(self.code2)),
            _ => None,
        }
    }

    fn service(self) -> &'static str {
        match self.code {
            0x81 => "PNIO",
            0xcf => "RTA error",
            0xda => "alarm acknowledgement",
            0xdb => "Connect",
            0xdc => "Release",
            0xdd => "Control",
            0xde => "Read",
            0xdf => "Write",
            _ => "unknown service",
        }
    }

    fn reason(self) -> &'static str {
        match (self.decode, self.code1, self.code2) {
            (PNIORW, class, _) => match class {
                0xa0 => "application: read error",
                0xa1 => "application: write error",
                0xa2 => "application: module failure",
                0xa7 => "application: busy",
                0xa8 => "application: version conflict",
                0xa9 => "application: feature not supported",
                0xb0 => "access: invalid index",
                0xb1 => "access: write length error",
                0xb2 => "access: invalid slot or subslot",
                0xb3 => "access: type conflict",
                0xb4 => "access: invalid area or API",
                0xb5 => "access: state conflict",
                0xb6 => "access: access denied",
                0xb7 => "access: invalid range",
                0xb8 => "access: invalid parameter",
                0xb9 => "access: invalid type",
                0xba => "access: backup",
                0xc0 => "resource: read constraint conflict",
                0xc1 => "resource: write constraint conflict",
                0xc2 => "resource: busy",
                0xc3 => "resource: unavailable",
                _ => "error of the device",
            },
            (PNIO, 0x01, _) => "faulty ARBlockReq",
            (PNIO, 0x02, _) => "faulty IOCRBlockReq",
            (PNIO, 0x03, _) => "faulty ExpectedSubmoduleBlockReq",
            (PNIO, 0x04, _) => "faulty AlarmCRBlockReq",
            (PNIO, 0x05, _) => "faulty PrmServerBlockReq",
            (PNIO, 0x06, _) => "faulty MCRBlockReq",
            (PNIO, 0x07, _) => "faulty ARRPCBlockReq",
            (PNIO, 0x08, _) => "faulty record",
            (PNIO, 0x09, _) => "faulty SubFrameBlock",
            (PNIO, 0x0a, _) => "faulty IRTFrameBlock",
            (PNIO, 0x0d, _) => "faulty RSInfoBlock",
            (PNIO, 0x14, _) => "faulty ControlBlock (PrmEnd)",
            (PNIO, 0x15, _) => "faulty ControlBlock (PrmEnd after a plug)",
            (PNIO, 0x16, _) => "faulty ControlBlock (ApplicationReady)",
            (PNIO, 0x17, _) => "faulty ControlBlock (ApplicationReady after a plug)",
            (PNIO, 0x18, _) => "faulty ControlBlock (PrmBegin)",
            (PNIO, 0x19, _) => "faulty SubmoduleListBlock",
            (PNIO, 0x28, _) => "faulty ReleaseBlock",
            (PNIO, 0x32, _) => "faulty ARBlockRes",
            (PNIO, 0x33, _) => "faulty IOCRBlockRes",
            (PNIO, 0x34, _) => "faulty AlarmCRBlockRes",
            (PNIO, 0x35, _) => "faulty ModuleDiffBlock",
            (PNIO, 0x3c, _) => "alarm acknowledgement",
            (PNIO, 0x40, 0x00) => "CMRPC: invalid ArgsLength",
            (PNIO, 0x40, 0x01) => "CMRPC: unknown blocks",
            (PNIO, 0x40, 0x02) => "CMRPC: IOCR missing",
            (PNIO, 0x40, 0x03) => "CMRPC: wrong number of AlarmCR blocks",
            (PNIO, 0x40, 0x04) => "CMRPC: out of AR resources",
            (PNIO, 0x40, 0x05) => "CMRPC: AR UUID unknown",
            (PNIO, 0x40, 0x06) => "CMRPC: state conflict",
            (PNIO, 0x40, 0x07) => "CMRPC: out of provider, consumer or alarm resources",
            (PNIO, 0x40, 0x08) => "CMRPC: out of memory",
            (PNIO, 0x40, 0x09) => "CMRPC: the physical device has another owner",
            (PNIO, 0x40, _) => "CMRPC",
            (PNIO, 0x3d, 0x00) => "CMDEV: state conflict",
            (PNIO, 0x3d, 0x01) => "CMDEV: resources",
            (PNIO, 0x3d, _) => "CMDEV",
            (PNIO, 0x3e, 0x01) => "CMCTL: time-out",
            (PNIO, 0x3e, 0x02) => "CMCTL: no data sent",
            (PNIO, 0x3e, _) => "CMCTL",
            (PNIO, 0x3f, _) => "CTLDINA: the device was not found under its name",
            (PNIO, RTA_ABORT, code) => abort_reason(code),
            _ => "unknown error",
        }
    }
}

/// ErrorCode2 of an RTA abort (RTA_ERR_CLS_PROTOCOL).
fn abort_reason(code: u8) -> &'static str {
    match code {
        1 => "error in the order of sequence numbers",
        2 => "instance closed",
        3 => "out of memory",
        4 => "a provider or consumer could not be added",
        5 => "the consumer's watchdog (data hold) time expired",
        6 => "the initiator's activity time-out expired",
        7 => "the alarm channel could not be opened",
        8 => "an alarm could not be sent",
        9 => "an alarm could not be acknowledged",
        10 => "alarm data too long",
        11 => "alarm error indicated",
        12 => "an RPC call was not confirmed",
        13 => "abort requested",
        14 => "the same controller connects anew",
        15 => "released by the controller",
        16 => "the device was deactivated",
        17 => "the AR was removed",
        18 => "protocol violation",
        19 => "name resolution failed",
        20 => "RPC bind failed",
        21 => "RPC Connect failed",
        22 => "RPC Read failed",
        23 => "RPC Write failed",
        24 => "RPC Control failed",
        25 => "pull or plug before the first data",
        26 => "the application process was removed",
        27 => "link down",
        28 => "the multicast address could not be registered",
        29 => "not synchronised",
        30 => "wrong topology",
        31 => "DCP: the name-of-station was changed",
        32 => "DCP: reset to factory settings",
        33 => "companion AR can't start",
        34 => "no IR data record yet",
        35 => "error of the physical device",
        36 => "no port offers the required speed",
        37 => "the controller's IP suite was changed",
        38 => "redundant AR: the redundancy data hold time expired",
        39 => "redundant AR: the physical device can't be parametrised",
        40 => "the other end was not ready in time",
        41 => "redundant AR: redundant interfaces or peripherals can't be reached",
        42 => "redundant AR: MTOT expired",
        43 => "redundant AR: protocol violation",
        44 => "physical device: port plugged without its CombinedObjectContainer",
        45 => "network management: no or a wrong configuration",
        255 => "aborted by the user",
        _ => "abort for an unknown reason",
    }
}

impl fmt::Display for PnioStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_ok() {
            return f.write_str("OK");
        }
        let [a, b, c, d] = self.octets();
        write!(
            f,
            "{}: {} ({a:02X} {b:02X} {c:02X} {d:02X})",
            self.service(),
            self.reason()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_by_service_and_reason() {
        let text = |octets| PnioStatus::from_octets(octets).to_string();
        assert_eq!(text([0; 4]), "OK");
        assert_eq!(
            text([0xdb, 0x81, 0x40, 4]),
            "Connect: CMRPC: out of AR resources (DB 81 40 04)"
        );
        assert_eq!(
            text([0xdf, 0x80, 0xb6, 0]),
            "Write: access: access denied (DF 80 B6 00)"
        );
        let expired = PnioStatus::from_octets([0xcf, 0x81, 0xfd, 5]);
        assert_eq!(
            expired.abort_reason(),
            Some("the consumer's watchdog (data hold) time expired")
        );
        assert_eq!(
            PnioStatus::from_octets([0xdb, 0x81, 0xfd, 5]).abort_reason(),
            None
        );
    }
}
