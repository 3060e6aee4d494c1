//! Step: which route does the request take? 404, or 405 with `Allow`.

use std::sync::Arc;

use crate::config::{Clients, Config, Route};
use crate::message::{Head, Method, PathParams};
use crate::reason::Reason;
use crate::route::Match;

use super::refused::Refused;

pub(super) fn find<'c>(config: &'c Config, head: &Head) -> Result<(&'c Arc<Route>, PathParams), Refused> {
    match config.table.find(&head.host(), head.path(), &head.method) {
        Match::Route { index, params } => match config.routes.get(index) {
            Some(route) => Ok((route, params)),
            None => Err(Refused::internal("the route table names a route that is not there")),
        },
        // Which methods a client's URL takes would tell that it could be one.
        Match::MethodNotAllowed { routes, .. }
            if routes.iter().all(|index| is_for_clients(config, *index)) =>
        {
            Err(Reason::NoRoute.into())
        }
        Match::MethodNotAllowed { allowed, routes } => {
            let refused = method_not_allowed(&allowed);
            let mut routes = routes.into_iter().filter_map(|index| config.routes.get(index));
            match routes.find_map(|route| Some((route, route.handshakes.lacks(head)?))) {
                Some((route, setting)) => {
                    Err(Refused { detail: lacks(&route.name, setting).into(), ..refused })
                }
                None => Err(refused),
            }
        }
        Match::NotFound => Err(Reason::NoRoute.into()),
    }
}

fn is_for_clients(config: &Config, index: usize) -> bool {
    config.routes.get(index).is_some_and(|route| route.clients == Clients::Endpoints)
}

fn method_not_allowed(methods: &[Method]) -> Refused {
    let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    Refused { allow: Some(allow), ..Reason::MethodNotAllowed.into() }
}

/// For the log: the stranger is told what any other is.
pub(super) fn lacks(route: &str, setting: &str) -> String {
    format!("a greeting that route {route} can't answer, because `{setting}` is not set")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let answer = method_not_allowed(&[Method::POST, Method::PUT]).answer();
        assert_eq!(answer.status, 405);
        assert!(answer.headers.contains(&("allow".into(), "POST, PUT".into())));
        assert!(answer.headers.contains(&("tidegate-reason".into(), "method_not_allowed".into())));
    }
}
