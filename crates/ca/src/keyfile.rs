//! Private keys of CAs and of signers of policies: PKCS#8, encrypted with a passphrase, or the URI
//! of a key on a token.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fieldlock_pki::issue::CaKey;
use fieldlock_pki::private::{self, NotPrivate};
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument};
use rcgen::KeyPair;
use zeroize::Zeroizing;

use crate::file::{self, FileError};
use crate::hsm::{self, HsmError, Uri, UriError};
use crate::passphrase::{Passphrase, PassphraseError};

/// Makes a key with its file `path`, which must not exist yet; see [`load`].
pub fn create(
    path: &Path,
    token: Option<&Uri>,
    label: &str,
    passphrase: &Passphrase,
) -> Result<Box<dyn CaKey>, KeyFileError> {
    // Before a key is made on a token that no file would name.
    file::at(path, || match fs::symlink_metadata(path) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => Ok(()),
    })?;
    let (key, text) = generate(token, label, passphrase)?;
    file::create(path, text.as_bytes())?;
    Ok(key)
}

/// Makes a key, on `token` by the name `label` if there is one; and the text of its file.
pub(crate) fn generate(
    token: Option<&Uri>,
    label: &str,
    passphrase: &Passphrase,
) -> Result<(Box<dyn CaKey>, Zeroizing<String>), KeyFileError> {
    if let Some(token) = token {
        let (key, uri) = hsm::generate(token, label, passphrase)?;
        return Ok((key, Zeroizing::new(format!("{uri}\n"))));
    }
    passphrase.check_length()?;
    let key = KeyPair::generate()?;
    let text = encrypt(&key, passphrase)?;
    Ok((Box::new(key), text))
}

/// Reads a key that nobody else may read, or opens the one on the token that the file names.
pub fn load(path: &Path, passphrase: &Passphrase) -> Result<Box<dyn CaKey>, KeyFileError> {
    let text = Zeroizing::new(file::read(path, MAX_KEY_FILE)?);
    if let Some(uri) = uri_in(path, &text) {
        return hsm::open(&uri?, passphrase).map_err(|error| KeyFileError::Token {
            path: path.to_owned(),
            error,
        });
    }
    private::check(path, &file::at(path, || fs::metadata(path))?)?;
    let malformed = || KeyFileError::Malformed {
        path: path.to_owned(),
    };
    let (label, document) = SecretDocument::from_pem(&text).map_err(|_| malformed())?;
    if label != ENCRYPTED {
        return Err(malformed());
    }
    let encrypted =
        EncryptedPrivateKeyInfo::try_from(document.as_bytes()).map_err(|_| malformed())?;
    let key = encrypted
        .decrypt(passphrase.as_bytes())
        .map_err(|_| KeyFileError::Passphrase {
            path: path.to_owned(),
        })?;
    let key = KeyPair::try_from(key.as_bytes()).map_err(|_| malformed())?;
    Ok(Box::new(key))
}

/// Whether the file names a key on a token, and does not hold one itself.
pub(crate) fn is_on_token(path: &Path) -> Result<bool, KeyFileError> {
    let text = Zeroizing::new(file::read(path, MAX_KEY_FILE)?);
    Ok(uri_in(path, &text).is_some())
}

/// What the file `path` says if it does not hold a key itself.
pub(crate) fn uri_in(path: &Path, text: &str) -> Option<Result<Uri, KeyFileError>> {
    let text = text.trim();
    if !text.starts_with(Uri::SCHEME) {
        return None;
    }
    Some(text.parse().map_err(|error: UriError| KeyFileError::Token {
        path: path.to_owned(),
        error: error.into(),
    }))
}

fn encrypt(key: &KeyPair, passphrase: &Passphrase) -> Result<Zeroizing<String>, KeyFileError> {
    let mut salt = [0; 16];
    let mut iv = [0; 16];
    for buffer in [&mut salt, &mut iv] {
        aws_lc_rs::rand::fill(buffer).map_err(|_| KeyFileError::Encrypt)?;
    }
    // N = 2^14, r = 8, p = 1 takes 16 MiB: `openssl pkcs8` refuses to use more than 32 MiB.
    let scrypt = scrypt::Params::new(14, 8, 1, 32).map_err(|_| KeyFileError::Encrypt)?;
    let parameters = pbes2::Parameters::scrypt_aes256cbc(scrypt, &salt, &iv)
        .map_err(|_| KeyFileError::Encrypt)?;
    let document = PrivateKeyInfo::try_from(key.serialized_der())
        .and_then(|info| info.encrypt_with_params(parameters, passphrase.as_bytes()))
        .map_err(|_| KeyFileError::Encrypt)?;
    document
        .to_pem(ENCRYPTED, LineEnding::LF)
        .map_err(|_| KeyFileError::Encrypt)
}

/// Why a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Readable(#[from] NotPrivate),
    #[error("{path} is neither an encrypted PKCS#8 key in PEM nor a PKCS#11 URI", path = path.display())]
    Malformed { path: PathBuf },
    #[error("the passphrase does not open {path}", path = path.display())]
    Passphrase { path: PathBuf },
    #[error("the key can't be encrypted")]
    Encrypt,
    #[error(transparent)]
    Short(#[from] PassphraseError),
    #[error("no key was made: {0}")]
    Generate(#[from] rcgen::Error),
    #[error("{path}: {error}", path = path.display())]
    Token { path: PathBuf, error: HsmError },
    #[error(transparent)]
    Hsm(#[from] HsmError),
}

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const MAX_KEY_FILE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_too_short_for_a_key_in_a_file() {
        let pin = Passphrase::new("314159".to_owned()).unwrap();
        let made = generate(None, "", &pin).map(|_| ());
        assert!(matches!(made, Err(KeyFileError::Short(_))), "{made:?}");
    }
}
