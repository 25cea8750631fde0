//! Settings that many architectures read alike.

use crate::checkpoint::{CheckpointError, Config, LoadError, LoadResult};
use crate::nn::AttentionShape;

/// Checks that a setting, where it is there, has the one value that is supported.
pub(super) fn only(config: &Config, key: &str, supported: &str) -> LoadResult<()> {
    match config.str_opt(key)? {
        Some(found) if found != supported => Err(LoadError::Unsupported(format!(
            "{}: {} is {found:?}; supported is {supported}",
            config.file(),
            config.path_of(key)
        ))),
        _ => Ok(()),
    }
}

/// Reads a count that must be at least 1, such as a number of heads, and a dimension of an array, so
/// that the product of two cannot overflow.
pub(super) fn positive(config: &Config, key: &str) -> std::result::Result<usize, CheckpointError> {
    match config.usize(key)? {
        0 => Err(config.invalid(key, "at least 1")),
        n if n > i32::MAX as usize => Err(config.invalid(key, "at most 2147483647")),
        n => Ok(n),
    }
}

/// Reads an optional count; zero reads as absent, as Python's `or` has it.
pub(super) fn positive_or(
    config: &Config,
    key: &str,
    default: usize,
) -> std::result::Result<usize, CheckpointError> {
    Ok(match config.usize_opt(key)? {
        None | Some(0) => default,
        Some(_) => positive(config, key)?,
    })
}

/// The usual settings of attention, without biases: `head_dim` is `hidden_size` shared out where it
/// is absent, and so are as many key heads as query heads.
///
/// # Errors
/// If a setting is missing or zero, or the key heads do not divide the query heads.
pub(super) fn heads(config: &Config) -> LoadResult<AttentionShape> {
    let d_model = positive(config, "hidden_size")?;
    let n_heads = positive(config, "num_attention_heads")?;
    let n_kv_heads = positive_or(config, "num_key_value_heads", n_heads)?;
    if !n_heads.is_multiple_of(n_kv_heads) {
        let expected = format!("a divisor of num_attention_heads, which is {n_heads}");
        return Err(config.invalid("num_key_value_heads", expected).into());
    }
    let head_dim = positive_or(config, "head_dim", d_model / n_heads)?;
    if head_dim == 0 {
        let expected = format!("at least num_attention_heads, which is {n_heads}");
        return Err(config.invalid("hidden_size", expected).into());
    }
    Ok(AttentionShape {
        d_model,
        n_heads,
        n_kv_heads,
        head_dim,
        qkv_bias: false,
        o_bias: false,
    })
}

/// The settings with the `rope_theta` of `rope_parameters`, where there is one, in place of their own.
pub(super) fn nested_theta_first(config: &Config) -> LoadResult<Config> {
    let config = config.clone();
    let Some(parameters) = config.object("rope_parameters")? else {
        return Ok(config);
    };
    Ok(match parameters.f32_opt("rope_theta")? {
        Some(theta) => config.with("rope_theta", theta),
        None => config,
    })
}

/// How many positions each layer's queries see, by `layer_types` and `sliding_window`: none for full
/// attention. Empty where there are no `layer_types`.
///
/// # Errors
/// If a type is neither `full_attention` nor `sliding_attention`, or there are fewer types than
/// layers.
pub(super) fn windows(config: &Config) -> LoadResult<Vec<Option<usize>>> {
    let Some(types) = config.str_list("layer_types")? else {
        return Ok(Vec::new());
    };
    let n_layers = positive(config, "num_hidden_layers")?;
    if types.len() < n_layers {
        let expected = format!("a type for each of {n_layers} layers");
        return Err(config.invalid("layer_types", expected).into());
    }
    let window = |kind: &&str| match *kind {
        "full_attention" => Ok(None),
        "sliding_attention" => Ok(Some(positive(config, "sliding_window")?)),
        other => Err(LoadError::Unsupported(format!(
            "{}: layer_types has {other:?}; supported are full_attention and sliding_attention",
            config.file()
        ))),
    };
    types.iter().map(window).collect()
}

/// Features of a head that turn: the share `partial_rotary_factor`, which stands by itself or in
/// `rope_parameters`.
///
/// # Errors
/// If there is neither a share nor a default, or no even number of features would turn.
pub(super) fn rotary_dims(
    config: &Config,
    head_dim: usize,
    default: Option<f64>,
) -> LoadResult<usize> {
    let key = "partial_rotary_factor";
    let nested = config.object("rope_parameters")?;
    let place = nested
        .as_ref()
        .filter(|nested| config.value(key).is_none() && nested.value(key).is_some())
        .unwrap_or(config);
    let share = match place.value(key) {
        Some(share) => share.as_f64(),
        None => default,
    };
    // In float64 as Python does, so that 0.7 of 10 is 7.
    let dims = share
        .filter(|share| (0.0..=1.0).contains(share))
        .map(|share| (head_dim as f64 * share) as usize);
    match dims {
        Some(dims) if dims > 0 && dims.is_multiple_of(2) => Ok(dims),
        _ => {
            let expected =
                format!("a share of a head's {head_dim} features that is an even number");
            Err(place.invalid(key, expected).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(json: &str, default: Option<f64>) -> Option<usize> {
        let config = Config::parse("config.json", json.as_bytes()).unwrap();
        rotary_dims(&config, 10, default).ok()
    }

    #[test]
    fn an_even_number_of_features_turns() {
        assert_eq!(dims(r#"{"partial_rotary_factor": 0.4}"#, None), Some(4));
        assert_eq!(dims("{}", Some(1.0)), Some(10));
        assert_eq!(dims("{}", None), None);
        for refused in ["0.3", "0", "-0.5", "1.2", "NaN", "1e300", "\"0.4\"", "true"] {
            let json = format!(r#"{{"partial_rotary_factor": {refused}}}"#);
            assert_eq!(dims(&json, Some(1.0)), None, "{json}");
        }
    }

    #[test]
    fn the_share_stands_by_itself_or_in_rope_parameters() {
        let nested = r#""rope_parameters": {"partial_rotary_factor": 0.4}"#;
        assert_eq!(dims(&format!("{{{nested}}}"), Some(1.0)), Some(4));
        let both = format!(r#"{{"partial_rotary_factor": 0.8, {nested}}}"#);
        assert_eq!(dims(&both, None), Some(8));
    }
}
