//! How long a comparison may take.

/// The policies have so many rules over the same addresses that a comparison would take minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the policies have too many overlapping rules to compare; compare them device by device, in smaller files"
)]
pub struct TooLarge;

/// Steps that a comparison may take: some ten seconds' worth.
const STEPS: u64 = 20_000_000_000;

/// What is left of [`STEPS`].
pub(super) struct Budget(pub(super) u64);

impl Default for Budget {
    fn default() -> Self {
        Self(STEPS)
    }
}

impl Budget {
    pub(super) fn spend(&mut self, steps: u64) -> Result<(), TooLarge> {
        self.0 = self.0.checked_sub(steps).ok_or(TooLarge)?;
        Ok(())
    }
}
