//! The route table: host, path and method to a route.

use crate::message::{Method, PathParams};

/// All routes, indexed for lookup.
#[derive(Debug, Default)]
pub struct RouteTable {}

/// The outcome of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The index of the route in the config, and its path's parameters.
    Route {
        index: usize,
        params: PathParams,
    },
    /// Host and path are known, the method is not; what is allowed.
    MethodNotAllowed(Vec<Method>),
    NotFound,
}

impl RouteTable {
    /// `host` as of `Head::host`, `path` as sent.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Match {
        let _ = (host, path, method);
        todo!("routes")
    }
}
