//! A message that came in several RPC fragments, put together in bounded memory.

use thiserror::Error;

use crate::rpc::Rpc;

/// Longest message, in octets.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Fragments of one message, at most.
pub const MAX_FRAGMENTS: u16 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FragmentError {
    #[error("RPC fragment {0}; a message has at most {MAX_FRAGMENTS}")]
    TooMany(u16),
    #[error("a message of more than {MAX_MESSAGE} octets in RPC fragments")]
    TooLong,
    #[error("RPC fragment {0} behind the last one, or another last one")]
    AfterLast(u16),
    #[error("RPC fragment {0} again, with other octets")]
    Differs(u16),
    #[error("RPC fragment {got} where {wanted} is due")]
    Gap { got: u16, wanted: u16 },
}

/// One message on its way. Fragments come in order, as the tunnel keeps it; repeated ones are
/// known again.
#[derive(Debug, Default)]
pub struct Reassembly {
    octets: Vec<u8>,
    /// Where each fragment ends in `octets`.
    ends: Vec<usize>,
    complete: bool,
}

impl Reassembly {
    /// Its last fragment is there.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Adds a fragment; the whole message once its last one is there, and again each time that is
    /// repeated.
    pub fn push(&mut self, rpc: &Rpc<'_>) -> Result<Option<&[u8]>, FragmentError> {
        let number = rpc.fragment;
        if number >= MAX_FRAGMENTS {
            return Err(FragmentError::TooMany(number));
        }
        let next = self.ends.len() as u16;
        if number > next {
            return Err(FragmentError::Gap {
                got: number,
                wanted: next,
            });
        }
        if number < next {
            let at = usize::from(number);
            let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
            let last = self.complete && number + 1 == next;
            if self.octets.get(start..self.ends[at]) != Some(rpc.body) || last != rpc.is_last() {
                return Err(FragmentError::Differs(number));
            }
            return Ok(last.then_some(&self.octets[..]));
        }
        if self.complete {
            return Err(FragmentError::AfterLast(number));
        }
        if self.octets.len() + rpc.body.len() > MAX_MESSAGE {
            return Err(FragmentError::TooLong);
        }
        self.octets.extend_from_slice(rpc.body);
        self.ends.push(self.octets.len());
        self.complete = rpc.is_last();
        Ok(self.complete.then_some(&self.octets[..]))
    }
}

#[cfg(test)]
mod tests;
