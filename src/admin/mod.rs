//! The admin API: looks in from outside.

use std::sync::Arc;

use tokio::sync::watch;

use crate::gateway::Gateway;

/// Stands in for the real one until the admin API is merged.
pub async fn serve(gateway: Arc<Gateway>, shutdown: watch::Receiver<bool>) -> Result<(), String> {
    let _ = (gateway, shutdown);
    todo!("admin")
}
