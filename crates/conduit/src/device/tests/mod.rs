//! The device side on virtual time.

use std::time::Duration;

mod answers;
mod bench;
mod connections;
mod deadlines;
mod model;
mod order;
mod quirks;
mod reference;
mod serial;
mod shared;
mod silence;
mod turns;

const MS: Duration = Duration::from_millis(1);
