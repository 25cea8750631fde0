//! DRY, "don't repeat yourself": which tokens would go on with a repetition, and what that costs them.
//!
//! As its author defined it (p-e-w, oobabooga/text-generation-webui pull request 5677, 2024): the
//! longest part before the end of the text that also stands before an earlier occurrence of a token
//! is what drawing that token would repeat. All matches are found in one pass, so that a text that
//! repeats itself all the way costs no more than another.

use std::collections::{BTreeMap, HashSet};

use super::params::Dry;

/// A text whose end may repeat.
#[derive(Debug)]
pub struct Repetition {
    dry: Dry,
    breakers: HashSet<u32>,
    text: Vec<u32>,
}

impl Repetition {
    /// Of this text.
    pub fn new(dry: &Dry, text: &[u32]) -> Repetition {
        Repetition {
            dry: dry.clone(),
            breakers: dry.breakers.iter().copied().collect(),
            text: text.to_vec(),
        }
    }

    /// Takes the next token of the text.
    pub fn push(&mut self, token: u32) {
        self.text.push(token);
    }

    /// What tokens lose in the next draw, as numbers to be added to their logits.
    pub fn biases(&self) -> Vec<(u32, f32)> {
        let n = self.text.len();
        let window = self.dry.last_n.unwrap_or(n).min(n);
        let last_first: Vec<u32> = self.text[n - window..].iter().rev().copied().collect();
        let is_breaker = |token: &u32| self.breakers.contains(token);
        let unbroken = last_first.iter().position(is_breaker).unwrap_or(window);
        if unbroken < self.dry.allowed_length {
            return Vec::new();
        }
        let mut longest: BTreeMap<u32, usize> = BTreeMap::new();
        // Where the text up to a place ends as the whole does, the token after that place would go
        // on with the repetition.
        for (next, agreed) in last_first.iter().zip(agreement(&last_first).iter().skip(1)) {
            let length = (*agreed).min(unbroken);
            if length >= self.dry.allowed_length && !is_breaker(next) {
                let longest = longest.entry(*next).or_default();
                *longest = length.max(*longest);
            }
        }
        let loss = |(token, length)| (token, -self.loss(length));
        longest.into_iter().map(loss).collect()
    }

    fn loss(&self, length: usize) -> f32 {
        let excess = (length - self.dry.allowed_length).min(1000) as i32;
        let loss = f64::from(self.dry.multiplier) * f64::from(self.dry.base).powi(excess);
        // Far beyond any logit, and finite: a token must not become impossible.
        loss.min(1e9) as f32
    }
}

/// For each place, how far the tokens from there on agree with those from the start on: the
/// Z-function (Gusfield, "Algorithms on Strings, Trees and Sequences", 1997), in linear time.
fn agreement(tokens: &[u32]) -> Vec<usize> {
    let n = tokens.len();
    let mut agreed = vec![n; n];
    // The stretch known to agree that ends last: `start..end`.
    let (mut start, mut end) = (0, 0);
    for i in 1..n {
        let mut length = match i < end {
            true => agreed[i - start].min(end - i),
            false => 0,
        };
        while i + length < n && tokens[i + length] == tokens[length] {
            length += 1;
        }
        if i + length > end {
            (start, end) = (i, i + length);
        }
        agreed[i] = length;
    }
    agreed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by comparing the end of the text with every place.
    fn naive(dry: &Dry, text: &[u32]) -> Vec<(u32, f32)> {
        let n = dry.last_n.unwrap_or(text.len()).min(text.len());
        let text = &text[text.len() - n..];
        let Some(last) = text.last() else {
            return Vec::new();
        };
        if dry.breakers.contains(last) {
            return Vec::new();
        }
        let mut losses: BTreeMap<u32, f32> = BTreeMap::new();
        for place in 0..text.len() - 1 {
            let next = text[place + 1];
            let agrees = |back: &usize| {
                let (a, b) = (text[place - back], text[text.len() - 1 - back]);
                a == b && !dry.breakers.contains(&a)
            };
            let length = (0..=place).take_while(agrees).count();
            if length >= dry.allowed_length && !dry.breakers.contains(&next) {
                let loss = dry.multiplier * dry.base.powi((length - dry.allowed_length) as i32);
                let entry = losses.entry(next).or_insert(0.0);
                *entry = loss.max(*entry);
            }
        }
        losses
            .into_iter()
            .map(|(token, loss)| (token, -loss))
            .collect()
    }

    fn dry(allowed_length: usize) -> Dry {
        Dry {
            multiplier: 0.8,
            base: 1.75,
            allowed_length,
            last_n: None,
            breakers: Vec::new(),
        }
    }

    #[test]
    fn the_token_that_would_go_on_with_a_repetition_loses() {
        // "1 2 3" stood before 4, and "2 3" before 5.
        let text = [1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3];
        let biases = Repetition::new(&dry(2), &text).biases();
        assert_eq!(biases, [(4, -0.8 * 1.75), (5, -0.8)]);
        assert_eq!(Repetition::new(&dry(3), &text).biases(), [(4, -0.8)]);
        assert_eq!(Repetition::new(&dry(4), &text).biases(), []);
    }

    #[test]
    fn breakers_and_the_window_bound_a_repetition() {
        let text = [1, 2, 3, 4, 1, 2, 3];
        let broken = |breakers: &[u32]| {
            let breakers = breakers.to_vec();
            Repetition::new(&Dry { breakers, ..dry(1) }, &text).biases()
        };
        assert_eq!(broken(&[]), [(4, -0.8 * 1.75 * 1.75)]);
        assert_eq!(broken(&[1]), [(4, -0.8 * 1.75)]);
        assert_eq!(broken(&[3]), []);
        assert_eq!(broken(&[4]), []);
        let last = |n| {
            Repetition::new(
                &Dry {
                    last_n: Some(n),
                    ..dry(1)
                },
                &text,
            )
            .biases()
        };
        assert_eq!(last(6), [(4, -0.8 * 1.75)]);
        assert_eq!(last(5), [(4, -0.8)]);
        assert_eq!(last(4), []);
    }

    #[test]
    fn a_long_repetition_costs_a_finite_amount() {
        let biases = Repetition::new(&dry(2), &[7; 5000]).biases();
        assert_eq!(biases, [(7, -1e9)]);
        assert_eq!(Repetition::new(&dry(2), &[]).biases(), []);
    }

    proptest! {
        #[test]
        fn it_is_the_definition_at_every_step(
            text in prop::collection::vec(0u32..5, 0..60),
            prompt in 0usize..60,
            allowed_length in 1usize..5,
            last_n in prop::option::of(1usize..30),
            breakers in prop::collection::vec(0u32..5, 0..2),
        ) {
            let dry = Dry { last_n, breakers, ..dry(allowed_length) };
            let prompt = prompt.min(text.len());
            let mut repetition = Repetition::new(&dry, &text[..prompt]);
            for end in prompt..=text.len() {
                let (a, b) = (repetition.biases(), naive(&dry, &text[..end]));
                prop_assert_eq!(a.len(), b.len());
                for ((a, a_loss), (b, b_loss)) in a.iter().zip(&b) {
                    prop_assert_eq!(a, b);
                    prop_assert!((a_loss - b_loss).abs() <= b_loss.abs() * 1e-5);
                }
                if let Some(token) = text.get(end) {
                    repetition.push(*token);
                }
            }
        }
    }
}
