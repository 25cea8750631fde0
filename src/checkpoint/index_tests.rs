//! Shards and their index: what is found, and what is refused.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::checkpoint::fixture::{file, image};

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

/// A directory of two shards, with an index of `weight_map`, the inside of its braces, or without.
fn sharded(weight_map: Option<&str>) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write =
        |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
    write(
        FIRST,
        &file(&[("z", Dtype::U8, &[3]), ("a", Dtype::F32, &[2, 1])]),
    );
    write(
        SECOND,
        &file(&[("m", Dtype::BF16, &[]), ("b", Dtype::U8, &[0])]),
    );
    if let Some(map) = weight_map {
        write(
            INDEX,
            format!(r#"{{"metadata":{{"total_size":13}},"weight_map":{{{map}}}}}"#).as_bytes(),
        );
    }
    directory
}

fn place(tensor: &str, shard: &str) -> String {
    format!(
        "{}:{}",
        serde_json::Value::from(tensor),
        serde_json::Value::from(shard)
    )
}

fn open(directory: &Path) -> Result<Shards> {
    Shards::open(&Source::Directory(directory.to_owned()))
}

fn message(directory: &Path) -> String {
    open(directory).unwrap_err().to_string()
}

fn assert_both_shards(shards: &Shards) {
    assert_eq!(shards.names().collect::<Vec<_>>(), ["a", "b", "m", "z"]);
    assert_eq!(
        shards.iter().map(|t| t.name).collect::<Vec<_>>(),
        ["z", "a", "m", "b"]
    );
    assert_eq!(shards.shard_names().collect::<Vec<_>>(), [FIRST, SECOND]);
    assert_eq!(
        (shards.len(), shards.is_empty(), shards.total_bytes()),
        (4, false, 13)
    );
    assert_eq!(
        (
            shards.shard_of("a"),
            shards.shard_of("m"),
            shards.shard_of("x")
        ),
        (Some(FIRST), Some(SECOND), None)
    );
    let a = Tensor {
        name: "a",
        dtype: Dtype::F32,
        shape: &[2, 1],
        bytes: &[3, 4, 5, 6, 7, 8, 9, 10],
    };
    assert_eq!(shards.get("a"), Some(a));
    assert_eq!(shards.get("b").unwrap().bytes, [0u8; 0]);
    assert_eq!(shards.get("m").unwrap().bytes, [0, 1]);
    assert_eq!(shards.get("x"), None);
}

#[test]
fn opens_all_model_files_without_an_index() {
    let directory = sharded(None);
    std::fs::write(
        directory.path().join("adapters.safetensors"),
        b"not a model's",
    )
    .unwrap();
    std::fs::write(directory.path().join("model.gguf"), b"not safetensors").unwrap();
    assert_both_shards(&open(directory.path()).unwrap());
}

#[test]
fn opens_what_the_index_names_and_nothing_else() {
    // The index need not name every tensor of a shard.
    let map = [place("z", FIRST), place("a", FIRST), place("m", SECOND)].join(",");
    let directory = sharded(Some(&map));
    std::fs::write(directory.path().join("model-old.safetensors"), b"damaged").unwrap();
    assert_both_shards(&open(directory.path()).unwrap());
}

#[test]
fn opens_embedded_files() {
    let bytes: &'static [u8] = Vec::leak(image(
        r#"{"__metadata__":{"format":"mlx"},"w":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}}"#,
        &[7, 8],
    ));
    let shards = Shards::open(&Source::Embedded(Vec::leak(vec![(
        "model.safetensors",
        bytes,
    )])))
    .unwrap();
    assert_eq!(shards.get("w").unwrap().bytes, [7, 8]);
    assert_eq!(
        (shards.metadata("format"), shards.metadata("other")),
        (Some("mlx"), None)
    );
}

#[test]
fn says_when_there_are_no_weights() {
    let directory = tempfile::tempdir().unwrap();
    assert!(
        message(directory.path())
            .contains("found no file of weights; the download may be incomplete")
    );
    std::fs::write(directory.path().join("pytorch_model.bin"), b"x").unwrap();
    std::fs::write(directory.path().join("README.md"), b"x").unwrap();
    assert!(
        message(directory.path())
            .contains("found \"pytorch_model.bin\"; these are not in MLX format")
    );
    let absent = directory.path().join("absent");
    assert!(matches!(open(&absent), Err(CheckpointError::Io { .. })));
}

#[test]
fn an_index_must_agree_with_its_shards() {
    let absent = sharded(Some(&place("q", FIRST)));
    assert!(
        matches!(open(absent.path()), Err(CheckpointError::NotInShard { tensor, .. }) if tensor == "q")
    );
    let elsewhere = sharded(Some(&[place("z", FIRST), place("a", SECOND)].join(",")));
    assert!(
        matches!(open(elsewhere.path()), Err(CheckpointError::NotInShard { tensor, .. }) if tensor == "a")
    );
    let twice = sharded(Some(&[place("z", FIRST), place("z", SECOND)].join(",")));
    assert!(message(twice.path()).contains("duplicate key \"z\""));
    let other = "model-00003-of-00003.safetensors";
    let missing = sharded(Some(
        &[place("z", FIRST), place("a", other), place("b", other)].join(","),
    ));
    match open(missing.path()) {
        Err(CheckpointError::ShardMissing {
            shard, tensors: 2, ..
        }) => assert_eq!(shard, other),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_index_must_be_one() {
    for (index, expected) in [
        ("", "EOF"),
        ("[1]", "invalid type"),
        ("{}", "missing field `weight_map`"),
        (r#"{"weight_map":{}}"#, "names no tensor"),
        (r#"{"weight_map":{"a":1}}"#, "\"a\": invalid type"),
    ] {
        let directory = sharded(None);
        std::fs::write(directory.path().join(INDEX), index).unwrap();
        let message = message(directory.path());
        assert!(
            message.contains(INDEX) && message.contains(expected),
            "{index}: {message}"
        );
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let directory = sharded(None);
    std::fs::write(
        directory.path().join("model-fp16.safetensors"),
        file(&[("a", Dtype::F16, &[1])]),
    )
    .unwrap();
    let message = message(directory.path());
    assert!(
        message.contains("tensor \"a\" is in both") && message.contains("model-fp16.safetensors"),
        "{message}"
    );
}

#[test]
fn a_bad_shard_is_named() {
    let directory = sharded(None);
    let path = directory.path().join(SECOND);
    let whole = std::fs::read(&path).unwrap();
    for bytes in [&whole[..whole.len() - 1], &whole[..20], &[]] {
        std::fs::write(&path, bytes).unwrap();
        let message = message(directory.path());
        assert!(
            message.contains(SECOND) && message.contains("truncated; download it again"),
            "{message}"
        );
    }
}

proptest! {
    #[test]
    fn hostile_shard_names_are_refused(name in prop_oneof![
        "(\\.\\./){1,3}[a-z]{1,8}\\.safetensors",
        "/[a-z]{0,4}/?[a-z]{1,8}\\.safetensors",
        "[a-z]{1,4}[/\\\\][a-z]{1,8}\\.safetensors",
        "\\./[a-z]{1,8}\\.safetensors",
        "[a-z]{1,4}\0\\.safetensors",
        "[a-z]{0,4}/\\.\\./.{0,4}",
        Just(String::new()), Just(".".to_owned()), Just("..".to_owned()),
        Just("config.json".to_owned()), Just("/dev/zero".to_owned()), Just(format!("{FIRST}/")),
    ]) {
        let map = [place("z", FIRST), place("evil", &name)].join(",");
        let directory = sharded(Some(&map));
        match open(directory.path()) {
            Err(CheckpointError::ShardName { shard, tensor, .. }) => {
                prop_assert_eq!((shard, tensor), (name, "evil".to_owned()));
            }
            other => panic!("{name:?}: {other:?}"),
        }
    }

    #[test]
    fn any_shard_name_stays_inside_the_directory(name in "[./\\\\a~:\0-]{0,6}(\\.safetensors)?") {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("model");
        std::fs::create_dir(&inner).unwrap();
        // Whatever a name could reach one level up is a good shard, so that reading it would succeed.
        for reached in ["a.safetensors", ".safetensors", "aa.safetensors", "~a.safetensors"] {
            std::fs::write(outer.path().join(reached), file(&[("w", Dtype::U8, &[1])])).unwrap();
        }
        std::fs::write(inner.join(INDEX), format!(r#"{{"weight_map":{{{}}}}}"#, place("w", &name))).unwrap();
        let result = open(&inner);
        prop_assert!(
            matches!(result, Err(CheckpointError::ShardName { .. } | CheckpointError::ShardMissing { .. })),
            "{:?}: {:?}", name, result
        );
    }

    #[test]
    fn tensors_read_back_from_any_split(sizes in prop::collection::vec((0..3usize, 0..5usize), 1..12)) {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..sizes.len()).map(|i| format!("t{i}")).collect();
        for shard in 0..3 {
            let shapes: Vec<_> = names.iter().zip(&sizes).filter(|(_, (s, _))| *s == shard).collect();
            let tensors: Vec<_> =
                shapes.iter().map(|(name, (_, n))| (name.as_str(), Dtype::U16, std::slice::from_ref(n))).collect();
            std::fs::write(directory.path().join(format!("model-{shard}.safetensors")), file(&tensors)).unwrap();
        }
        let shards = open(directory.path()).unwrap();
        prop_assert_eq!(shards.len(), sizes.len());
        prop_assert_eq!(shards.iter().count(), sizes.len());
        for (name, (shard, n)) in names.iter().zip(&sizes) {
            let tensor = shards.get(name).unwrap();
            prop_assert_eq!((tensor.shape, tensor.bytes.len()), (&[*n][..], 2 * n));
            let file = format!("model-{shard}.safetensors");
            prop_assert_eq!(shards.shard_of(name), Some(file.as_str()));
        }
        prop_assert_eq!(shards.total_bytes(), sizes.iter().map(|(_, n)| 2 * *n as u64).sum::<u64>());
    }
}
