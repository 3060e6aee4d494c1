//! The last step: what the route does with a request that has come this far.

pub(super) mod buffer;
pub(super) mod pass;
pub(super) mod proxy;
pub(super) mod spill;
pub(super) mod split;
