//! The way in: what happens to a request, top to bottom, one file a step.

pub mod exchange;

use std::sync::Arc;

use crate::gateway::Gateway;
use exchange::Exchange;

/// Takes one request through all steps and answers it.
pub async fn receive<E: Exchange>(gateway: &Arc<Gateway>, exchange: &mut E) {
    let _ = (gateway, exchange);
    todo!("receive")
}
