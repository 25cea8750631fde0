//! Rotary position embeddings, with the scalings that stretch a context.
//!
//! A table holds wavelengths over 2π: feature pair i turns by `position / table[i]` (Su et al.,
//! 2021; llama3: Meta's Llama 3.1 reference; yarn: Peng et al., 2023; longrope: Ding et al., 2024;
//! proportional: Gemma 4, 2026). Setting names and defaults
//! are those of Hugging Face's configurations as mlx-lm's `rope_utils` reads them.

use std::f32::consts::PI;

use crate::cache::Batch;
use crate::checkpoint::{Config, LoadError, LoadResult};
use crate::mlx::{self, Array, RopeFreqs};

const MOST_DIMS: usize = 65_536;

/// What a rotary embedding needs to know beside the scaling.
#[derive(Clone, Copy, Debug)]
pub struct RopeShape {
    /// Features of a head that turn.
    pub dims: usize,
    /// The base of the wavelengths where the configuration names none.
    pub default_theta: Option<f32>,
    /// Whether neighbouring features form pairs, instead of i and i + dims/2.
    pub traditional: bool,
}

/// A rotary embedding.
#[derive(Clone, Debug)]
pub struct Rope {
    dims: i32,
    traditional: bool,
    freqs: RopeFreqs,
    /// Positions are multiplied by it.
    scale: f32,
    /// Queries and keys are multiplied by it first (yarn's and longrope's attention temperature).
    mscale: f32,
}

impl Rope {
    /// Without scaling.
    pub fn plain(dims: usize, theta: f32, traditional: bool) -> Self {
        Self {
            dims: dims as i32,
            traditional,
            freqs: RopeFreqs::Base(theta),
            scale: 1.0,
            mscale: 1.0,
        }
    }

    /// From `rope_theta` with `rope_scaling`, or from `rope_parameters`, which has both.
    ///
    /// # Errors
    /// If the type is unknown, or a setting is missing or of the wrong kind.
    pub fn load(config: &Config, shape: RopeShape) -> LoadResult<Self> {
        match Self::with_scaling(config, shape)? {
            (plain, None) => Ok(plain),
            (plain, Some(scaling)) => plain.scaled(config, &scaling),
        }
    }

    /// The same for architectures that know no scaling.
    ///
    /// # Errors
    /// If the configuration asks for one, or a setting is missing or of the wrong kind.
    pub fn load_plain(config: &Config, shape: RopeShape) -> LoadResult<Self> {
        let (plain, scaling) = Self::with_scaling(config, shape)?;
        if let Some(scaling) = scaling
            && rope_type(&scaling)? != "default"
        {
            return Err(unsupported(&scaling, "default for this architecture")?);
        }
        Ok(plain)
    }

    /// Without scaling, and the settings of the scaling that `config` asks for.
    ///
    /// # Errors
    /// If a setting is missing or of the wrong kind.
    pub fn with_scaling(config: &Config, shape: RopeShape) -> LoadResult<(Self, Option<Config>)> {
        let parameters = config.object("rope_parameters")?;
        let nested = parameters
            .as_ref()
            .map(|p| p.f32_opt("rope_theta"))
            .transpose()?;
        let theta = config.f32_opt("rope_theta")?.or(nested.flatten());
        let Some(theta) = theta.or(shape.default_theta) else {
            return Err(config
                .invalid("rope_theta", "the base of the rotary embedding")
                .into());
        };
        check(config, shape.dims)?;
        let plain = Self::plain(shape.dims, theta, shape.traditional);
        Ok((plain, config.object("rope_scaling")?.or(parameters)))
    }

    /// With the scaling that an object of `config` asks for, whose `type` or `rope_type` says which.
    ///
    /// # Errors
    /// If the type is unknown, or a setting is missing or of the wrong kind.
    pub fn scaled(mut self, config: &Config, scaling: &Config) -> LoadResult<Self> {
        let dims = self.dims as usize;
        check(config, dims)?;
        let RopeFreqs::Base(theta) = self.freqs else {
            return Ok(self);
        };
        match rope_type(scaling)? {
            // Sections of mrope differ for images only; the positions of text are the same in all.
            "default" | "mrope" => {}
            "linear" => self.scale = 1.0 / scaling.f32("factor")?,
            "llama3" => self.freqs = table(&llama3(scaling, dims, theta)?)?,
            "yarn" | "deepseek_yarn" | "telechat3-yarn" => {
                let (wavelengths, mscale) = yarn(scaling, dims, theta)?;
                self.freqs = table(&wavelengths)?;
                self.mscale = mscale;
            }
            "longrope" | "su" => {
                let key = "original_max_position_embeddings";
                let original = match scaling.f32_opt(key)? {
                    Some(original) => original,
                    None => config.f32_or(key, 4096.0)?,
                };
                return self.stretched(config, scaling, original);
            }
            "proportional" => self.freqs = table(&proportional(scaling, dims, theta)?)?,
            _ => {
                let known = "default, linear, llama3, yarn, longrope, proportional and mrope";
                return Err(unsupported(scaling, known)?);
            }
        }
        Ok(self)
    }

    /// With longrope's factors in `scaling`, for a model first trained for `original` positions.
    ///
    /// # Errors
    /// If there are not as many factors as wavelengths.
    pub fn stretched(
        mut self,
        config: &Config,
        scaling: &Config,
        original: f32,
    ) -> LoadResult<Self> {
        if let RopeFreqs::Base(theta) = self.freqs {
            let dims = self.dims as usize;
            let (wavelengths, mscale) = longrope(config, scaling, original, dims, theta)?;
            self.freqs = table(&wavelengths)?;
            self.mscale = mscale;
            self.traditional = false; // As in the reference, whatever the configuration says.
        }
        Ok(self)
    }

    /// Turns `x [B, H, L, D]` by the batch's positions.
    pub fn forward(&self, x: &Array, batch: &Batch) -> mlx::Result<Array> {
        let scaled;
        let x = if self.mscale == 1.0 {
            x
        } else {
            scaled = self.scale_turning(x)?;
            &scaled
        };
        let (dims, traditional, freqs) = (self.dims, self.traditional, &self.freqs);
        // On CUDA a number from the host would be an array there for each layer.
        match batch.offset().filter(|_| !mlx::on_cuda()) {
            Some(offset) => mlx::rope(x, dims, traditional, freqs, self.scale, offset as i32),
            None => {
                let starts = batch.starts()?;
                mlx::rope_rows(x, dims, traditional, freqs, self.scale, starts)
            }
        }
    }

    /// Multiplies the features that turn, and only those, by `mscale`.
    fn scale_turning(&self, x: &Array) -> mlx::Result<Array> {
        let d = x.dim(-1)?;
        let factor = x.scalar_like(self.mscale)?;
        if d == self.dims {
            return x.multiply(&factor);
        }
        let turning = x.slice_axis(-1, 0, self.dims)?.multiply(&factor)?;
        Array::concatenate(&[&turning, &x.slice_axis(-1, self.dims, d)?], -1)
    }
}

/// Which scaling an object of settings asks for.
///
/// # Errors
/// If its name is no string.
pub fn rope_type(scaling: &Config) -> LoadResult<&str> {
    Ok(match scaling.str_opt("type")? {
        Some(kind) => kind,
        None => scaling.str_or("rope_type", "default")?,
    })
}

/// The error for a scaling that is not `supported`.
fn unsupported(scaling: &Config, supported: &str) -> LoadResult<LoadError> {
    Ok(LoadError::Unsupported(format!(
        "{}: {} is {:?}; supported are {supported}",
        scaling.file(),
        scaling.path_of("rope_type"),
        rope_type(scaling)?,
    )))
}

/// Refuses what cannot turn in pairs, and more features than any model has.
fn check(config: &Config, dims: usize) -> LoadResult<()> {
    if dims > 0 && dims.is_multiple_of(2) && dims <= MOST_DIMS {
        return Ok(());
    }
    Err(LoadError::Unsupported(format!(
        "{}: {dims} features of a head have rotary positions, by head_dim or hidden_size; \
         supported is an even number up to {MOST_DIMS}",
        config.file()
    )))
}

fn table(wavelengths: &[f32]) -> LoadResult<RopeFreqs> {
    let shape = [wavelengths.len() as i32];
    Ok(RopeFreqs::Table(Array::from_slice(wavelengths, &shape)?))
}

/// `theta^(2i / dims)`: wavelengths over 2π, without scaling.
fn plain(dims: usize, theta: f32) -> Vec<f32> {
    (0..dims)
        .step_by(2)
        .map(|i| theta.powf(i as f32 / dims as f32))
        .collect()
}

/// Long wavelengths are stretched by `factor`, short ones kept, with a smooth passage between.
fn llama3(scaling: &Config, dims: usize, theta: f32) -> LoadResult<Vec<f32>> {
    let factor = scaling.f32("factor")?;
    let low = scaling.f32_or("low_freq_factor", 1.0)?;
    let high = scaling.f32_or("high_freq_factor", 4.0)?;
    let context = scaling.f32_or("original_max_position_embeddings", 8192.0)?;
    let stretch = |f: f32| {
        let wavelength = 2.0 * PI * f;
        if wavelength > context / low {
            f * factor
        } else if wavelength > context / high && wavelength < context / low {
            let smooth = (context / wavelength - low) / (high - low);
            f / ((1.0 - smooth) / factor + smooth)
        } else {
            f
        }
    };
    Ok(plain(dims, theta).into_iter().map(stretch).collect())
}

/// Wavelengths, and the factor for queries and keys.
fn yarn(scaling: &Config, dims: usize, theta: f32) -> LoadResult<(Vec<f32>, f32)> {
    let factor = scaling.f32("factor")?;
    let context = scaling.f32_or("original_max_position_embeddings", 4096.0)?;
    let beta_fast = scaling.f32_or("beta_fast", 32.0)?;
    let beta_slow = scaling.f32_or("beta_slow", 1.0)?;
    let mscale = scaling.f32_or("mscale", 1.0)?;
    let mscale_all_dim = scaling.f32_or("mscale_all_dim", 0.0)?;

    // The feature whose wave turns this many times within the original context.
    let feature =
        |turns: f32| dims as f32 * (context / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let low = feature(beta_fast).floor().max(0.0);
    let mut high = feature(beta_slow).ceil().min(dims as f32 - 1.0);
    if low == high {
        high += 0.001; // As the reference does, so that the ramp has a slope.
    }
    let wavelengths = plain(dims, theta)
        .into_iter()
        .enumerate()
        .map(|(i, kept)| {
            let ramp = ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
            let (stretched, mask) = (factor * kept, 1.0 - ramp);
            stretched * kept / (stretched * mask + kept * (1.0 - mask))
        })
        .collect();
    let temperature = |mscale: f32| match factor {
        f if f <= 1.0 => 1.0,
        f => 0.1 * mscale * f.ln() + 1.0,
    };
    Ok((
        wavelengths,
        temperature(mscale) / temperature(mscale_all_dim),
    ))
}

/// Each wavelength has a stretch of its own, and queries and keys a factor. As in mlx-lm the long
/// factors serve every length: a cache filled under one set cannot be read under the other.
fn longrope(
    config: &Config,
    scaling: &Config,
    original: f32,
    dims: usize,
    theta: f32,
) -> LoadResult<(Vec<f32>, f32)> {
    let longest = config.f32_or("max_position_embeddings", 131_072.0)?;
    let factors = match scaling.f32_list("long_factor")? {
        Some(factors) if factors.len() == dims / 2 => factors,
        _ => {
            let expected = format!("a list of {} numbers", dims / 2);
            return Err(scaling.invalid("long_factor", expected).into());
        }
    };
    let factor = longest / original;
    let mscale = match factor <= 1.0 {
        true => 1.0,
        false => (1.0 + factor.ln() / original.ln()).sqrt(),
    };
    let stretched = plain(dims, theta).into_iter().zip(factors);
    Ok((stretched.map(|(f, factor)| f * factor).collect(), mscale))
}

/// Wavelengths spread over all features of a head, of which the longest do not turn at all.
fn proportional(scaling: &Config, dims: usize, theta: f32) -> LoadResult<Vec<f32>> {
    let part = scaling.f32_or("partial_rotary_factor", 1.0)?;
    if !(0.0..=1.0).contains(&part) {
        return Err(scaling
            .invalid("partial_rotary_factor", "from 0 to 1")
            .into());
    }
    let factor = scaling.f32_or("factor", 1.0)?;
    let turning = ((dims as f32 * part) as usize).div_ceil(2);
    let stretch = |(i, f): (usize, f32)| match i < turning {
        true => factor * f,
        false => f32::INFINITY,
    };
    Ok(plain(dims, theta)
        .into_iter()
        .enumerate()
        .map(stretch)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: usize) -> RopeShape {
        RopeShape {
            dims,
            default_theta: Some(10_000.0),
            traditional: false,
        }
    }

    fn config(json: &str) -> Config {
        Config::parse("config.json", json.as_bytes()).unwrap()
    }

    #[test]
    fn features_turn_in_pairs() {
        for (dims, fine) in [
            (2, true),
            (10, true),
            (0, false),
            (5, false),
            (1 << 40, false),
        ] {
            assert_eq!(Rope::load(&config("{}"), shape(dims)).is_ok(), fine);
        }
    }

    #[test]
    fn an_architecture_without_scaling_refuses_one_by_name() {
        let plain = |json: &str| Rope::load_plain(&config(json), shape(8));
        assert!(plain("{}").is_ok());
        assert!(plain(r#"{"rope_parameters": {"rope_type": "default"}}"#).is_ok());
        let scaled = plain(r#"{"rope_scaling": {"type": "linear", "factor": 2.0}}"#);
        let message = scaled.err().unwrap().to_string();
        assert!(message.contains("linear"), "{message}");
    }
}
