//! The five ways in which clients use a PLC.

use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Shape {
    /// One persistent connection, one request at a time
    One,
    /// 32 persistent connections, one request at a time each
    Many,
    /// A new TCP connection for each request, one at a time
    New,
    /// 8 persistent connections, 10 ms between an answer and the next request
    Paced,
    /// 4 persistent connections, 8 requests in flight each, distinct reads
    Pipelined,
    /// 10 persistent connections that ask the same, one request at a time each
    #[value(skip)]
    Pollers,
    /// 10 clients that ask the same, with a new connection for each request
    #[value(skip)]
    NewPollers,
}

impl Shape {
    pub(crate) const ALL: [Self; 5] = [
        Self::One,
        Self::Many,
        Self::New,
        Self::Paced,
        Self::Pipelined,
    ];

    pub(crate) fn clients(self) -> usize {
        match self {
            Self::One | Self::New => 1,
            Self::Many => 32,
            Self::Paced => 8,
            Self::Pipelined => 4,
            Self::Pollers | Self::NewPollers => 10,
        }
    }

    pub(crate) fn pause(self) -> Option<Duration> {
        matches!(self, Self::Paced).then_some(Duration::from_millis(10))
    }

    /// Requests of one client without an answer.
    pub(crate) fn in_flight(self) -> usize {
        if self == Self::Pipelined { 8 } else { 1 }
    }

    pub(crate) fn connects_anew(self) -> bool {
        matches!(self, Self::New | Self::NewPollers)
    }

    /// Whether all clients ask for the same registers all the time.
    pub(crate) fn asks_the_same(self) -> bool {
        matches!(self, Self::Pollers | Self::NewPollers)
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::One => "1 persistent connection, 1 request in flight",
            Self::Many => "32 persistent connections, 1 request in flight each",
            Self::New => "a new connection for each request, 1 at a time",
            Self::Paced => "8 persistent connections, pausing 10 ms",
            Self::Pipelined => "4 persistent connections, 8 requests in flight each",
            Self::Pollers => "kept connections",
            Self::NewPollers => "a connection for each request",
        }
    }
}
