//! The modules and submodules that a controller expects in a device (ExpectedSubmoduleBlockReq).
//!
//! ```text
//! count(2), per API:       api(4) slot(2) module(4) properties(2) count(2)
//!           per submodule: subslot(2) submodule(4) properties(2), one or two data descriptions:
//!                          direction(2) length(2) IOCS-length(1) IOPS-length(1)
//! ```

use super::{CmError, finished};
use crate::reader::{Reader, Short};

const EXPECTED_SUBMODULE: u16 = 0x0104;

/// One submodule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedSubmodule {
    pub api: u32,
    pub slot: u16,
    /// ModuleIdentNumber.
    pub module: u32,
    pub subslot: u16,
    /// SubmoduleIdentNumber.
    pub submodule: u32,
    pub properties: u16,
    /// Of its inputs, or of what has neither inputs nor outputs.
    pub input: Option<DataDescription>,
    pub output: Option<DataDescription>,
}

/// How much data a submodule has in one direction, in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataDescription {
    pub length: u16,
    pub iocs_length: u8,
    pub iops_length: u8,
}

/// The submodules of one block; the last is an error where the block does not end cleanly.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpectedSubmodules<'a> {
    content: Reader<'a>,
    /// `None` before the number of APIs has been read.
    apis: Option<u16>,
    module: Module,
}

/// The module that is being read.
#[derive(Debug, Clone, Copy, Default)]
struct Module {
    api: u32,
    slot: u16,
    ident: u32,
    /// Submodules that follow.
    left: u16,
}

impl<'a> ExpectedSubmodules<'a> {
    pub(super) fn new(content: Reader<'a>) -> Self {
        Self {
            content,
            apis: None,
            module: Module::default(),
        }
    }

    pub(super) fn check(mut self) -> Result<(), CmError> {
        self.try_for_each(|submodule| submodule.map(drop))
    }

    fn step(&mut self) -> Result<Option<ExpectedSubmodule>, CmError> {
        let mut apis = match self.apis {
            Some(apis) => apis,
            None => self.content.u16()?,
        };
        while self.module.left == 0 {
            let Some(fewer) = apis.checked_sub(1) else {
                self.apis = Some(0);
                finished(EXPECTED_SUBMODULE, self.content)?;
                return Ok(None);
            };
            apis = fewer;
            self.module = Module::read(&mut self.content)?;
        }
        self.apis = Some(apis);
        self.module.left -= 1;
        Ok(Some(self.submodule()?))
    }

    fn submodule(&mut self) -> Result<ExpectedSubmodule, Short> {
        let Module {
            api, slot, ident, ..
        } = self.module;
        let content = &mut self.content;
        let subslot = content.u16()?;
        let submodule = content.u32()?;
        let properties = content.u16()?;
        // The type: 0 no data, 1 inputs, 2 outputs, 3 both.
        let kind = properties & 3;
        let mut described = |when: bool| when.then(|| DataDescription::read(content)).transpose();
        Ok(ExpectedSubmodule {
            api,
            slot,
            module: ident,
            subslot,
            submodule,
            properties,
            input: described(kind != 2)?,
            output: described(kind >= 2)?,
        })
    }
}

impl Iterator for ExpectedSubmodules<'_> {
    type Item = Result<ExpectedSubmodule, CmError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            *self = Self {
                apis: Some(0),
                ..Self::new(Reader::new(&[]))
            };
        }
        step.transpose()
    }
}

impl Module {
    fn read(content: &mut Reader<'_>) -> Result<Self, Short> {
        let (api, slot, ident) = (content.u32()?, content.u16()?, content.u32()?);
        content.u16()?;
        let left = content.u16()?;
        Ok(Self {
            api,
            slot,
            ident,
            left,
        })
    }
}

impl DataDescription {
    fn read(content: &mut Reader<'_>) -> Result<Self, Short> {
        content.u16()?;
        Ok(Self {
            length: content.u16()?,
            iocs_length: content.u8()?,
            iops_length: content.u8()?,
        })
    }
}
