//! What one round of the engine does: which prompts get on, and by how many tokens.
//!
//! Each round every answer in progress gets a token, and prompts share what is left of a budget. So a
//! long prompt delays the answers by one budget's work a round and no more, and the first prompt in
//! line always gets on.

/// Shares a round's `budget` of tokens between `decoding` answers, a token each, and prompts that
/// have `left` tokens to go, first come first served: the tokens each prompt gets, in order. Prompts
/// at the end may get none, and are not in the list.
pub fn share(left: &[usize], decoding: usize, budget: usize) -> Vec<usize> {
    let mut budget = budget.saturating_sub(decoding).max(1);
    let mut shares = Vec::new();
    for &left in left {
        if budget == 0 {
            break;
        }
        let tokens = left.min(budget);
        budget -= tokens;
        shares.push(tokens);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_keep_to_the_budget_and_the_order(
            left in prop::collection::vec(1usize..2000, 0..20),
            decoding in 0usize..100,
            budget in 0usize..1000,
        ) {
            let shares = share(&left, decoding, budget);
            prop_assert!(shares.len() <= left.len());
            prop_assert!(shares.iter().sum::<usize>() <= budget.saturating_sub(decoding).max(1));
            for (i, (&share, &left)) in shares.iter().zip(&left).enumerate() {
                prop_assert!(share >= 1 && share <= left);
                // Only the last one is cut short: those before it get all they need.
                prop_assert!(share == left || i + 1 == shares.len());
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
                prop_assert!(!shares.is_empty(), "the first in line gets on");
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
}
