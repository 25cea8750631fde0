//! Builds MLX with Metal, and mlx-c, from source through mlx-c's own CMake; gives static libraries.
//!
//! For macOS with Xcode and a network: CMake itself fetches MLX's sources.

use std::path::Path;

pub fn build(sources: &Path) -> Result<(), String> {
    let out = cmake::Config::new(sources)
        .define("MLX_C_BUILD_EXAMPLES", "OFF")
        .define("BUILD_SHARED_LIBS", "OFF")
        .define("MLX_BUILD_METAL", "ON")
        .build();
    let lib = out.join("lib");
    println!("cargo::rustc-link-search=native={}", lib.display());
    for library in ["mlxc", "mlx"] {
        println!("cargo::rustc-link-lib=static={library}");
    }
    println!("cargo::rustc-link-lib=dylib=c++");
    for framework in ["Metal", "Foundation", "QuartzCore", "Accelerate"] {
        println!("cargo::rustc-link-lib=framework={framework}");
    }
    // The metallib is looked up beside the binary, then where CMake built it.
    println!("cargo::metadata=lib_dir={}", lib.display());
    println!("cargo::metadata=link_args=");
    Ok(())
}
