//! A network for trying PROFINET on one machine: namespaces of a controller, the agents and a
//! device.

use std::process::Command;

use clap::{Args, Subcommand};
use fieldlock_rawsock::Namespace;

use crate::Failure;

#[derive(Debug, Args)]
#[command(after_help = "What `up` makes (names begin with --prefix):

  controller           agents                     device
  eth0 ------- pn-ctl (headend)  (edge) pn-dev ------- eth0
  192.168.0.1                                  192.168.0.2

The two inner interfaces have no address: what is on them is Fieldlock's alone.

Examples:
  fieldlock-wire rig up
  ip netns exec agents fieldlock edge --config edge.toml
  fieldlock-wire rig show     the commands of `up`, to run or read them yourself
  fieldlock-wire rig down")]
pub(crate) struct RigCommand {
    #[command(subcommand)]
    action: Action,
    /// What the names of the namespaces begin with, so that several rigs can be up.
    #[arg(long, default_value = "", global = true)]
    prefix: String,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// Makes the namespaces and the cables between them.
    Up,
    /// Removes them, with all that is in them.
    Down,
    /// Prints what `up` would run.
    Show,
}

const NAMESPACES: [&str; 3] = ["controller", "agents", "device"];

impl RigCommand {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let prefix = &self.prefix;
        let up = up(prefix);
        match self.action {
            Action::Show => {
                for command in up {
                    println!("{command}");
                }
                Ok(())
            }
            Action::Up => {
                let names = NAMESPACES.map(|name| format!("{prefix}{name}"));
                if let Some(name) = names.iter().find(|name| Namespace::named(name).is_ok()) {
                    let hint = "another --prefix, or `fieldlock-wire rig down` first";
                    return Err(format!("there is a namespace `{name}` already: {hint}").into());
                }
                let made = up.iter().try_for_each(|command| run(command));
                if made.is_err() {
                    // Half a rig would be in the way of the next attempt.
                    let _ = down(prefix);
                }
                made
            }
            Action::Down => down(prefix),
        }
    }
}

fn up(prefix: &str) -> Vec<String> {
    let [controller, agents, device] = NAMESPACES.map(|name| format!("{prefix}{name}"));
    let mut commands = Vec::new();
    for namespace in [&controller, &agents, &device] {
        commands.push(format!("ip netns add {namespace}"));
        // No frames that nobody asked for, such as those that look for IPv6 routers.
        commands.push(format!(
            "ip netns exec {namespace} sysctl -q -w net.ipv6.conf.default.disable_ipv6=1"
        ));
        commands.push(format!("ip -n {namespace} link set lo up"));
    }
    for (station, inner, address) in [
        (&controller, "pn-ctl", "192.168.0.1/24"),
        (&device, "pn-dev", "192.168.0.2/24"),
    ] {
        commands.push(format!(
            "ip -n {agents} link add {inner} type veth peer name eth0 netns {station}"
        ));
        commands.push(format!("ip -n {agents} link set {inner} up"));
        commands.push(format!("ip -n {station} link set eth0 up"));
        commands.push(format!("ip -n {station} addr add {address} dev eth0"));
    }
    commands
}

fn down(prefix: &str) -> Result<(), Failure> {
    let removed: Vec<_> = NAMESPACES
        .iter()
        .map(|name| run(&format!("ip netns del {prefix}{name}")))
        .collect();
    removed.into_iter().collect()
}

fn run(command: &str) -> Result<(), Failure> {
    let mut words = command.split(' ');
    let program = words.next().unwrap_or_default();
    let status = Command::new(program)
        .args(words)
        .status()
        .map_err(|error| format!("`{command}`: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("`{command}` failed; it needs root").into()),
    }
}
