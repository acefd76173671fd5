//! Which files a program may open, and which ports it may bind.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, PathFdError, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use thiserror::Error;

use super::Grade;

/// For resolving names, which reads and even loads what the system's administrator configured,
/// when it changes too: resolvers move files into place.
const NAMES: [&str; 9] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/nscd",
];

/// What the program reads of itself, and random octets where a system call has none.
const ITSELF: [&str; 3] = ["/proc/self", "/dev/urandom", "/dev/null"];

/// What the work of a program needs, by its configuration.
#[derive(Debug, Default)]
pub struct Needs {
    /// Folders whose files are changed at will.
    pub change: Vec<PathBuf>,
    /// Files that are read, now and when somebody moves others in their place.
    pub read: Vec<PathBuf>,
    /// Serial lines.
    pub serial: Vec<PathBuf>,
    /// TCP ports that are bound; any, where not set.
    pub ports: Option<Vec<u16>>,
}

#[derive(Debug, Error)]
pub(super) enum FilesError {
    #[error(transparent)]
    Ruleset(#[from] RulesetError),
    #[error("{0}")]
    Path(#[from] PathFdError),
    #[error("this kernel has no Landlock, or one before 5.19, which lets nobody rename")]
    TooOld,
}

pub(super) fn confine(needs: &Needs) -> Result<Grade, FilesError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)
        .map_err(|_| FilesError::TooOld)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    let ruleset = match needs.ports {
        Some(_) => ruleset.handle_access(AccessNet::BindTcp)?,
        None => ruleset,
    };
    let mut ruleset = ruleset.create()?;
    for port in needs.ports.iter().flatten() {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::BindTcp))?;
    }
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let ruleset = ruleset
        .add_rules(path_beneath_rules(NAMES, reading))?
        .add_rules(path_beneath_rules(ITSELF, reading))?
        // For the names in a backtrace.
        .add_rules(path_beneath_rules(
            std::env::current_exe(),
            AccessFs::ReadFile,
        ))?;
    let ruleset = needs.add_change(ruleset)?;
    let ruleset = needs.add_read(ruleset, reading)?;
    let status = needs.add_serial(ruleset)?.restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Grade::Full,
        RulesetStatus::PartiallyEnforced => Grade::Partial,
        RulesetStatus::NotEnforced => return Err(FilesError::TooOld),
    })
}

impl Needs {
    fn add_change(&self, ruleset: RulesetCreated) -> Result<RulesetCreated, RulesetError> {
        let access = AccessFs::from_all(ABI::V5)
            & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
        ruleset.add_rules(path_beneath_rules(&self.change, access))
    }

    /// A file is granted by its directory, and by that which it is linked to.
    fn add_read(
        &self,
        mut ruleset: RulesetCreated,
        access: BitFlags<AccessFs>,
    ) -> Result<RulesetCreated, FilesError> {
        for file in &self.read {
            let linked = file.canonicalize().ok();
            for place in [Some(file), linked.as_ref()].into_iter().flatten() {
                match folder(place) {
                    // All files there are: then this one alone, until it is replaced.
                    folder if folder == Path::new("/") => {
                        ruleset = ruleset.add_rules(path_beneath_rules([place], access))?;
                    }
                    folder => {
                        let rule = PathBeneath::new(PathFd::new(folder)?, access);
                        ruleset = ruleset.add_rule(rule)?;
                    }
                }
            }
        }
        Ok(ruleset)
    }

    /// A line that is unplugged comes back as another file, by another name behind its link.
    fn add_serial(&self, ruleset: RulesetCreated) -> Result<RulesetCreated, FilesError> {
        if self.serial.is_empty() {
            return Ok(ruleset);
        }
        let folders = self.serial.iter().map(|path| folder(path));
        let folders = folders.chain([Path::new("/dev")]);
        let access = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
        Ok(ruleset.add_rules(path_beneath_rules(folders, access))?)
    }
}

/// The nearest directory above `path` that there is.
fn folder(path: &Path) -> &Path {
    let mut above = path.ancestors().skip(1);
    let found = above.find(|folder| folder.is_dir());
    match path.is_absolute() {
        true => found.unwrap_or(Path::new("/")),
        // The last above a relative path is the empty one: here.
        false => found.unwrap_or(Path::new(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_file_is_the_nearest_that_there_is() {
        assert_eq!(folder(Path::new("/etc/hosts")), Path::new("/etc"));
        assert_eq!(folder(Path::new("/etc/no/such/file")), Path::new("/etc"));
        assert_eq!(folder(Path::new("/no-such/file")), Path::new("/"));
        assert_eq!(folder(Path::new("edge.toml")), Path::new("."));
        assert_eq!(folder(Path::new("no/such.toml")), Path::new("."));
    }
}
