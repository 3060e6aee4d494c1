//! The edge as a whole, over sockets, in front of an echo handler.

mod attacks;
mod http1;
mod http2;
mod shutdown;
mod slow;
mod syscalls;
