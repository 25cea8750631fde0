//! Short names for models that many want, with what they need. docs/models-on-disk.md has the same table,
//! which a test compares.

use super::estimate::{self, Need};

/// A short name.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// As it is typed, `FAMILY:SIZE`.
    pub name: &'static str,
    /// `ORG/NAME`.
    pub repo: &'static str,
    /// What it is good for.
    pub about: &'static str,
    /// Bytes of its weights, in units of 10 MB.
    weights: u64,
    /// Its layers, key heads and a head's size: what a position costs in the cache. Of layers that see a
    /// window only, none.
    cache: [u64; 3],
}

/// All short names, smallest model first.
pub const ALIASES: &[Alias] = &[
    row(
        "qwen3:0.6b",
        "mlx-community/Qwen3-0.6B-4bit",
        "tiny, for trying out",
        34,
        [28, 8, 128],
    ),
    row(
        "gemma3:1b",
        "mlx-community/gemma-3-1b-it-4bit",
        "small talk",
        73,
        [4, 1, 256],
    ),
    row(
        "llama3.2:1b",
        "mlx-community/Llama-3.2-1B-Instruct-4bit",
        "small talk",
        70,
        [16, 8, 64],
    ),
    row(
        "qwen3:1.7b",
        "mlx-community/Qwen3-1.7B-4bit",
        "small, reasons",
        97,
        [28, 8, 128],
    ),
    row(
        "smollm3:3b",
        "mlx-community/SmolLM3-3B-4bit",
        "small, open data",
        173,
        [36, 4, 128],
    ),
    row(
        "llama3.2:3b",
        "mlx-community/Llama-3.2-3B-Instruct-4bit",
        "all-round, small",
        181,
        [28, 8, 128],
    ),
    row(
        "phi3:mini",
        "mlx-community/Phi-3-mini-4k-instruct-4bit",
        "short contexts",
        215,
        [32, 32, 96],
    ),
    row(
        "phi3.5:mini",
        "mlx-community/Phi-3.5-mini-instruct-4bit",
        "all-round, small",
        215,
        [32, 32, 96],
    ),
    row(
        "qwen3:4b",
        "mlx-community/Qwen3-4B-4bit",
        "all-round, reasons",
        226,
        [36, 8, 128],
    ),
    row(
        "gemma3:4b",
        "mlx-community/gemma-3-4b-it-4bit",
        "many languages",
        300,
        [5, 4, 256],
    ),
    row(
        "mistral:7b",
        "mlx-community/Mistral-7B-Instruct-v0.3-4bit",
        "all-round",
        408,
        [32, 8, 128],
    ),
    row(
        "qwen2.5:7b",
        "mlx-community/Qwen2.5-7B-Instruct-4bit",
        "all-round",
        428,
        [28, 4, 128],
    ),
    row(
        "qwen2.5-coder:7b",
        "mlx-community/Qwen2.5-Coder-7B-Instruct-4bit",
        "code",
        428,
        [28, 4, 128],
    ),
    row(
        "llama3.1:8b",
        "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit",
        "all-round",
        452,
        [32, 8, 128],
    ),
    row(
        "qwen3:8b",
        "mlx-community/Qwen3-8B-4bit",
        "all-round, reasons",
        461,
        [36, 8, 128],
    ),
    row(
        "mistral-nemo:12b",
        "mlx-community/Mistral-Nemo-Instruct-2407-4bit",
        "long contexts",
        689,
        [40, 8, 128],
    ),
    row(
        "gemma3:12b",
        "mlx-community/gemma-3-12b-it-4bit",
        "many languages",
        800,
        [8, 8, 256],
    ),
    row(
        "phi4:14b",
        "mlx-community/phi-4-4bit",
        "mathematics",
        825,
        [40, 10, 128],
    ),
    row(
        "qwen3:14b",
        "mlx-community/Qwen3-14B-4bit",
        "all-round, reasons",
        831,
        [40, 8, 128],
    ),
    row(
        "gpt-oss:20b",
        "mlx-community/gpt-oss-20b-MXFP4-Q4",
        "reasons, tools, fast",
        1120,
        [12, 8, 64],
    ),
    row(
        "gemma3:27b",
        "mlx-community/gemma-3-27b-it-4bit",
        "many languages",
        1680,
        [10, 16, 128],
    ),
    row(
        "qwen3:30b",
        "mlx-community/Qwen3-30B-A3B-4bit",
        "experts: fast, reasons",
        1720,
        [48, 4, 128],
    ),
    row(
        "qwen3-coder:30b",
        "mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit",
        "experts: code, fast",
        1720,
        [48, 4, 128],
    ),
    row(
        "qwen3:32b",
        "mlx-community/Qwen3-32B-4bit",
        "all-round, reasons",
        1843,
        [64, 8, 128],
    ),
    row(
        "qwq:32b",
        "mlx-community/QwQ-32B-4bit",
        "reasons at length",
        1843,
        [64, 8, 128],
    ),
    row(
        "llama3.3:70b",
        "mlx-community/Llama-3.3-70B-Instruct-4bit",
        "all-round, large",
        3970,
        [80, 8, 128],
    ),
];

const fn row(
    name: &'static str,
    repo: &'static str,
    about: &'static str,
    weights: u64,
    cache: [u64; 3],
) -> Alias {
    Alias {
        name,
        repo,
        about,
        weights,
        cache,
    }
}

impl Alias {
    /// Bytes to fetch, near enough.
    pub fn download(&self) -> u64 {
        self.weights * 10_000_000
    }

    /// What it takes in memory at `context` tokens, near enough.
    pub fn need(&self, context: u64) -> Need {
        let [layers, heads, size] = self.cache;
        Need::new(
            self.download(),
            (2 * estimate::CACHE_ELEMENT * layers * heads * size).saturating_mul(context),
        )
    }
}

/// The short name's row, in upper or lower case.
pub fn find(name: &str) -> Option<&'static Alias> {
    ALIASES
        .iter()
        .find(|alias| alias.name.eq_ignore_ascii_case(name))
}

/// The short names that have the same part before the colon.
pub fn near(name: &str) -> impl Iterator<Item = &'static Alias> {
    let family = |name: &str| name.split(':').next().unwrap_or(name).to_ascii_lowercase();
    let wanted = family(name);
    ALIASES
        .iter()
        .filter(move |alias| family(alias.name) == wanted)
}

/// The short name of a repository, if it has one.
pub fn of(repo: &str) -> Option<&'static Alias> {
    ALIASES.iter().find(|alias| alias.repo == repo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Name;

    #[test]
    fn each_short_name_is_one_repository() {
        for (i, alias) in ALIASES.iter().enumerate() {
            let name = Name::parse(alias.name).unwrap();
            assert_eq!(name.repo(), alias.repo);
            assert_eq!(Name::parse(alias.repo).unwrap(), name);
            for other in &ALIASES[..i] {
                assert_ne!(alias.name, other.name);
                assert_ne!(alias.repo, other.repo);
            }
            assert_eq!(of(alias.repo).unwrap().name, alias.name);
        }
        assert!(find("qwen3").is_none());
    }

    #[test]
    fn a_name_that_is_near_is_helped_with() {
        assert_eq!(
            Name::parse("Qwen3:4B").unwrap(),
            Name::parse("qwen3:4b").unwrap()
        );
        let message = Name::parse("qwen3:5b").unwrap_err().to_string();
        assert!(
            message.contains("qwen3:4b") && message.contains("qwen3:8b"),
            "{message}"
        );
        let message = Name::parse("llama3.1").unwrap_err().to_string();
        assert!(message.contains("(there is llama3.1:8b"), "{message}");
        let message = Name::parse("nothing:4b").unwrap_err().to_string();
        assert!(!message.contains("there is"), "{message}");
    }

    #[test]
    fn needs_grow_with_the_context() {
        let alias = find("qwen3:4b").unwrap();
        let (short, long) = (alias.need(1000), alias.need(9000));
        // 36 layers, keys and values, 8 heads of 128, 2 bytes each.
        assert_eq!(long.cache - short.cache, 8000 * 147_456);
        assert_eq!(short.weights, 2_260_000_000);
        assert!(short.total() > short.weights + short.cache);
    }

    #[test]
    fn the_document_has_the_same_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/models-on-disk.md");
        let document = std::fs::read_to_string(path).unwrap();
        let rows: Vec<&str> = document
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        for alias in ALIASES {
            let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
            let row = format!(
                "| `{}` | {} | {} | {} | {} |",
                alias.name,
                alias.repo,
                alias.about,
                gigabytes(alias.download()),
                gigabytes(alias.need(8192).total()),
            );
            assert!(
                rows.contains(&row.as_str()),
                "docs/models-on-disk.md lacks\n{row}"
            );
        }
    }
}
