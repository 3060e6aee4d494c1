//! The admin API: looks in from outside.
