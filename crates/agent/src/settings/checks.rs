//! What belongs together in a configuration file, checked to the end.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::Path;

use super::document::{Finding, place_in};

/// Collects what is wrong with a file that could be read.
#[derive(Debug)]
pub struct Checks<'t> {
    text: &'t str,
    /// Which entry of which list is looked at.
    at: Cell<(&'static str, usize)>,
    found: RefCell<Vec<Finding>>,
}

impl<'t> Checks<'t> {
    /// `text` is what the places are looked up in.
    pub fn new(text: &'t str) -> Self {
        Self {
            text,
            at: Cell::new(("", 0)),
            found: RefCell::default(),
        }
    }

    /// What follows is about entry `number` (from 0) of `list`; `""` for the file as a whole.
    pub fn at(&self, list: &'static str, number: usize) {
        self.at.set((list, number));
    }

    /// What follows is about the table `[name]`.
    pub fn at_table(&self, name: &'static str) {
        self.at(name, 0);
    }

    /// Takes note unless `right`. The place is that of the first key that the message names in backticks and that
    /// is there, else of the entry.
    pub fn ensure(&self, right: bool, message: impl FnOnce() -> String) {
        if right {
            return;
        }
        let message = message();
        let (list, number) = self.at.get();
        let keys: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        let place = place_in(self.text, list, number, &keys);
        self.found.borrow_mut().push(Finding { place, message });
    }

    /// Takes note unless the file that `key` names is there. `given` is how it is named in a file in `folder`.
    pub fn ensure_file(&self, key: &str, folder: &Path, given: &Path) {
        self.at("", 0);
        let file = folder.join(given);
        let Err(error) = fs::metadata(&file) else {
            return;
        };
        let hint = match given.is_relative() {
            true => "\nhint: a relative path counts from the directory of the configuration file",
            false => "",
        };
        self.ensure(false, || {
            format!("`{key}`: {}: {error}{hint}", file.display())
        });
    }

    pub fn into_findings(self) -> Vec<Finding> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|finding| finding.place);
        found
    }
}
