//! Raw bindings to mlx-c, and to `mlx_call` (`call/call.h`), which Linux alone has. Nothing else: the safe layer is `src/mlx` of the `pensieve` package.

#![allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
