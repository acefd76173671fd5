//! Private keys of CAs: PKCS#8, encrypted with a passphrase.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fieldlock_pki::issue::CaKey;
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfo, LineEnding, PrivateKeyInfo, SecretDocument};
use rcgen::KeyPair;
use zeroize::Zeroizing;

use crate::file::{self, FileError};
use crate::passphrase::Passphrase;

/// Makes a key, and the text of its file.
pub(crate) fn generate(
    passphrase: &Passphrase,
) -> Result<(Box<dyn CaKey>, Zeroizing<String>), KeyFileError> {
    let key = KeyPair::generate()?;
    let text = encrypt(&key, passphrase)?;
    Ok((Box::new(key), text))
}

/// Reads a key that nobody else may read.
pub(crate) fn load(path: &Path, passphrase: &Passphrase) -> Result<Box<dyn CaKey>, KeyFileError> {
    let text = Zeroizing::new(file::read(path, MAX_KEY_FILE)?);
    let mode = file::at(path, || fs::metadata(path))?.mode();
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Readable {
            path: path.to_owned(),
            mode: mode & 0o777,
        });
    }
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

/// Why a CA's key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "{path} can be read by others (mode {mode:03o}): run `chmod 600 {path}`, and make a new CA if it may have been copied",
        path = path.display()
    )]
    Readable { path: PathBuf, mode: u32 },
    #[error("{path} is not an encrypted PKCS#8 key in PEM", path = path.display())]
    Malformed { path: PathBuf },
    #[error("the passphrase does not open {path}", path = path.display())]
    Passphrase { path: PathBuf },
    #[error("the key can't be encrypted")]
    Encrypt,
    #[error("no key was made: {0}")]
    Generate(#[from] rcgen::Error),
}

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const MAX_KEY_FILE: u64 = 64 << 10;
