//! `pensieve fuse`: a fine-tune merged into its model.

use super::args::Fuse;
use super::{Done, Failure, model};
use crate::engine::fuse;

/// Runs the subcommand.
pub fn run(args: Fuse) -> Done {
    let (source, _) = model::find(&args.files)?;
    let Some(adapters) = args.files.adapters() else {
        return Err(Failure::Usage(
            "fuse needs --adapter-path, the directory of the fine-tune to merge".into(),
        ));
    };
    let to = &args.save_path;
    let failed = |e: std::io::Error| Failure::Work(format!("cannot write {}: {e}", to.display()));
    std::fs::create_dir_all(to).map_err(failed)?;
    // Not over another checkpoint: what is left of that would be read with this one.
    if std::fs::read_dir(to).map_err(failed)?.next().is_some() {
        return Err(Failure::Usage(format!(
            "{} is not empty; --save-path takes a new or empty directory",
            to.display()
        )));
    }
    let device = args.device.device();
    let fused = model::loading(&source, |report| {
        fuse(&source, &adapters, to, args.dequantize, device, &report)
    })?;
    eprintln!(
        "{} has {} tensors, {:.1} MB; the fine-tune changed {}",
        to.display(),
        fused.tensors,
        fused.bytes as f64 / 1e6,
        fused.changed
    );
    Ok(())
}
