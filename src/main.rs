//! The `pensieve` binary.

fn main() {
    pensieve::cli::main()
}
