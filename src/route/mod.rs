//! Which route a request takes, and which addresses may. Pure; the answers (404, 405, 403) are `receive`'s.

mod allowlist;
mod table;

pub use allowlist::Allowlist;
pub use table::{Match, RouteTable};
