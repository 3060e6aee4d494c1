//! Step: whose keys is the request held against? Found in memory before verification begins; a look at the disk, for who
//! is new, is done elsewhere while this request waits.

use crate::config::Route;
use crate::message::PathParams;
use crate::tenants::{Client, Held};
use crate::verify::Refusal;

/// The refusal says that what there is for the sender can't be used.
pub(super) async fn find(
    route: &Route,
    params: &PathParams,
    client: Option<Client<'_>>,
) -> Result<Held, Refusal> {
    match &route.tenants {
        Some(tenants) => Held::of(Some(tenants.find(params, client).await)),
        None => Ok(Held::Route),
    }
}
