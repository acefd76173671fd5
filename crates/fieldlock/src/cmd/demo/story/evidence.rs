//! The demo's last step: the audit log as evidence.

use std::fs;

use fieldlock_audit::{FILE_NAME, Kind};
use fieldlock_evidence::verify::verify;
use fieldlock_pki::{TrustList, store};

use super::{ALLOWED, Story, TOO_HIGH};
use crate::cmd::audit::folder_in;
use crate::cmd::demo::trouble::Trouble;

impl Story<'_> {
    /// The edge's log verifies; a copy in which somebody changed one value, or dropped what came
    /// after, does not.
    pub(in crate::cmd::demo) async fn show_evidence(&mut self) -> Result<(), Trouble> {
        self.screen
            .step("Somebody changes the edge's audit log afterwards");
        // Until the headend has a checkpoint of the log on record that covers the write.
        let write = self.edge_log.seen();
        loop {
            let told = self.headend_log.next(Kind::PeerCheckpoint).await?;
            if told.head.is_some_and(|head| head.seq > write) {
                break;
            }
        }
        let edge = self.edge.state();
        let (log, other) = (folder_in(&edge), folder_in(&self.headend.state()));
        let pem = fs::read_to_string(edge.join(store::TRUST));
        let pem = pem.map_err(Trouble::io("read the edge's trust list"))?;
        let trust = TrustList::parse(&pem).ok();
        let others = [other];
        let whole = verify(&log, trust.clone(), &others).map_err(|fault| Trouble::Unexpected {
            expected: "the edge's log in order".to_owned(),
            got: fault.to_string(),
        })?;
        self.screen.good("as it is", whole.in_one_line());

        let forged = self.site.path().join("forged");
        let at = || Trouble::io("forge a log");
        fs::create_dir_all(&forged).map_err(at())?;
        let text = fs::read_to_string(log.join(FILE_NAME)).map_err(at())?;
        let changed = text.replacen(&format!("[{ALLOWED}]"), &format!("[{TOO_HIGH}]"), 1);
        let begin: String = text.split_inclusive('\n').take(4).collect();
        for (what, content) in [("a value", changed), ("the end cut", begin)] {
            fs::write(forged.join(FILE_NAME), content).map_err(at())?;
            let Err(fault) = verify(&forged, trust.clone(), &others) else {
                return Err(Trouble::Unexpected {
                    expected: format!("a fault ({what})"),
                    got: "a log in order".to_owned(),
                });
            };
            // Where the files are does not matter here.
            let said = fault
                .to_string()
                .replace(&format!("{}/", forged.display()), "");
            let said = said.replace(&others[0].display().to_string(), "the headend's log");
            self.screen.bad(what, said);
        }
        self.shown.push((
            "audit log",
            "hash-chained, signed, and told to the other end".to_owned(),
        ));
        Ok(())
    }
}
