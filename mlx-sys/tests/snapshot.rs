//! The committed bindings are what bindgen makes of the pinned headers.

#[test]
fn snapshot_is_current() {
    let generated = include_str!(concat!(env!("OUT_DIR"), "/bindings.rs"));
    let committed = include_str!("../bindings.rs");
    assert!(
        generated == committed,
        "mlx-sys/bindings.rs is stale: run `cargo xtask bindings`"
    );
}
