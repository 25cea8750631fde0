//! What one round of the engine does: which prompts get on, and by how many tokens.
//!
//! Each round every answer in progress gets a token, and prompts share what is left of a budget. So a
//! long prompt delays the answers by one budget's work a round and no more. Half of it is the oldest
//! prompt's, so none starves; the rest goes to those that have least to go, so a short one behind a
//! long one is soon through.

/// Tokens that a round computes at most while answers are in progress.
const SHARED_BUDGET: usize = 512;

/// The tokens that each prompt gets of a round's `budget`, where `decoding` answers get a token each
/// and prompts, the oldest first, have `left` tokens to go.
pub fn share(left: &[usize], decoding: usize, budget: usize) -> Vec<usize> {
    let mut shares = vec![0; left.len()];
    let Some(&oldest) = left.first() else {
        return shares;
    };
    let budget = match decoding {
        0 => budget,
        _ => budget.min(SHARED_BUDGET).saturating_sub(decoding),
    };
    let mut budget = budget.max(1);
    shares[0] = oldest.min(budget.div_ceil(2));
    budget -= shares[0];
    let mut shortest: Vec<usize> = (0..left.len()).collect();
    shortest.sort_by_key(|&i| left[i]);
    for i in shortest {
        let more = (left[i] - shares[i]).min(budget);
        shares[i] += more;
        budget -= more;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_keep_to_the_budget_and_nobody_starves(
            left in prop::collection::vec(1usize..2000, 0..20),
            decoding in 0usize..100,
            budget in 0usize..3000,
        ) {
            let shares = share(&left, decoding, budget);
            prop_assert_eq!(shares.len(), left.len());
            let most = match decoding {
                0 => budget,
                _ => budget.min(SHARED_BUDGET).saturating_sub(decoding),
            };
            let sum = shares.iter().sum::<usize>();
            prop_assert!(sum <= most.max(1));
            prop_assert_eq!(sum, most.max(1).min(left.iter().sum()), "nothing is left unused");
            for (i, (&share, &left)) in shares.iter().zip(&left).enumerate() {
                prop_assert!(share <= left);
                prop_assert!(i > 0 || share >= left.min(most.max(1) / 2).max(1));
            }
        }

        #[test]
        fn every_prompt_is_computed_once_and_ends(
            mut left in prop::collection::vec(1usize..500, 1..10),
            decoding in 0usize..50,
            budget in 0usize..300,
        ) {
            let total: usize = left.iter().sum();
            let mut computed = 0;
            for _ in 0..total {
                let shares = share(&left, decoding, budget);
                computed += shares.iter().sum::<usize>();
                for (left, share) in left.iter_mut().zip(&shares) {
                    *left -= share;
                }
                left.retain(|&left| left > 0);
                if left.is_empty() {
                    break;
                }
            }
            prop_assert!(left.is_empty());
            prop_assert_eq!(computed, total);
        }
    }

    #[test]
    fn a_short_prompt_overtakes_a_long_one() {
        assert_eq!(share(&[16_000, 100, 9_000], 3, 2048), [255, 100, 154]);
        assert_eq!(share(&[16_000, 16_000], 3, 2048), [509, 0]);
        assert_eq!(share(&[16_000], 0, 2048), [2048]);
    }
}
