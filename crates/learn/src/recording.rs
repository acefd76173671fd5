//! Capture files for tests, written frame by frame.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use tempfile::TempDir;

pub(crate) const HMI: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 20);
pub(crate) const PRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 1, 50), 502);

/// A pcap of Ethernet frames, one a second from 2026-09-21T14:13:20Z on, each with one ADU. Every
/// client has one connection to a server.
pub(crate) struct Recording {
    file: Vec<u8>,
    seconds: u32,
    /// What each direction has sent.
    sent: Vec<((SocketAddrV4, SocketAddrV4), u32)>,
}

impl Recording {
    pub(crate) fn new() -> Self {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend(word.to_le_bytes());
        }
        Self {
            file,
            seconds: 1_789_999_999,
            sent: Vec::new(),
        }
    }

    pub(crate) fn request(
        self,
        client: Ipv4Addr,
        server: SocketAddrV4,
        id: u8,
        pdu: &[u8],
    ) -> Self {
        self.frame(SocketAddrV4::new(client, 40_000), server, id, pdu)
    }

    pub(crate) fn answer(self, client: Ipv4Addr, server: SocketAddrV4, id: u8, pdu: &[u8]) -> Self {
        self.frame(server, SocketAddrV4::new(client, 40_000), id, pdu)
    }

    fn frame(mut self, from: SocketAddrV4, to: SocketAddrV4, id: u8, pdu: &[u8]) -> Self {
        let mut adu = vec![0, id, 0, 0, 0, pdu.len() as u8 + 1, 1];
        adu.extend(pdu);
        let position = match self.sent.iter().position(|(way, _)| *way == (from, to)) {
            Some(position) => position,
            None => {
                self.sent.push(((from, to), 1));
                self.sent.len() - 1
            }
        };
        let sequence = &mut self.sent[position].1;
        let mut tcp = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        tcp.extend(sequence.to_be_bytes());
        tcp.extend([0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
        *sequence += adu.len() as u32;
        tcp.extend(adu);
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 20 + tcp.len() as u8]);
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend(from.ip().octets());
        frame.extend(to.ip().octets());
        frame.extend(tcp);
        self.seconds += 1;
        let length = frame.len() as u32;
        for word in [self.seconds, 0, length, length] {
            self.file.extend(word.to_le_bytes());
        }
        self.file.extend(frame);
        self
    }

    /// Without its last `octets`, as a capture that was broken off.
    pub(crate) fn cut(mut self, octets: usize) -> Self {
        self.file.truncate(self.file.len() - octets);
        self
    }

    /// On the disk, as long as the folder lives.
    pub(crate) fn stored(&self) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plant.pcap");
        std::fs::write(&path, &self.file).unwrap();
        (folder, path)
    }
}
