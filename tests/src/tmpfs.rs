//! A disk that is full.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A small file system, unmounted when dropped.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    pub fn is_possible() -> bool {
        let directory = fieldlock_testkit::process::Directory::new().unwrap();
        Self::mount(directory.path().to_owned(), 256).is_some()
    }

    /// With room for so many KiB.
    pub fn mount(at: PathBuf, size: u32) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}k,mode=0700")])
            .arg("fieldlock-test")
            .arg(&at)
            .output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        mounted.then_some(Self(at))
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let ballast = vec![0; 4096];
        let mut file = fs::File::create(self.0.join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &ballast).is_ok() {}
    }

    pub fn free(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: the agent may still have its log open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
