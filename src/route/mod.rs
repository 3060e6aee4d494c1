//! Which route a request takes, and which addresses may. Pure; the answers (404, 405, 403) are `receive`'s.
//!
//! Here live path patterns (`pattern`), the table that finds a route (`table`) and address sets (`allowlist`). Carries
//! its share of promise 5: a lookup never grows with the number of ranges, and never allocates for a path that has no
//! parameters.

mod allowlist;
mod pattern;
mod table;

pub use allowlist::{Allow, Allowlist, LiveRanges};
pub use pattern::{PathPattern, PatternError, Segment};
pub use table::{Conflict, Match, RouteTable, Rule, Verdict};
