//! Names of a headend, resolved afresh for each round of dialling.
//!
//! A name server may be out of reach while a link is down, and a while longer: then what a name led to
//! last is dialled. Whoever answers there proves by a certificate who it is.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

/// For an answer where none is known.
const PATIENCE: Duration = Duration::from_secs(2);
/// For a fresher one than what is known.
const FRESHER: Duration = Duration::from_millis(300);

pub(super) struct Names(Vec<Name>);

struct Name {
    /// HOST:PORT.
    text: String,
    last: Vec<SocketAddr>,
    /// At most one question is under way: the system's resolver can't be interrupted.
    asking: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Names {
    pub(super) fn new(names: &[String]) -> Self {
        let name = |text: &String| Name {
            text: text.clone(),
            last: Vec::new(),
            asking: None,
        };
        Self(names.iter().map(name).collect())
    }

    /// Where to dial; the two families take turns (RFC 8305, section 4). `complain` hears of names
    /// that can't be resolved.
    pub(super) async fn resolve(&mut self, mut complain: impl FnMut(String)) -> Vec<SocketAddr> {
        let mut found = Vec::new();
        for name in &mut self.0 {
            if let Err(error) = name.ask().await {
                let text = &name.text;
                let instead = match name.last.is_empty() {
                    true => "",
                    false => "; dialling where it led to before",
                };
                complain(format!("`{text}` can't be resolved: {error}{instead}"));
            }
            found.extend(&name.last);
        }
        in_turns(found)
    }
}

impl Name {
    async fn ask(&mut self) -> Result<(), String> {
        let patience = match self.last.is_empty() {
            true => PATIENCE,
            false => FRESHER,
        };
        let asking = self.asking.get_or_insert_with(|| {
            let text = self.text.clone();
            spawn_local(async move { Ok(lookup_host(text).await?.collect()) })
        });
        let Ok(answer) = timeout(patience, asking).await else {
            return Err("no answer in time".into());
        };
        self.asking = None;
        match answer {
            Ok(Ok(addresses)) => {
                self.last = addresses;
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(SocketAddr::is_ipv6);
    let mut families = [v6.into_iter(), v4.into_iter()];
    let mut turns = Vec::new();
    loop {
        let before = turns.len();
        for family in &mut families {
            turns.extend(family.next());
        }
        if turns.len() == before {
            return turns;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let found = ["10.0.0.1:1", "10.0.0.2:1", "[::1]:1", "10.0.0.3:1"].map(parse);
        let turns = ["[::1]:1", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(parse);
        assert_eq!(in_turns(found.to_vec()), turns);
    }

    #[tokio::test]
    async fn where_a_name_led_to_last_is_dialled_while_it_can_not_be_resolved() {
        let local = LocalSet::new();
        let test = async {
            let mut names = Names::new(&["127.0.0.1:4433".into()]);
            let first = names.resolve(|text| panic!("{text}")).await;
            assert_eq!(first, ["127.0.0.1:4433".parse().unwrap()]);

            // RFC 6761: no such name is ever in the DNS.
            names.0[0].text = "headend.invalid:4433".into();
            let mut said = Vec::new();
            assert_eq!(names.resolve(|text| said.push(text)).await, first);
            assert!(said[0].contains("where it led to before"), "{said:?}");

            // One that never answers: it is waited for shortly, and not asked twice.
            names.0[0].asking = Some(spawn_local(std::future::pending()));
            assert_eq!(names.resolve(drop).await, first);
            assert!(names.0[0].asking.is_some());

            let mut unknown = Names::new(&["headend.invalid:4433".into()]);
            said.clear();
            assert!(unknown.resolve(|text| said.push(text)).await.is_empty());
            assert!(!said[0].contains("before"), "{said:?}");
        };
        local.run_until(test).await;
    }
}
