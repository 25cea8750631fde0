//! What is chosen, without a model.

use super::*;

fn found(name: &str, shape: &[usize], kind: Kind) -> Found {
    Found {
        name: name.into(),
        shape: shape.into(),
        kind,
    }
}

fn dense(name: &str, shape: &[usize], packing: Packing) -> Found {
    found(name, shape, Kind::Dense(Dtype::Bfloat16, packing))
}

fn scheme(mode: QuantMode, bits: usize, group_size: usize) -> Scheme {
    Scheme {
        group_size,
        bits,
        mode,
    }
}

fn recipe(scheme: Scheme) -> Option<Recipe> {
    Some(Recipe {
        scheme,
        mixed: None,
    })
}

const AFFINE: Scheme = Scheme {
    group_size: 64,
    bits: 4,
    mode: QuantMode::Affine,
};

/// `name type shape` of each tensor.
fn written(action: &Action) -> Vec<String> {
    let entries = action.entries.iter();
    entries
        .map(|e| format!("{} {} {:?}", e.name, e.dtype, e.shape))
        .collect()
}

#[test]
fn matrices_become_what_their_mode_has() {
    let model = [dense("a", &[3, 10, 128], Packing::Usual)];
    let of = |cast, scheme| {
        let actions = choose(&model, cast, false, recipe(scheme)).unwrap();
        written(&actions[0])
    };
    assert_eq!(
        of(None, AFFINE),
        [
            "a.weight U32 [3, 10, 16]",
            "a.scales BF16 [3, 10, 2]",
            "a.biases BF16 [3, 10, 2]"
        ]
    );
    assert_eq!(
        of(Some(Dtype::Float16), scheme(QuantMode::Affine, 3, 32)),
        [
            "a.weight U32 [3, 10, 12]",
            "a.scales F16 [3, 10, 4]",
            "a.biases F16 [3, 10, 4]"
        ]
    );
    assert_eq!(
        of(None, scheme(QuantMode::Nvfp4, 4, 16)),
        ["a.weight U32 [3, 10, 16]", "a.scales U8 [3, 10, 8]"]
    );
}

#[test]
fn what_is_not_to_be_packed_is_not() {
    let model = [
        dense("packed", &[8, 64], Packing::Usual),
        dense("uneven", &[8, 96], Packing::Usual),
        dense("gate", &[8, 64], Packing::Never),
        dense("router", &[8, 64], Packing::EightBits),
        found("norm", &[64], Kind::Other(Dtype::Bfloat16, false)),
        found("A_log", &[8], Kind::Other(Dtype::Float32, true)),
        found("ids", &[8], Kind::Other(Dtype::Int32, false)),
    ];
    let actions = choose(&model, Some(Dtype::Float16), false, recipe(AFFINE)).unwrap();
    let pack: Vec<_> = actions.iter().map(|a| a.pack).collect();
    let none = None;
    let expected = [Some(AFFINE), none, none, Some(EIGHT_BITS), none, none, none];
    assert_eq!(pack, expected);
    let named: Vec<bool> = actions.iter().map(|a| a.own_way).collect();
    assert_eq!(named, [false, false, false, true, false, false, false]);
    let types: Vec<&str> = actions.iter().map(|a| a.entries[0].dtype.name()).collect();
    assert_eq!(types, ["U32", "F16", "F16", "U32", "F16", "F32", "I32"]);

    let message = choose(&model[1..3], None, false, recipe(AFFINE)).unwrap_err();
    assert!(message.to_string().contains("--q-group-size"), "{message}");
    // Groups of 32 divide it, those of the way that it must have do not.
    let uneven = [dense("x.router", &[8, 96], Packing::EightBits)];
    let small = recipe(scheme(QuantMode::Mxfp4, 4, 32));
    let message = choose(&uneven, None, false, small).unwrap_err();
    assert!(message.to_string().contains("x.router"), "{message}");
}

#[test]
fn packed_matrices_stay_or_are_unpacked() {
    let mxfp4 = scheme(QuantMode::Mxfp4, 4, 32);
    let kinds = [
        Kind::Packed(Dtype::Float16, AFFINE, Packing::Usual),
        Kind::Packed(Dtype::Uint8, mxfp4, Packing::Usual),
    ];
    let model = kinds.map(|kind| found("m", &[4, 64], kind));
    let of = |cast, unpack, recipe| {
        let actions = choose(&model, cast, unpack, recipe).unwrap();
        actions.iter().flat_map(written).collect::<Vec<_>>()
    };
    assert_eq!(
        of(Some(Dtype::Bfloat16), false, None),
        [
            "m.weight U32 [4, 8]",
            "m.scales BF16 [4, 1]",
            "m.biases BF16 [4, 1]",
            "m.weight U32 [4, 8]",
            "m.scales U8 [4, 2]"
        ]
    );
    let unpacked = ["m.weight F16 [4, 64]", "m.weight BF16 [4, 64]"];
    assert_eq!(of(None, true, None), unpacked);
    // As mlx-lm has it: what has no scales of a float's type becomes bfloat16 whatever is asked for.
    let unpacked = ["m.weight F32 [4, 64]", "m.weight BF16 [4, 64]"];
    assert_eq!(of(Some(Dtype::Float32), true, None), unpacked);
    assert_eq!(of(None, true, recipe(mxfp4)).len(), 4);
    let message = choose(&model, None, false, recipe(AFFINE)).unwrap_err();
    let message = message.to_string();
    assert!(
        message.contains("affine, 4 bits, groups of 64"),
        "{message}"
    );
}

#[test]
fn mixed_recipes_give_more_bits_to_what_matters() {
    let names = ["mlp.down_proj", "self_attn.v_proj", "self_attn.q_proj"];
    let mut model = Vec::new();
    for layer in 0..16 {
        let of_layer = names.iter().map(|name| {
            let path = format!("model.layers.{layer}.{name}");
            dense(&path, &[8, 64], Packing::Usual)
        });
        model.extend(of_layer);
    }
    model.push(dense("model.embed_tokens", &[8, 64], Packing::Usual));
    model.push(dense("lm_head", &[8, 64], Packing::EightBits));
    let mixed = Some(Recipe {
        scheme: AFFINE,
        mixed: Some(Mixed { low: 2, high: 6 }),
    });
    let actions = choose(&model, None, false, mixed).unwrap();
    let high: Vec<&str> = actions
        .iter()
        .filter(|a| a.pack.is_some_and(|scheme| scheme.bits == 6))
        .map(|a| a.name.as_str())
        .collect();
    let mut expected = Vec::new();
    for layer in [0, 1, 4, 7, 10, 13, 14, 15] {
        expected.extend(
            names[..2]
                .iter()
                .map(|name| format!("model.layers.{layer}.{name}")),
        );
    }
    expected.push("lm_head".into());
    assert_eq!(high, expected);
    assert!(actions.iter().all(|a| a.own_way));
    let message = choose(&model[48..], None, false, mixed).unwrap_err();
    assert!(message.to_string().contains("down_proj"), "{message}");
}

#[test]
fn parameters_of_modules_with_modules_in_them_are_not_counted() {
    let model = [
        dense("layers.0.attn.q_proj", &[8, 64], Packing::Usual),
        found(
            "layers.0.attn.q_proj.bias",
            &[8],
            Kind::Other(Dtype::Float32, false),
        ),
        found(
            "layers.0.attn.sinks",
            &[4],
            Kind::Other(Dtype::Float32, false),
        ),
        found(
            "layers.0.norm.weight",
            &[64],
            Kind::Other(Dtype::Float32, false),
        ),
    ];
    let actions = choose(&model, None, false, recipe(AFFINE)).unwrap();
    assert_eq!(parameters(&actions), 8 * 64 + 8 + 64);
}
