//! One self-contained HTML page of rows: a table, and plots as inline SVG.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
/// Room for the labels: left, bottom, and above and to the right.
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 40.0;
const EDGE: f64 = 20.0;
/// Of lines and dots, in turn; told apart without red and green.
const COLORS: [&str; 6] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00",
];

const STYLE: &str = "\
body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1100px;padding:0 1em;\
color:#222;background:#fff}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}\
svg{max-width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#444}\
figure{margin:1.5em 0}figcaption{font-weight:600}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}\
td,th{border-color:#444}svg text{fill:#bbb}}";

/// The page of these rows, as `Row::json` gives them; `title` is any text.
pub fn page(title: &str, rows: &[Value]) -> String {
    let mut html = String::new();
    let title = escaped(title);
    // Writing to a string cannot fail.
    let _ = write!(
        html,
        "<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>\
         <style>{STYLE}</style><h1>{title}</h1>"
    );
    html.push_str(&table(rows));
    for figure in [
        throughput(rows),
        spread(
            rows,
            "ttft_ms",
            "Time to first token, ms: p5 to p99, median",
        ),
        spread(rows, "itl_ms", "Between tokens, ms: p5 to p99, median"),
        memory(rows),
        roofline(rows),
    ] {
        html.push_str(&figure.unwrap_or_default());
    }
    html.push_str("</html>\n");
    html
}

fn number(row: &Value, pointer: &str) -> Option<f64> {
    row.pointer(pointer).and_then(Value::as_f64)
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// What a row is of, without its concurrency.
fn name(row: &Value) -> String {
    let text = |key: &str| match row.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let depth = match number(row, "/depth") {
        Some(depth) if depth > 0.0 => format!(" after {depth}"),
        _ => String::new(),
    };
    format!(
        "{} {}+{}{depth}",
        text("target"),
        text("prompt"),
        text("gen")
    )
}

const COLUMNS: [(&str, &str); 12] = [
    ("streams", "/concurrency"),
    ("ttft ms", "/ttft_ms/p50"),
    ("p99", "/ttft_ms/p99"),
    ("prefill t/s", "/prefill_tps/p50"),
    ("decode t/s", "/decode_tps/p50"),
    ("all t/s", "/aggregate_tps/p50"),
    ("total t/s", "/total_tps/p50"),
    ("itl ms", "/itl_ms/p50"),
    ("p99", "/itl_ms/p99"),
    ("max", "/itl_ms/max"),
    ("peak GB", "/peak_memory_bytes"),
    ("bandwidth", "/bandwidth_share"),
];

fn table(rows: &[Value]) -> String {
    let mut html = String::from("<table><tr><th>what");
    html.extend(COLUMNS.map(|(title, _)| format!("<th>{title}")));
    for row in rows {
        let _ = write!(html, "<tr><td>{}", escaped(&name(row)));
        for (title, pointer) in COLUMNS {
            let cell = number(row, pointer).map(|x| match title {
                "peak GB" => format!("{:.2}", x / 1e9),
                "bandwidth" => format!("{:.0}%", 100.0 * x),
                _ => label(x),
            });
            let _ = write!(html, "<td>{}", cell.unwrap_or_default());
        }
    }
    html + "</table>"
}

/// A number for people, short.
fn label(x: f64) -> String {
    match x.abs() {
        size if size >= 1e12 => format!("{:.3}T", x / 1e12),
        size if size >= 1e9 => format!("{:.3}G", x / 1e9),
        size if size >= 100.0 => format!("{x:.0}"),
        size if size >= 1.0 => format!("{x:.1}"),
        _ => format!("{x:.3}"),
    }
}

/// Where numbers lie on an axis.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    from: f64,
    to: f64,
}

impl Axis {
    /// For these values; none without a value that can be shown.
    fn of(values: &[f64], logarithmic: bool, from: f64, to: f64) -> Option<Axis> {
        let fits = |x: &&f64| x.is_finite() && (!logarithmic || **x > 0.0);
        let shown: Vec<f64> = values.iter().filter(fits).copied().collect();
        let (low, high) = (
            shown.iter().copied().min_by(f64::total_cmp)?,
            shown.iter().copied().max_by(f64::total_cmp)?,
        );
        let (low, high) = match logarithmic {
            true => (low / 1.3, high * 1.3),
            false => (0.0, if high > 0.0 { high * 1.05 } else { 1.0 }),
        };
        Some(Axis {
            low,
            high,
            logarithmic,
            from,
            to,
        })
    }

    fn share(&self, x: f64) -> f64 {
        match self.logarithmic {
            true => (x / self.low).ln() / (self.high / self.low).ln(),
            false => (x - self.low) / (self.high - self.low),
        }
    }

    fn place(&self, x: f64) -> f64 {
        self.from + self.share(x) * (self.to - self.from)
    }

    /// Five values across it.
    fn ticks(&self) -> Vec<f64> {
        let at = |i: u32| {
            let share = f64::from(i) / 4.0;
            match self.logarithmic {
                true => self.low * (self.high / self.low).powf(share),
                false => self.low + (self.high - self.low) * share,
            }
        };
        (0..5).map(at).collect()
    }
}

fn horizontal(values: &[f64], logarithmic: bool) -> Option<Axis> {
    Axis::of(values, logarithmic, LEFT, WIDTH - EDGE)
}

fn vertical(values: &[f64], logarithmic: bool) -> Option<Axis> {
    Axis::of(values, logarithmic, HEIGHT - BOTTOM, EDGE)
}

/// A plot with its axes drawn; `body` is what is in it.
fn figure(caption: &str, x: Option<(Axis, &str)>, y: (Axis, &str), body: &str) -> String {
    let mut svg = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img>",
        escaped(caption)
    );
    let (y_axis, y_name) = y;
    for tick in y_axis.ticks() {
        let at = y_axis.place(tick);
        let _ = write!(
            svg,
            "<line x1={LEFT} x2={} y1={at:.1} y2={at:.1} stroke=\"#8884\" />\
             <text x={} y={:.1} text-anchor=end>{}</text>",
            WIDTH - EDGE,
            LEFT - 6.0,
            at + 4.0,
            label(tick)
        );
    }
    let _ = write!(svg, "<text x=4 y=14>{}</text>", escaped(y_name));
    if let Some((x_axis, x_name)) = x {
        for tick in x_axis.ticks() {
            let _ = write!(
                svg,
                "<text x={:.1} y={} text-anchor=middle>{}</text>",
                x_axis.place(tick),
                HEIGHT - BOTTOM + 16.0,
                label(tick)
            );
        }
        let _ = write!(
            svg,
            "<text x={} y={} text-anchor=end>{}</text>",
            WIDTH - EDGE,
            HEIGHT - 4.0,
            escaped(x_name)
        );
    }
    svg + body + "</svg></figure>"
}

/// Tokens a second of all streams, over their number: a line for each kind of request.
fn throughput(rows: &[Value]) -> Option<String> {
    let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for row in rows {
        let rate = number(row, "/aggregate_tps/p50").or(number(row, "/total_tps/p50"));
        if let (Some(x), Some(y)) = (number(row, "/concurrency"), rate) {
            lines.entry(name(row)).or_default().push((x, y));
        }
    }
    let points = || lines.values().flatten();
    let x = horizontal(&points().map(|p| p.0).collect::<Vec<_>>(), true)?;
    let y = vertical(&points().map(|p| p.1).collect::<Vec<_>>(), false)?;
    let mut body = String::new();
    for (i, ((name, points), color)) in lines.iter().zip(COLORS.iter().cycle()).enumerate() {
        let places = points.iter().map(|&(px, py)| (x.place(px), y.place(py)));
        let path: Vec<String> = places
            .clone()
            .map(|(a, b)| format!("{a:.1},{b:.1}"))
            .collect();
        let _ = write!(
            body,
            "<polyline points=\"{}\" fill=none stroke=\"{color}\" stroke-width=2 />",
            path.join(" ")
        );
        for (a, b) in places {
            let _ = write!(body, "<circle cx={a:.1} cy={b:.1} r=3 fill=\"{color}\" />");
        }
        let _ = write!(
            body,
            "<text x={} y={} style=\"fill:{color}\">{}</text>",
            LEFT + 10.0,
            EDGE + 14.0 + 15.0 * i as f64,
            escaped(name)
        );
    }
    let caption = "Throughput over concurrency, tokens a second of all streams";
    Some(figure(
        caption,
        Some((x, "streams")),
        (y, "tokens/s"),
        &body,
    ))
}

/// Where the `i`th of `n` things stands side by side.
fn side_by_side(i: usize, n: usize) -> f64 {
    let width = WIDTH - EDGE - LEFT;
    LEFT + width * (i as f64 + 0.5) / n.max(1) as f64
}

fn below(i: usize, n: usize, row: &Value) -> String {
    let streams = number(row, "/concurrency").unwrap_or(0.0);
    format!(
        "<text x={:.1} y={} text-anchor=middle>x{streams}<title>{}</title></text>",
        side_by_side(i, n),
        HEIGHT - BOTTOM + 16.0,
        escaped(&name(row))
    )
}

/// For each row the range of one measure and its median.
fn spread(rows: &[Value], measure: &str, caption: &str) -> Option<String> {
    let part = |row: &Value, part: &str| number(row, &format!("/{measure}/{part}"));
    let all: Vec<f64> = rows.iter().filter_map(|row| part(row, "p99")).collect();
    let least = rows.iter().filter_map(|row| part(row, "p5"));
    let y = vertical(&all.into_iter().chain(least).collect::<Vec<_>>(), true)?;
    let mut body = String::new();
    for (i, row) in rows.iter().enumerate() {
        let at = side_by_side(i, rows.len());
        let parts = (part(row, "p5"), part(row, "p50"), part(row, "p99"));
        if let (Some(p5), Some(p50), Some(p99)) = parts {
            let (low, mid, high) = (y.place(p5), y.place(p50), y.place(p99));
            let color = COLORS[0];
            let _ = write!(
                body,
                "<line x1={at:.1} x2={at:.1} y1={low:.1} y2={high:.1} stroke=\"{color}\" \
                 stroke-width=3 /><circle cx={at:.1} cy={mid:.1} r=4 fill=\"{color}\" />"
            );
        }
        body.push_str(&below(i, rows.len(), row));
    }
    Some(figure(caption, None, (y, "ms"), &body))
}

/// What MLX and the process held at most, row after row.
fn memory(rows: &[Value]) -> Option<String> {
    let measures = [
        ("/peak_memory_bytes", COLORS[0]),
        ("/resident_bytes", COLORS[1]),
    ];
    let all = measures
        .iter()
        .flat_map(|(pointer, _)| rows.iter().filter_map(|row| number(row, pointer)));
    let y = vertical(&all.map(|bytes| bytes / 1e9).collect::<Vec<_>>(), false)?;
    let mut body = String::new();
    for (i, row) in rows.iter().enumerate() {
        for (k, (pointer, color)) in measures.iter().enumerate() {
            if let Some(bytes) = number(row, pointer) {
                let at = side_by_side(i, rows.len()) + 9.0 * (k as f64 - 1.0);
                let top = y.place(bytes / 1e9);
                let _ = write!(
                    body,
                    "<rect x={at:.1} y={top:.1} width=8 height={:.1} fill=\"{color}\" />",
                    (HEIGHT - BOTTOM - top).max(0.0)
                );
            }
        }
        body.push_str(&below(i, rows.len(), row));
    }
    let caption = "Memory so far, GB: MLX's peak (left) and the process's (right), in the order of \
                   the rows";
    Some(figure(caption, None, (y, "GB"), &body))
}

/// Operations a second over operations a byte, under what the device was seen to reach.
fn roofline(rows: &[Value]) -> Option<String> {
    let row_of = |row: &Value| {
        let bytes = number(row, "/step_bytes")?;
        let flops = number(row, "/step_flops")?;
        let rate = number(row, "/flops_per_second")?;
        Some((flops / bytes, rate))
    };
    let points: Vec<(f64, f64)> = rows.iter().filter_map(row_of).collect();
    let first = rows.iter().find(|row| row_of(row).is_some())?;
    let bandwidth = number(first, "/device_bytes_per_second")?;
    let most = number(first, "/device_flops_per_second")?;
    let knee = most / bandwidth;
    let xs = points.iter().map(|p| p.0).chain([knee, 4.0 * knee]);
    let x = horizontal(&xs.collect::<Vec<_>>(), true)?;
    let ys = points.iter().map(|p| p.1).chain([most, x.low * bandwidth]);
    let y = vertical(&ys.collect::<Vec<_>>(), true)?;
    let mut body = format!(
        "<polyline fill=none stroke=\"#888\" stroke-width=2 points=\"{:.1},{:.1} {:.1},{:.1} \
         {:.1},{:.1}\" />",
        x.place(x.low),
        y.place(x.low * bandwidth),
        x.place(knee),
        y.place(most),
        x.place(x.high),
        y.place(most)
    );
    for (row, (a, b)) in rows.iter().filter(|row| row_of(row).is_some()).zip(points) {
        let _ = write!(
            body,
            "<circle cx={:.1} cy={:.1} r=4 fill=\"{}\"><title>{} x{}</title></circle>",
            x.place(a),
            y.place(b),
            COLORS[0],
            escaped(&name(row)),
            number(row, "/concurrency").unwrap_or(0.0)
        );
    }
    let caption = "Decode under the device's roof: operations a second over operations a byte";
    Some(figure(
        caption,
        Some((x, "FLOP/byte")),
        (y, "FLOP/s"),
        &body,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(streams: u64, rate: f64) -> Value {
        let spread = json!({"p5": 1.0, "p50": 2.0, "p99": 9.0, "max": 12.0});
        json!({
            "target": "a<b>&\"c\"", "prompt": 8, "gen": 4, "depth": 0, "concurrency": streams,
            "ttft_ms": spread, "itl_ms": spread, "aggregate_tps": {"p50": rate},
            "peak_memory_bytes": 2e9, "resident_bytes": 3e9,
            "step_bytes": 1e9, "step_flops": 2e9, "flops_per_second": 1e11,
            "device_bytes_per_second": 1e11, "device_flops_per_second": 1e13,
        })
    }

    #[test]
    fn a_page_has_a_table_and_every_plot_and_needs_nothing_else() {
        let page = page("x & y", &[row(1, 10.0), row(8, 70.0)]);
        assert_eq!(page.matches("<svg").count(), 5);
        assert_eq!(page.matches("</svg>").count(), 5);
        assert_eq!(page.matches("<tr>").count(), 3);
        for outside in ["http", "src=", "@import", "NaN", "inf"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("x &amp; y") && page.contains("a&lt;b&gt;&amp;&quot;c&quot;"));
        assert!(!page.contains("a<b>"));
    }

    #[test]
    fn what_was_not_measured_has_no_plot() {
        let page = page("", &[json!({"target": "t", "concurrency": 1})]);
        assert_eq!(page.matches("<svg").count(), 0);
        assert_eq!(page.matches("<tr>").count(), 2);
    }

    #[test]
    fn axes_run_from_edge_to_edge() {
        let axis = Axis::of(&[1.0, 100.0, f64::NAN, -3.0], true, 0.0, 10.0).unwrap();
        assert!(axis.place(axis.low).abs() < 1e-9 && (axis.place(axis.high) - 10.0).abs() < 1e-9);
        assert!((axis.place(10.0) - 5.0).abs() < 1e-9);
        assert!(Axis::of(&[], false, 0.0, 1.0).is_none());
        assert!(Axis::of(&[0.0], false, 0.0, 1.0).is_some());
    }
}
