//! The file of what was measured: one for each device and version of MLX and of Pensieve.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Shape, Times};
use crate::mlx::{Dtype, QuantMode};

/// Larger files are not ours.
const LARGEST: u64 = 16 << 20;
/// Products that are kept; beyond them what was measured first goes.
const MOST: usize = 20_000;

/// Where a plan for `device` is kept, in `folder`.
pub fn file_for(folder: &Path, device: &str, mlx: &str) -> PathBuf {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let device: String = device.chars().map(plain).take(80).collect();
    let own = env!("CARGO_PKG_VERSION");
    folder.join(format!("plan-{device}-mlx-{mlx}-pensieve-{own}.json"))
}

/// What the file has; nothing where there is none, or it cannot be read.
pub(super) fn read(file: &Path) -> BTreeMap<(Shape, usize), Times> {
    let fits = std::fs::metadata(file).is_ok_and(|about| about.len() <= LARGEST);
    let text = fits.then(|| std::fs::read_to_string(file).ok()).flatten();
    let Some(text) = text else {
        return BTreeMap::new();
    };
    let Ok(Value::Array(entries)) = serde_json::from_str(&text) else {
        tracing::warn!("{} is no plan; it is made anew", file.display());
        return BTreeMap::new();
    };
    entries.iter().filter_map(parsed).collect()
}

/// Adds `times` to what the file has. Others see the old file or the new one, whole.
pub(super) fn add(file: &Path, times: &BTreeMap<(Shape, usize), Times>) -> std::io::Result<()> {
    let mut all = read(file);
    all.extend(times.iter().map(|(key, times)| (*key, times.clone())));
    while all.len() > MOST {
        all.pop_first();
    }
    let entries: Vec<Value> = all
        .iter()
        .map(|(key, times)| written(*key, times))
        .collect();
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(Value::Array(entries).to_string().as_bytes())?;
    new.persist(file).map_err(|e| e.error)?;
    Ok(())
}

fn written((shape, rows): (Shape, usize), times: &Times) -> Value {
    let micros: Map<String, Value> = times
        .iter()
        .map(|(way, seconds)| (way.clone(), json!(seconds * 1e6)))
        .collect();
    json!({
        "out": shape.out, "in": shape.inner, "mode": shape.mode.name(), "bits": shape.bits,
        "group_size": shape.group_size, "x": shape.x.name(), "rows": rows, "microseconds": micros,
    })
}

fn parsed(entry: &Value) -> Option<((Shape, usize), Times)> {
    let number = |name| i32::try_from(entry.get(name)?.as_u64()?).ok();
    let text = |name| entry.get(name)?.as_str();
    let mode = QuantMode::ALL
        .into_iter()
        .find(|mode| Some(mode.name()) == text("mode"))?;
    let floats = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];
    let x = floats
        .into_iter()
        .find(|dtype| Some(dtype.name()) == text("x"))?;
    let shape = Shape {
        out: number("out")?,
        inner: number("in")?,
        mode,
        bits: number("bits")?,
        group_size: number("group_size")?,
        x,
    };
    let micros = entry.get("microseconds")?.as_object()?.iter();
    let seconds = micros.map(|(way, micros)| {
        let micros = micros
            .as_f64()
            .filter(|micros| micros.is_finite() && *micros > 0.0)?;
        Some((way.clone(), micros / 1e6))
    });
    Some((
        (shape, number("rows")? as usize),
        seconds.collect::<Option<_>>()?,
    ))
}
