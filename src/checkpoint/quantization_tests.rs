//! Which modules are quantized and how, and what is refused.

use proptest::prelude::*;

use super::*;

fn read_json(json: &str) -> Result<Option<Quantization>> {
    Quantization::new(&Config::parse("config.json", json.as_bytes()).unwrap())
}

fn of(quantization: &str) -> Result<Quantization> {
    read_json(&format!(r#"{{"quantization": {quantization}}}"#)).map(Option::unwrap)
}

fn scheme_of(group_size: usize, bits: usize, mode: QuantMode) -> Option<Scheme> {
    Some(Scheme {
        group_size,
        bits,
        mode,
    })
}

#[test]
fn affine_is_the_default_mode_for_every_path() {
    let q = of(r#"{"group_size": 64, "bits": 4}"#).unwrap();
    assert_eq!(
        q.for_path("model.layers.0.self_attn.q_proj"),
        scheme_of(64, 4, QuantMode::Affine)
    );
    assert_eq!(Some(q.default_scheme()), q.for_path("lm_head"));
    assert_eq!(q.overrides().count(), 0);
}

#[test]
fn overrides_hold_for_their_exact_path() {
    let q = of(
        r#"{"group_size": 64, "bits": 4, "mode": "affine", "lm_head": false, "a.b": {"group_size": 32, "bits": 8},
        "c": true, "d": {"bits": 6, "quantize_input": false}, "e": null,
        "quantize_input": false}"#,
    )
    .unwrap();
    assert_eq!(q.for_path("lm_head"), None);
    assert_eq!(q.for_path("a.b"), scheme_of(32, 8, QuantMode::Affine));
    assert_eq!(q.for_path("a"), scheme_of(64, 4, QuantMode::Affine));
    assert_eq!(q.for_path("a.b.c"), scheme_of(64, 4, QuantMode::Affine));
    assert_eq!(q.for_path("c"), scheme_of(64, 4, QuantMode::Affine));
    assert_eq!(q.for_path("d"), scheme_of(64, 6, QuantMode::Affine));
    assert_eq!(q.for_path("e"), None);
    assert_eq!(
        q.overrides().map(|(path, _)| path).collect::<Vec<_>>(),
        ["a.b", "c", "d", "e", "lm_head"]
    );
}

#[test]
fn an_override_without_mode_is_affine_whatever_the_rest_is() {
    let q = of(
        r#"{"group_size": 32, "bits": 4, "mode": "mxfp4", "q": {"group_size": 64, "bits": 8}, "r": {"bits": 8},
        "s": {"mode": "nvfp4"}}"#,
    )
    .unwrap();
    assert_eq!(q.for_path("experts"), scheme_of(32, 4, QuantMode::Mxfp4));
    assert_eq!(q.for_path("q"), scheme_of(64, 8, QuantMode::Affine));
    assert_eq!(q.for_path("r"), scheme_of(64, 8, QuantMode::Affine));
    assert_eq!(q.for_path("s"), scheme_of(16, 4, QuantMode::Nvfp4));
    assert!(QuantMode::Affine.has_biases() && !QuantMode::Nvfp4.has_biases());
}

#[test]
fn found_in_every_place_it_is_written() {
    let four = r#"{"group_size": 64, "bits": 4}"#;
    for json in [
        format!(r#"{{"quantization_config": {four}}}"#),
        format!(r#"{{"quantization": null, "quantization_config": {four}}}"#),
        format!(
            r#"{{"quantization": {four}, "quantization_config": {{"quant_method": "mxfp4"}}}}"#
        ),
        format!(r#"{{"text_config": {{"quantization": {four}}}}}"#),
    ] {
        assert_eq!(
            read_json(&json).unwrap().unwrap().for_path("x"),
            scheme_of(64, 4, QuantMode::Affine),
            "{json}"
        );
    }
    assert_eq!(read_json("{}").unwrap(), None);
    assert_eq!(read_json(r#"{"quantization": null}"#).unwrap(), None);
}

#[test]
fn hugging_faces_4_bit_floats_are_mlxs() {
    let json = r#"{"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}"#;
    let q = read_json(json).unwrap().unwrap();
    assert_eq!(
        q.default_scheme(),
        scheme_of(32, 4, QuantMode::Mxfp4).unwrap()
    );
    assert_eq!(q.overrides().count(), 0);
}

#[test]
fn eight_bit_floats_are_left_to_the_tensors_if_their_blocks_are_known() {
    let of = |rest: &str| {
        read_json(&format!(
            r#"{{"quantization_config": {{"quant_method": "fp8"{rest}}}}}"#
        ))
    };
    for rest in ["", r#", "fmt": "e4m3", "activation_scheme": "dynamic""#] {
        let rest = format!(r#"{rest}, "weight_block_size": [128, 128]"#);
        assert_eq!(of(&rest).unwrap(), None);
    }
    for (rest, word) in [
        ("", "weight_block_size"),
        (r#", "weight_block_size": [32, 32]"#, "[128, 128]"),
        (
            r#", "weight_block_size": [128, 128], "fmt": "e5m2""#,
            "e5m2",
        ),
    ] {
        let message = of(rest).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn other_methods_are_refused_by_name() {
    for method in ["gptq", "awq", "mxfp8", "bitsandbytes", "compressed-tensors"] {
        for place in ["quantization_config", "quantization"] {
            let json = format!(
                r#"{{"{place}": {{"quant_method": "{method}", "bits": 4, "group_size": 128}}}}"#
            );
            let message = read_json(&json).unwrap_err().to_string();
            assert!(message.contains(&format!(
                "{place}.quant_method says the weights are quantized by \"{method}\""
            )));
            assert!(message.contains("use an MLX conversion"), "{message}");
        }
    }
    let unnamed = read_json(r#"{"quantization_config": {"load_in_4bit": true}}"#)
        .unwrap_err()
        .to_string();
    assert!(
        unnamed.contains("quantization_config is an object, expected MLX's group_size and bits"),
        "{unnamed}"
    );
    let nested = read_json(r#"{"text_config": {"quantization_config": {"quant_method": "x"}}}"#)
        .unwrap_err();
    assert!(
        nested
            .to_string()
            .contains("text_config.quantization_config.quant_method"),
        "{nested}"
    );
}

#[test]
fn wrong_values_are_named_with_the_accepted_ones() {
    for (quantization, expected) in [
        (
            r#"{"group_size": 64, "bits": 7}"#,
            "quantization.bits is 7, expected 2, 3, 4, 5, 6, 8 for mode affine",
        ),
        (
            r#"{"group_size": 16, "bits": 4}"#,
            "quantization.group_size is 16, expected 32, 64, 128 for mode affine",
        ),
        (
            r#"{"group_size": 64, "bits": 4, "mode": "mxfp4"}"#,
            "quantization.group_size is 64, expected 32 for mode mxfp4",
        ),
        (
            r#"{"group_size": 32, "bits": 4, "mode": "mxfp8"}"#,
            "quantization.bits is 4, expected 8 for mode mxfp8",
        ),
        (
            r#"{"group_size": 64, "bits": 4, "mode": "gguf"}"#,
            r#"quantization.mode is "gguf", expected one of affine, mxfp4, mxfp8, nvfp4"#,
        ),
        (r#"{"group_size": 64}"#, "quantization.bits is missing"),
        (r#"{"bits": 4}"#, "quantization.group_size is missing"),
        (
            r#"{"group_size": "64", "bits": 4}"#,
            r#"quantization.group_size is "64", expected a whole number"#,
        ),
        (
            r#"{"group_size": 64, "bits": 4, "a.b": 8}"#,
            "quantization.a.b is 8, expected false, or an object",
        ),
        (
            r#"{"group_size": 64, "bits": 4, "a.b": {"bits": 1}}"#,
            "quantization.a.b.bits is 1, expected 2, 3",
        ),
        (
            r#"{"group_size": 64, "bits": 4, "a": {"rank": 1}}"#,
            "quantization.a.rank is 1, expected false, or not there: only group_size",
        ),
        (
            r#"{"group_size": 64, "bits": 4, "a": {"global_scale": true}}"#,
            "quantization.a.global_scale is true",
        ),
        (
            r#"{"group_size": 64, "bits": 4, "quantize_input": true}"#,
            "quantization.quantize_input is true",
        ),
        (r#"[]"#, "quantization is a list of 0, expected an object"),
    ] {
        let message = of(quantization).unwrap_err().to_string();
        assert!(
            message.starts_with("config.json: ") && message.contains(expected),
            "{quantization}: {message}"
        );
    }
}

proptest! {
    #[test]
    fn schemes_are_ones_that_mlx_takes(group_size in 0..200usize, bits in 0..12usize, mode in "affine|mxfp4|mxfp8|nvfp4") {
        let accepted = match mode.as_str() {
            "affine" => [32, 64, 128].contains(&group_size) && [2, 3, 4, 5, 6, 8].contains(&bits),
            "mxfp4" => (group_size, bits) == (32, 4),
            "mxfp8" => (group_size, bits) == (32, 8),
            _ => (group_size, bits) == (16, 4),
        };
        let own = format!(r#"{{"group_size": {group_size}, "bits": {bits}, "mode": "{mode}"}}"#);
        prop_assert_eq!(of(&own).is_ok(), accepted);
        let nested = of(&format!(r#"{{"group_size": 64, "bits": 4, "m": {own}}}"#));
        prop_assert_eq!(nested.is_ok(), accepted);
        if let Ok(q) = nested {
            let scheme = q.for_path("m").unwrap();
            prop_assert_eq!((scheme.group_size, scheme.bits, scheme.mode.name()), (group_size, bits, mode.as_str()));
        }
    }
}
