//! What becomes of each parameter: which matrices are packed and how, what is cast, and so which tensors
//! are written. Nothing here reads a tensor.
//!
//! The rules are those of mlx-lm's `utils.py` (`quantize_model`) and `convert.py` (its recipes).

use crate::checkpoint::write::Entry;
use crate::checkpoint::{Dtype as Stored, LoadError, LoadResult, Packing, Scheme};
use crate::mlx::{Dtype, QuantMode};

/// How 8-bit matrices are packed that few bits would spoil.
const EIGHT_BITS: Scheme = Scheme {
    group_size: 64,
    bits: 8,
    mode: QuantMode::Affine,
};

/// A recipe of two widths: matrices that matter more get the higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mixed {
    /// Bits of most matrices.
    pub low: usize,
    /// Bits of the others.
    pub high: usize,
}

impl Mixed {
    /// mlx-lm's recipes by name.
    pub const ALL: [(&'static str, Mixed); 4] = [
        ("mixed_2_6", Mixed { low: 2, high: 6 }),
        ("mixed_3_4", Mixed { low: 3, high: 4 }),
        ("mixed_3_6", Mixed { low: 3, high: 6 }),
        ("mixed_4_6", Mixed { low: 4, high: 6 }),
    ];

    /// The bits of the matrix at `path`: more for values and for what leaves the feed-forward layers in the
    /// first and the last eighth of the layers and in every third between, and for the output layer.
    fn bits(self, path: &str, layers: Layers) -> usize {
        let part = path.split('.').nth(layers.place);
        let layer = part.and_then(|part| part.parse().ok()).unwrap_or(0usize);
        let (n, eighth) = (layers.count, layers.count / 8);
        let more = layer < eighth || layer >= 7 * n / 8 || (layer - eighth) % 3 == 2;
        let named = |parts: &[&str]| parts.iter().any(|part| path.contains(part));
        let high = more && named(&["v_proj", "v_a_proj", "v_b_proj", "down_proj"]);
        match high || named(&["lm_head"]) {
            true => self.high,
            false => self.low,
        }
    }
}

/// Where in a path the layer's number is, and how many layers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layers {
    place: usize,
    count: usize,
}

impl Layers {
    /// By the paths of the projections that leave feed-forward layers; none where there are none.
    fn of(found: &[Found]) -> Option<Self> {
        let number = |part: &str| part.parse::<usize>().ok();
        let mut down = found.iter().filter(|f| f.name.contains("down_proj"));
        let parts = down.next()?.name.split('.');
        let place = parts.clone().position(|part| number(part).is_some());
        let place = place.unwrap_or(parts.count() - 1);
        let layer = |f: &Found| f.name.split('.').nth(place).and_then(number);
        let count = found.iter().filter_map(layer).max();
        Some(Self {
            place,
            count: count.map_or(0, |last| last.saturating_add(1)),
        })
    }
}

/// What is packed, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// All matrices that have no way of their own.
    pub scheme: Scheme,
    /// Widths by path; affine alone.
    pub mixed: Option<Mixed>,
}

/// A parameter as the source has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The matrix's path, or the tensor's name, as mlx-lm has it.
    pub name: String,
    /// Its shape; a matrix's unpacked.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: Kind,
}

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A matrix of this type that is not packed.
    Dense(Dtype, Packing),
    /// A packed matrix, with scales of this type.
    Packed(Dtype, Scheme, Packing),
    /// Anything else of this type; perhaps never cast.
    Other(Dtype, bool),
}

/// What is done with a parameter, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// As [`Found::name`].
    pub name: String,
    /// The type that its floats are cast to.
    pub cast: Option<Dtype>,
    /// Whether it is unpacked.
    pub unpack: bool,
    /// How it is packed.
    pub pack: Option<Scheme>,
    /// Whether the recipe has a way of its own for it, as config.json then says.
    pub own_way: bool,
    /// The tensors that it becomes: the matrix, its scales, its biases; or itself.
    pub entries: Vec<Entry>,
    /// Numbers in it: those of a matrix unpacked.
    pub parameters: u64,
}

/// What is to be done with the parameters `found`: floats cast to `cast`, packed matrices unpacked if
/// `unpack`, and matrices packed by `recipe`.
///
/// # Errors
/// If the recipe cannot be applied to these parameters.
pub fn choose(
    found: &[Found],
    cast: Option<Dtype>,
    unpack: bool,
    recipe: Option<Recipe>,
) -> LoadResult<Vec<Action>> {
    let layers = Layers::of(found);
    if layers.is_none() && recipe.is_some_and(|recipe| recipe.mixed.is_some()) {
        return Err(LoadError::Unsupported(
            "a mixed recipe gives down_proj more bits, but this architecture has none; leave out \
             --quant-predicate"
                .into(),
        ));
    }
    let actions = found.iter().map(|found| match found.kind {
        Kind::Other(dtype, keeps_type) => {
            let cast = cast.filter(|_| dtype.is_float() && !keeps_type);
            let entry = entry(&found.name, &found.shape, cast.unwrap_or(dtype))?;
            Ok(Action::new(found, cast, false, None, vec![entry]))
        }
        Kind::Packed(scales, scheme, _) if !unpack => {
            let cast = cast.filter(|_| scales.is_float());
            let entries = packed(found, scheme, cast.unwrap_or(scales))?;
            Ok(Action::new(found, cast, false, None, entries))
        }
        Kind::Packed(scales, scheme, packing) => {
            let cast = cast.filter(|_| scales.is_float());
            let dtype = match scheme.mode.has_biases() {
                true => cast.unwrap_or(scales),
                false => Dtype::Bfloat16,
            };
            dense(found, cast, true, dtype, packing, recipe, layers)
        }
        Kind::Dense(dtype, packing) => {
            let dtype_after = cast.unwrap_or(dtype);
            dense(found, cast, false, dtype_after, packing, recipe, layers)
        }
    });
    let actions = actions.collect::<LoadResult<Vec<_>>>()?;
    if recipe.is_some() && !actions.iter().any(|action| action.pack.is_some()) {
        return Err(nothing_to_pack(found));
    }
    Ok(actions)
}

fn nothing_to_pack(found: &[Found]) -> LoadError {
    let scheme = found.iter().find_map(|found| match found.kind {
        Kind::Packed(_, scheme, _) => Some(scheme),
        _ => None,
    });
    LoadError::Unsupported(match scheme {
        Some(Scheme {
            group_size,
            bits,
            mode,
        }) => format!(
            "the model is quantized already ({mode}, {bits} bits, groups of {group_size}); use \
             --requantize to quantize it anew, which loses a little more, or better start from the \
             original model; -d unpacks it"
        ),
        None => "no matrix has rows that groups of this size divide; try a smaller --q-group-size"
            .into(),
    })
}

/// What is done with a matrix that is not packed, or not any more.
fn dense(
    found: &Found,
    cast: Option<Dtype>,
    unpack: bool,
    dtype: Dtype,
    packing: Packing,
    recipe: Option<Recipe>,
    layers: Option<Layers>,
) -> LoadResult<Action> {
    let inner = found.shape.last().copied().unwrap_or(0);
    let wanted = recipe.filter(|recipe| {
        packing != Packing::Never && inner > 0 && inner.is_multiple_of(recipe.scheme.group_size)
    });
    let Some(recipe) = wanted else {
        let entries = vec![entry(&part(found, "weight"), &found.shape, dtype)?];
        return Ok(Action::new(found, cast, unpack, None, entries));
    };
    let (scheme, own_way) = match (recipe.mixed, layers, packing) {
        (Some(mixed), Some(layers), _) => {
            let bits = mixed.bits(&found.name, layers);
            let scheme = Scheme {
                bits,
                ..recipe.scheme
            };
            (scheme, true)
        }
        (_, _, Packing::EightBits) => (EIGHT_BITS, true),
        _ => (recipe.scheme, false),
    };
    if !inner.is_multiple_of(scheme.group_size) {
        return Err(LoadError::Unsupported(format!(
            "{} has rows of {inner}, but is to be packed by {}, as mlx-lm does with this part of the \
             architecture; use --q-group-size {} or leave it unquantized",
            found.name, scheme.group_size, scheme.group_size
        )));
    }
    let scales = match scheme.mode.has_biases() {
        true => dtype,
        false => Dtype::Uint8,
    };
    let entries = packed(found, scheme, scales)?;
    Ok(Action {
        own_way,
        ..Action::new(found, cast, unpack, Some(scheme), entries)
    })
}

impl Action {
    fn new(
        found: &Found,
        cast: Option<Dtype>,
        unpack: bool,
        pack: Option<Scheme>,
        entries: Vec<Entry>,
    ) -> Self {
        let shape = found.shape.iter();
        Self {
            name: found.name.clone(),
            cast,
            unpack,
            pack,
            own_way: false,
            entries,
            parameters: shape.fold(1, |n: u64, &dim| n.saturating_mul(dim as u64)),
        }
    }

    /// The module that the parameter belongs to, as mlx-lm counts.
    fn module(&self) -> &str {
        let matrix = self.entries.iter().any(|entry| entry.name != self.name);
        match (matrix, self.name.rsplit_once('.')) {
            (true, _) => &self.name,
            (false, Some((module, _))) => module,
            (false, None) => "",
        }
    }
}

/// The parameters as mlx-lm counts them: not those of modules that have modules in them.
pub fn parameters(actions: &[Action]) -> u64 {
    let mut within: std::collections::HashSet<&str> = std::collections::HashSet::new();
    for action in actions {
        let module = action.module();
        let dots = module.match_indices('.');
        within.extend(dots.map(|(at, _)| module.get(..at).unwrap_or_default()));
    }
    let counted = actions.iter().filter(|a| !within.contains(a.module()));
    counted.map(|a| a.parameters).sum()
}

/// The tensors of a packed matrix.
fn packed(found: &Found, scheme: Scheme, scales: Dtype) -> LoadResult<Vec<Entry>> {
    let inner = found.shape.last().copied().unwrap_or(0);
    let of = |last: usize| {
        let mut shape = found.shape.clone();
        shape.pop();
        shape.push(last);
        shape
    };
    let groups = of(inner / scheme.group_size.max(1));
    let words = of(inner.saturating_mul(scheme.bits) / 32);
    let mut entries = vec![
        entry(&part(found, "weight"), &words, Dtype::Uint32)?,
        entry(&part(found, "scales"), &groups, scales)?,
    ];
    if scheme.mode.has_biases() {
        entries.push(entry(&part(found, "biases"), &groups, scales)?);
    }
    Ok(entries)
}

fn part(found: &Found, last: &str) -> String {
    format!("{}.{last}", found.name)
}

fn entry(name: &str, shape: &[usize], dtype: Dtype) -> LoadResult<Entry> {
    let Some(dtype) = Stored::of_array(dtype) else {
        return Err(LoadError::Unsupported(format!(
            "{name} is {dtype}, which safetensors files cannot hold"
        )));
    };
    Ok(Entry {
        name: name.into(),
        dtype,
        shape: shape.into(),
    })
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
