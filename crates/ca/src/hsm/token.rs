//! A session with a token: the module loaded, the token found, the user logged in.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;

use super::HsmError;
use super::uri::Uri;

/// Modules are loaded once, and one thread at a time is in any of them: a module has one state for
/// the whole process, down to who is logged in.
static MODULES: Mutex<BTreeMap<PathBuf, Module>> = Mutex::new(BTreeMap::new());

#[derive(Debug)]
struct Module {
    context: Pkcs11,
    /// Serial numbers of the tokens that refused a PIN.
    refused: Vec<String>,
}

/// Does `work` in a session of its own, in which the user is logged in. Nothing stays open, so
/// there is nothing that a token takes along when it is pulled or its network fails.
pub(super) fn in_session<T>(
    uri: &Uri,
    pin: &AuthPin,
    work: impl Fn(&Session) -> Result<T, HsmError>,
) -> Result<T, HsmError> {
    let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
    // By whichever path, one module is one entry.
    let path = fs::canonicalize(&uri.module).map_err(|error| HsmError::Module {
        path: uri.module.clone(),
        reason: error.to_string(),
    })?;
    let (module, is_fresh) = match modules.entry(path) {
        Entry::Occupied(known) => (known.into_mut(), false),
        Entry::Vacant(free) => {
            let module = Module::load(free.key())?;
            (free.insert(module), true)
        }
    };
    match module.attempt(uri, pin, &work) {
        // Modules hold on to tokens and connections that are gone until they are started again.
        Err(HsmError::NoToken { .. } | HsmError::Failed { .. }) if !is_fresh => {
            module.restart(&uri.module)?;
            module.attempt(uri, pin, &work)
        }
        done => done,
    }
}

/// What an error of the token looks like to [`HsmError::Failed`]; its own text is an essay.
pub(super) fn failed(uri: &Uri, what: &'static str, error: &Error) -> HsmError {
    HsmError::Failed {
        token: uri.token(),
        what,
        reason: reason(error),
    }
}

impl Module {
    fn load(path: &Path) -> Result<Self, HsmError> {
        let unusable = |reason: String| HsmError::Module {
            path: path.to_owned(),
            reason,
        };
        let data = fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
        if data.mode() & 0o022 != 0 {
            return Err(HsmError::Writable {
                path: path.to_owned(),
                mode: data.mode() & 0o777,
            });
        }
        let context = Pkcs11::new(path).map_err(|error| unusable(reason(&error)))?;
        let module = Self {
            context,
            refused: Vec::new(),
        };
        module.start(path)?;
        Ok(module)
    }

    fn start(&self, path: &Path) -> Result<(), HsmError> {
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        let started = self.context.initialize(arguments);
        started.map_err(|error| HsmError::Module {
            path: path.to_owned(),
            reason: reason(&error),
        })
    }

    fn restart(&self, path: &Path) -> Result<(), HsmError> {
        // One that can't even be stopped says so when it is started.
        let _ = self.context.clone().finalize();
        self.start(path)
    }

    fn attempt<T>(
        &mut self,
        uri: &Uri,
        pin: &AuthPin,
        work: impl Fn(&Session) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        let session = self.log_in(uri, pin)?;
        work(&session)
    }

    fn log_in(&mut self, uri: &Uri, pin: &AuthPin) -> Result<Session, HsmError> {
        let (slot, info) = self.find(uri)?;
        let token = uri.token();
        if self
            .refused
            .iter()
            .any(|serial| serial == info.serial_number())
        {
            return Err(HsmError::PinBefore { token });
        }
        // Read and write, since a key may be made in it.
        let session = self.context.open_rw_session(slot);
        let session = session.map_err(|error| failed(uri, "open a session", &error))?;
        match session.login(UserType::User, Some(pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(error) => Err(self.refusal(uri, slot, &info, &error)),
        }
    }

    /// What the token says to a login that failed. Whatever may mean a wrong PIN is remembered.
    fn refusal(&mut self, uri: &Uri, slot: Slot, info: &TokenInfo, error: &Error) -> HsmError {
        let token = uri.token();
        let value = match error {
            Error::Pkcs11(value, _) if !is_lost(value) => value,
            error => return failed(uri, "be logged in to", error),
        };
        self.refused.push(info.serial_number().to_owned());
        match value {
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
                let left = match self.context.get_token_info(slot) {
                    Ok(info) if info.user_pin_locked() => " and is locked now",
                    Ok(info) if info.user_pin_final_try() => " (one more wrong one locks it)",
                    _ => "",
                };
                HsmError::Pin { token, left }
            }
            RvError::PinLocked => HsmError::Locked { token },
            RvError::UserPinNotInitialized | RvError::PinExpired => HsmError::NoPin { token },
            _ => HsmError::Login {
                token,
                reason: reason(error),
            },
        }
    }

    /// The one token that the URI fits.
    fn find(&self, uri: &Uri) -> Result<(Slot, TokenInfo), HsmError> {
        let slots = self.context.get_slots_with_token();
        let slots = slots.map_err(|error| failed(uri, "be looked for", &error))?;
        // A token that can't be asked, maybe since it is being taken out, is not there.
        let present = slots
            .into_iter()
            .filter_map(|slot| Some((slot, self.context.get_token_info(slot).ok()?)))
            .filter(|(_, info)| info.token_initialized());
        let (fitting, others): (Vec<_>, Vec<_>) = present.partition(|(_, info)| fits(uri, info));
        match <[_; 1]>::try_from(fitting) {
            Ok([only]) => Ok(only),
            Err(none) if none.is_empty() => Err(HsmError::NoToken {
                token: uri.token(),
                present: names(&others, TokenInfo::label),
            }),
            Err(several) => Err(HsmError::ManyTokens {
                token: uri.token(),
                serials: names(&several, TokenInfo::serial_number),
            }),
        }
    }
}

/// True if the token went away, so that it never looked at a PIN.
fn is_lost(value: &RvError) -> bool {
    matches!(
        value,
        RvError::CryptokiNotInitialized
            | RvError::DeviceError
            | RvError::DeviceRemoved
            | RvError::SessionClosed
            | RvError::SessionHandleInvalid
            | RvError::TokenNotPresent
    )
}

fn fits(uri: &Uri, info: &TokenInfo) -> bool {
    [
        (&uri.token, info.label()),
        (&uri.manufacturer, info.manufacturer_id()),
        (&uri.model, info.model()),
        (&uri.serial, info.serial_number()),
    ]
    .into_iter()
    .all(|(asked, own)| asked.as_ref().is_none_or(|asked| asked == own))
}

fn names(tokens: &[(Slot, TokenInfo)], name: fn(&TokenInfo) -> &str) -> String {
    match tokens {
        [] => "none".to_owned(),
        tokens => {
            let names = tokens.iter().map(|(_, info)| format!("{:?}", name(info)));
            names.collect::<Vec<_>>().join(", ")
        }
    }
}

fn reason(error: &Error) -> String {
    match error {
        Error::Pkcs11(value, function) => format!("C_{function:?}: {value:?}"),
        error => error.to_string(),
    }
}
