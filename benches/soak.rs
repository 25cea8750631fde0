//! Ten thousand short requests from 64 clients to the shipped model, a fifth of them left by their
//! client at some point:
//!
//!     cargo bench --bench soak -- [--requests 10000] [--clients 64] [--drop 20] [--device cpu]
//!
//! Fails if an answer is not the one that its prompt gets alone, a stream does not end, or memory is
//! not back within 2% of where it was. Prints one JSON line.

#[path = "../tests/common/soak.rs"]
mod soak;

use clap::Parser;
use pensieve::engine::{Options, default_max_running};
use pensieve::mlx::Device;

#[derive(Parser)]
struct Args {
    /// Requests in all
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Clients that send them, each one after the other
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Of a hundred requests so many are left
    #[arg(long, default_value_t = 20)]
    drop: usize,
    /// Requests that run at a time
    #[arg(long)]
    max_running: Option<usize>,
    /// `cpu` or `gpu`; the best there is if not given
    #[arg(long)]
    device: Option<String>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let args = Args::parse();
    let device = match args.device.as_deref() {
        None => Device::best(),
        Some("cpu") => Device::Cpu,
        Some("gpu") => Device::Gpu,
        Some(other) => panic!("--device is cpu or gpu, not {other}"),
    };
    let options = Options {
        device: Some(device),
        max_running: args
            .max_running
            .unwrap_or_else(|| default_max_running(device)),
        ..Options::default()
    };
    let plan = soak::Plan {
        requests: args.requests,
        clients: args.clients,
        dropped_percent: args.drop,
    };
    println!("{}", soak::run(plan, options).json());
}
