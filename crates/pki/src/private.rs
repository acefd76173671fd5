//! Files that hold a secret: keys, passphrases, PINs, tokens. One rule for all of them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that others can read, or change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path} can be read by others (mode {mode:03o}): run `chmod 600 {path}`, and have another one made if somebody may have read it",
    path = path.display()
)]
pub struct NotPrivate {
    path: PathBuf,
    mode: u32,
}

/// Refuses a file that anyone but its owner may read or change.
///
/// systemd hands a credential to a service as a file of root's that the service may read by an ACL,
/// which shows as a right of the group: mode 440, root's and of root's group. A pipe or a descriptor
/// (`/dev/fd/3`, `<(...)`) has no rights to speak of.
pub fn check(path: &Path, data: &Metadata) -> Result<(), NotPrivate> {
    let mode = data.mode() & 0o777;
    let credential = mode == 0o440 && data.uid() == 0 && data.gid() == 0;
    match data.is_file() && mode & 0o077 != 0 && !credential {
        true => Err(NotPrivate {
            path: path.to_owned(),
            mode,
        }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_others_can_read_or_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        File::create(&path).unwrap();
        let at = |mode| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            check(&path, &fs::metadata(&path).unwrap())
        };
        for mode in [0o400, 0o600, 0o700] {
            assert_eq!(at(mode), Ok(()), "{mode:o}");
        }
        for mode in [0o604, 0o640, 0o660, 0o602, 0o644, 0o666, 0o641] {
            let refused = at(mode).unwrap_err().to_string();
            assert!(refused.contains(&format!("(mode {mode:03o})")), "{refused}");
            assert!(refused.contains("`chmod 600 "), "{refused}");
        }
        let root = fs::metadata(&path).unwrap().uid() == 0;
        assert_eq!(at(0o440).is_ok(), root, "as systemd makes it");
    }
}
