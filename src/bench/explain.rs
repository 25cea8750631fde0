//! How a model's products are computed, for people and programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::engine::{Choice, Explained};

/// Every way there is, in the order of the columns.
const WAYS: [(&str, &str); 4] = [
    ("kernel", "Pensieve's kernels on a CPU"),
    ("packed", "MLX's product with the packed matrix"),
    (
        "unpack",
        "unpacked for each product, then MLX's ordinary one",
    ),
    ("unpacked", "unpacked when it was loaded"),
];

/// A few lines and a Markdown table.
pub fn text(explained: &Explained) -> String {
    let mut text = format!("{}, MLX {}\n", explained.device, explained.mlx);
    if let Some(file) = &explained.file {
        text += &format!("what was measured is kept in {}\n", file.display());
    }
    if let Some(found) = &explained.residence {
        let ms = |seconds: f64| seconds * 1e3;
        let _ = writeln!(
            text,
            "weights {}: the products of a step take {:.2} ms packed and {:.2} ms unpacked; with 32 streams \
             {:.2} and {:.2} ms",
            if found.unpacks() {
                "are unpacked as they are loaded"
            } else {
                "stay packed"
            },
            ms(found.packed),
            ms(found.unpacked),
            ms(found.packed_many),
            ms(found.unpacked_many),
        );
    }
    if explained.choices.is_empty() {
        text += "nothing is planned: no product with a packed matrix came up, or --plan rule does without\n";
        return text;
    }
    text += "\nmicroseconds of a product, where it was measured:\n\n| matrix | rows | taken |";
    for (name, _) in WAYS {
        let _ = write!(text, " {name} |");
    }
    text += "\n|---|---|---|---|---|---|---|\n";
    for choice in &explained.choices {
        let taken = choice.way.unwrap_or("(weighs how weights are kept)");
        let _ = write!(text, "| {} | {} | {taken} |", choice.matrix, rows(choice));
        for (name, _) in WAYS {
            let _ = match choice.seconds.get(name) {
                Some(seconds) => write!(text, " {:.1} |", seconds * 1e6),
                None => write!(text, " |"),
            };
        }
        text.push('\n');
    }
    text.push('\n');
    for (name, meaning) in WAYS {
        let _ = writeln!(text, "{name}: {meaning}");
    }
    text
}

fn rows(choice: &Choice) -> String {
    match choice.rows {
        1 => "1".into(),
        n => format!("{n} to {}", 2 * n - 1),
    }
}

/// An object a line: one of the device and the weights, then one of each product.
pub fn lines(explained: &Explained) -> String {
    let residence = explained.residence.map(|found| {
        json!({
            "unpacks": found.unpacks(),
            "step_packed_ms": found.packed * 1e3,
            "step_unpacked_ms": found.unpacked * 1e3,
            "step_of_32_packed_ms": found.packed_many * 1e3,
            "step_of_32_unpacked_ms": found.unpacked_many * 1e3,
        })
    });
    let head = json!({
        "device": explained.device, "mlx": explained.mlx, "file": explained.file, "weights": residence,
    });
    let choices = explained.choices.iter().map(|choice| {
        let micros: Map<String, Value> = choice
            .seconds
            .iter()
            .map(|(way, seconds)| (way.clone(), json!(seconds * 1e6)))
            .collect();
        json!({
            "matrix": choice.matrix, "rows": choice.rows, "way": choice.way, "microseconds": micros,
        })
    });
    let all = std::iter::once(head).chain(choices);
    all.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained() -> Explained {
        Explained {
            device: "a card".into(),
            mlx: "1.2".into(),
            choices: vec![Choice {
                matrix: "8 x 64".into(),
                rows: 4,
                way: Some("packed"),
                seconds: [("packed".to_owned(), 2e-6), ("unpacked".to_owned(), 1.5e-6)].into(),
            }],
            ..Explained::default()
        }
    }

    #[test]
    fn a_product_has_a_row_with_its_times() {
        let text = text(&explained());
        assert!(text.starts_with("a card, MLX 1.2\n"), "{text}");
        let row = "| 8 x 64 | 4 to 7 | packed | | 2.0 | | 1.5 |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn a_product_is_an_object_on_a_line() {
        let lines = lines(&explained());
        let objects: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[0]["device"], "a card");
        assert_eq!(objects[1]["way"], "packed");
        assert_eq!(objects[1]["microseconds"]["packed"], 2.0);
    }
}
