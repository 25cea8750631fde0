//! Running `pensieve` with a cache of its own, and looking at that cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::common::{pensieve, stderr, stdout};
use super::fake::{Hub, git_hash, sha256};

/// A user: a cache and an environment.
pub struct User {
    home: tempfile::TempDir,
    endpoint: String,
    variables: Vec<(&'static str, String)>,
}

impl User {
    /// With an empty cache, and `hub` for a hub.
    pub fn of(hub: &Hub) -> User {
        User {
            home: tempfile::tempdir().unwrap(),
            endpoint: hub.url.clone(),
            variables: Vec::new(),
        }
    }

    /// With another environment variable.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> User {
        self.variables.push((name, value.into()));
        self
    }

    /// The binary in this user's environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = pensieve();
        for name in [
            "ALL_PROXY",
            "all_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "HTTPS_PROXY",
            "https_proxy",
            "NO_PROXY",
            "no_proxy",
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HF_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "HUGGINGFACE_HUB_CACHE",
            "TRANSFORMERS_OFFLINE",
            "HF_HUB_DISABLE_SYMLINKS",
            "HF_HUB_DOWNLOAD_TIMEOUT",
            "HF_HUB_ETAG_TIMEOUT",
            "SSL_CERT_FILE",
            "REQUESTS_CA_BUNDLE",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN",
        ] {
            command.env_remove(name);
        }
        command
            .env("HF_HOME", self.home.path())
            .env("HF_ENDPOINT", &self.endpoint)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .args(arguments);
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it, and wants it to succeed. Gives what it printed.
    pub fn works(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        stdout(&output)
    }

    /// Runs it, and wants it to end with `code` and a message that has all `parts`.
    pub fn fails(&self, arguments: &[&str], code: i32, parts: &[&str]) -> String {
        let output = self.run(arguments);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        for part in parts {
            assert!(message.contains(part), "{part:?} in {message}");
        }
        message
    }

    /// Where tokens are.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The cache.
    pub fn cache(&self) -> PathBuf {
        self.home.path().join("hub")
    }

    /// The folder of a repository in the cache.
    pub fn repo(&self, name: &str) -> PathBuf {
        self.cache()
            .join(format!("models--{}", name.replace('/', "--")))
    }

    /// The names in `blobs` that are finished files. Wants each to have the hash that it is called by.
    pub fn blobs(&self, name: &str) -> Vec<String> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.repo(name).join("blobs"))
            .into_iter()
            .flatten()
        {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if name.contains(".pensieve.") {
                continue;
            }
            let content = std::fs::read(&path).unwrap();
            let hash = match name.len() {
                64 => sha256(&content),
                _ => git_hash(&content),
            };
            assert_eq!(hash, name, "a file that is not what it is called");
            names.push(name);
        }
        names.sort();
        names
    }

    /// All that is in a repository's folder: content, or where a link leads.
    pub fn tree(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let mut tree = BTreeMap::new();
        let root = self.repo(name);
        let mut left = vec![root.clone()];
        while let Some(folder) = left.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let relative = path.strip_prefix(&root).unwrap().to_str().unwrap();
                let relative = relative.to_owned();
                let kind = path.symlink_metadata().unwrap().file_type();
                if kind.is_dir() {
                    left.push(path);
                } else if kind.is_symlink() {
                    let to = std::fs::read_link(&path).unwrap();
                    tree.insert(relative, format!("-> {}", to.display()).into_bytes());
                } else {
                    tree.insert(relative, std::fs::read(&path).unwrap());
                }
            }
        }
        tree
    }
}

/// Bytes that look like nothing, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A model's files: settings, and weights of so many bytes each, which are none.
pub fn model(weights: &[usize]) -> Vec<(&'static str, Vec<u8>)> {
    const NAMES: [&str; 3] = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors",
    ];
    let config = br#"{"model_type": "qwen3", "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "hidden_size": 32, "max_position_embeddings": 4096,
        "quantization": {"bits": 4, "group_size": 64}}"#;
    let card = b"---\nlicense: apache-2.0\n---\n# A model\n";
    let mut files = vec![
        ("config.json", config.to_vec()),
        ("tokenizer.json", b"{}".to_vec()),
        ("tokenizer_config.json", noise(1, 100)),
        ("README.md", card.to_vec()),
        (".gitattributes", b"*.safetensors filter=lfs\n".to_vec()),
        ("model.gguf", noise(2, 100)),
        ("pytorch_model.bin", noise(3, 100)),
        ("onnx/model.onnx", noise(4, 100)),
    ];
    let names = if weights.len() == 1 {
        &NAMES[2..]
    } else {
        &NAMES[..2]
    };
    for (i, (name, size)) in names.iter().zip(weights).enumerate() {
        files.push((name, noise(10 + i as u64, *size)));
    }
    files
}
