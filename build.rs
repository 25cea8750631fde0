//! Hands on what mlx-sys found: where libmlx lies goes into the binaries' search path, and the
//! backend's name into the program.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEP_MLX_LINK_ARGS");
    let found = |name: &str| std::env::var(format!("DEP_MLX_{name}")).unwrap_or_default();
    for argument in found("LINK_ARGS").split('\x1f').filter(|a| !a.is_empty()) {
        println!("cargo::rustc-link-arg={argument}");
    }
    println!("cargo::rustc-env=PENSIEVE_BACKEND={}", found("BACKEND"));
}
