//! The client against apps on real sockets, good ones and bad ones.

mod http1;
mod http2;
mod streams;
mod tls;
