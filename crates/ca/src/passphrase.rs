//! The passphrase of a CA's keys, or the PIN of the token where they are: from a file, a terminal or
//! standard input, never from an argument, since arguments are visible to every process.

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::Path;

use fieldlock_pki::private::{self, NotPrivate};
use zeroize::Zeroizing;

use crate::file::{self, FileError};

/// Wiped from memory when dropped, and never printed.
#[derive(Clone)]
pub struct Passphrase {
    text: Zeroizing<String>,
    /// Of tokens, if it is another.
    pin: Option<Zeroizing<String>>,
}

impl Passphrase {
    /// Fewest characters of a new passphrase.
    pub const MIN_LEN: usize = 8;

    pub fn new(text: String) -> Result<Self, PassphraseError> {
        if text.is_empty() {
            return Err(PassphraseError::Empty);
        }
        Ok(Self {
            text: Zeroizing::new(text),
            pin: None,
        })
    }

    /// Opens keys on tokens with the PIN in the first line of `file`, those in files as before.
    pub fn with_pin_file(mut self, file: &Path) -> Result<Self, PassphraseError> {
        self.pin = Some(Self::from_file(file)?.text);
        Ok(self)
    }

    /// The first line of the file, or, without a file, of a prompt at the terminal or of standard
    /// input. `what` says what it opens.
    pub fn obtain(file: Option<&Path>, what: &str) -> Result<Self, PassphraseError> {
        match file {
            Some(path) => Self::from_file(path),
            None if io::stdin().is_terminal() => prompt(&format!("Passphrase for {what}: ")),
            None => Self::from_stdin(),
        }
    }

    /// The same for a passphrase that is being chosen: a prompt asks twice, a short one is refused.
    pub fn choose(file: Option<&Path>, what: &str) -> Result<Self, PassphraseError> {
        let chosen = Self::obtain(file, what)?;
        chosen.check_length()?;
        if file.is_none()
            && io::stdin().is_terminal()
            && prompt("The same again: ")?.text != chosen.text
        {
            return Err(PassphraseError::Differ);
        }
        Ok(chosen)
    }

    /// Refuses what is too short to encrypt a key with: a PIN, say, of a token that counts attempts.
    pub(crate) fn check_length(&self) -> Result<(), PassphraseError> {
        match self.text.chars().count() {
            length if length < Self::MIN_LEN => Err(PassphraseError::Short { length }),
            _ => Ok(()),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Whether tokens have a PIN of their own.
    pub(crate) fn has_pin(&self) -> bool {
        self.pin.is_some()
    }

    /// What a token is opened with.
    #[cfg(feature = "pkcs11")]
    pub(crate) fn pin(&self) -> &str {
        self.pin.as_ref().unwrap_or(&self.text)
    }

    fn from_file(path: &Path) -> Result<Self, PassphraseError> {
        let data = file::at(path, || std::fs::metadata(path))?;
        private::check(path, &data)?;
        Self::from_line(&file::read(path, MAX_FILE)?)
    }

    fn from_stdin() -> Result<Self, PassphraseError> {
        let mut line = Zeroizing::new(String::new());
        io::stdin()
            .lock()
            .take(MAX_FILE)
            .read_line(&mut line)
            .map_err(PassphraseError::Terminal)?;
        Self::from_line(&line)
    }

    fn from_line(text: &str) -> Result<Self, PassphraseError> {
        Self::new(text.lines().next().unwrap_or_default().to_owned())
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

fn prompt(text: &str) -> Result<Passphrase, PassphraseError> {
    // rpassword asks at the controlling terminal, so standard output stays data.
    let line = rpassword::prompt_password(text).map_err(PassphraseError::Terminal)?;
    Passphrase::new(line)
}

/// Why there is no passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Readable(#[from] NotPrivate),
    #[error("can't read the passphrase: {0}")]
    Terminal(io::Error),
    #[error(
        "no passphrase: give `--passphrase-file FILE`, or type it at the prompt, or send it to standard input"
    )]
    Empty,
    #[error(
        "the passphrase has {length} characters; use at least {min}",
        min = Passphrase::MIN_LEN
    )]
    Short { length: usize },
    #[error("the two passphrases differ")]
    Differ,
}

const MAX_FILE: u64 = 4096;
