//! `[monitor]`: where a monitoring system may ask.

use std::net::SocketAddr;

use serde::Deserialize;

use super::checks::Checks;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Monitor {
    /// Metrics, health and readiness over plain HTTP.
    pub listen: SocketAddr,
    /// `listen` may be an address that other machines reach. Never at an edge.
    #[serde(default)]
    pub allow_remote: bool,
    /// Names that others ask for, beside IP addresses and `localhost`.
    #[serde(default)]
    pub names: Vec<String>,
}

/// At an edge nothing listens where others can reach it.
pub fn check_edge(file: &Checks<'_>, monitor: Option<&Monitor>) {
    let Some(monitor) = monitor else {
        return;
    };
    file.at_table("monitor");
    file.ensure(!monitor.allow_remote, || {
        "monitor: `allow_remote`: an edge listens on nothing that others can reach; scrape it from \
         its own machine, by an agent that sends the metrics on"
            .into()
    });
    check_local(file, monitor, "an edge listens on loopback addresses alone")
}

pub fn check_headend(file: &Checks<'_>, monitor: Option<&Monitor>) {
    file.at_table("monitor");
    match monitor {
        Some(monitor) if !monitor.allow_remote => check_local(
            file,
            monitor,
            "what asks from another machine needs `allow_remote = true`, and a firewall that \
             keeps all others out: there is no login",
        ),
        _ => {}
    }
}

fn check_local(file: &Checks<'_>, monitor: &Monitor, why: &str) {
    let listen = monitor.listen;
    file.ensure(listen.ip().to_canonical().is_loopback(), || {
        format!(
            "monitor: `listen` {listen} is no loopback address such as \"127.0.0.1:9464\": {why}"
        )
    });
}
