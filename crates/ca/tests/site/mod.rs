//! A CA in a private directory, and agents enrolled by it.

use std::path::{Path, PathBuf};

use fieldlock_ca::authority::Life;
use fieldlock_ca::init::{self, Plan};
use fieldlock_ca::{
    Access, Ca, CaError, Issued, Keys, Order, Passphrase, Settings, Source, Time, make,
};
use fieldlock_pki::Role;
use fieldlock_pki::csr::PublicKey;

pub(crate) const PASSPHRASE: &str = "correct horse battery";
pub(crate) const SITE: &str = "plant1.example";

pub(crate) struct Site {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) ca: Ca,
    pub(crate) authority: Keys,
}

impl Site {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let plan = plan(directory.path());
        init::make(&plan, Time::now()).unwrap();
        let ca = Ca::open(&plan.directory, Access::Write).unwrap();
        let authority = ca.unlock(&plan.passphrase).unwrap();
        Self {
            directory,
            ca,
            authority,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn issue(&mut self, role: Role, name: &str) -> Issued {
        self.issue_for(role, name, Life::Usual).unwrap().1
    }

    pub(crate) fn issue_for(
        &mut self,
        role: Role,
        name: &str,
        life: Life,
    ) -> Result<(make::Key, Issued), CaError> {
        let key = make::Key::generate()?;
        let order = Order {
            role,
            name: name.parse().unwrap(),
            modbus_role: None,
            key: key.public()?,
            source: Source::Made,
            life,
        };
        let issued = self.ca.issue(&self.authority, order, Time::now())?;
        Ok((key, issued))
    }

    pub(crate) fn sign(
        &mut self,
        request: &str,
        role: Role,
        name: &str,
    ) -> Result<Issued, CaError> {
        let order = Order {
            role,
            name: name.parse().unwrap(),
            modbus_role: None,
            key: PublicKey::from_request(request)?,
            source: Source::Request("request.csr".to_owned()),
            life: Life::Usual,
        };
        self.ca.issue(&self.authority, order, Time::now())
    }
}

pub(crate) fn plan(directory: &Path) -> Plan {
    Plan {
        directory: directory.join("ca"),
        root_out: directory.join("usb"),
        settings: Settings::resolve(Some(SITE.parse().unwrap()), None).unwrap(),
        passphrase: passphrase(),
        root_passphrase: passphrase(),
        token: None,
        root_token: None,
    }
}

pub(crate) fn passphrase() -> Passphrase {
    Passphrase::new(PASSPHRASE.to_owned()).unwrap()
}
