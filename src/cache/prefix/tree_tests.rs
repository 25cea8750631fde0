//! The tree against a list of the sequences that were stored, with parts that know what they are.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use proptest::prelude::*;

use super::tree::{Needs, Part, Pin, Tree, Walk};
use crate::cache::Reach;

/// For each position the tokens up to it, by their hash; a state has one for all of its tokens.
#[derive(Clone, Debug, PartialEq)]
struct Marks {
    marks: Vec<u64>,
    bytes_each: usize,
}

impl Part for Marks {
    type Error = Infallible;

    fn nbytes(&self) -> usize {
        self.marks.len() * self.bytes_each
    }

    fn cut(mut self, at: usize) -> Result<(Self, Self), Infallible> {
        let marks = self.marks.split_off(at);
        let bytes_each = self.bytes_each;
        Ok((self, Self { marks, bytes_each }))
    }
}

const ENTRY: usize = 10;
const WINDOW: usize = 7;
const STATE: usize = 33;

fn mark(tokens: &[u32]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    tokens.hash(&mut hasher);
    hasher.finish()
}

fn marks(tokens: &[u32], from: usize, to: usize, bytes_each: usize) -> Marks {
    let marks = (from..to).map(|p| mark(&tokens[..=p])).collect();
    Marks { marks, bytes_each }
}

fn state(tokens: &[u32]) -> Marks {
    Marks {
        marks: vec![mark(tokens)],
        bytes_each: STATE,
    }
}

/// Stores as the cache of arrays does; window entries before `held` are gone.
fn store(tree: &mut Tree<Marks>, tokens: &[u32], held: usize, budget: usize, keep: bool) {
    let (windows, states) = (!tree.needs().reaches.is_empty(), tree.needs().state);
    let mut walk = tree.walk(tokens);
    let end = tokens.len();
    let Ok(()) = tree.end_at(&mut walk);
    let mut pin = tree.pin(&walk);
    for from in [walk.len, held] {
        let to = if from < held { held } else { end };
        if from != walk.len || from >= to {
            continue;
        }
        let entries = marks(tokens, from, to, ENTRY);
        let window = (windows && from >= held).then(|| marks(tokens, from, to, WINDOW));
        let bytes = entries.nbytes() + window.as_ref().map_or(0, Marks::nbytes);
        if bytes > budget || !tree.shrink(budget - bytes) {
            break;
        }
        tree.push(&mut walk, &tokens[from..to], entries, window);
        pin = tree.pin(&walk);
    }
    if states && walk.len == end && tree.shrink(budget.saturating_sub(STATE)) && STATE <= budget {
        tree.set_state(*walk.nodes.last().unwrap(), state(tokens));
    }
    tree.touch(&walk, walk.len, keep);
    drop(pin);
    if let Some(&id) = walk.nodes.last() {
        tree.prune(id);
    }
}

/// Where `tokens` can go on, with all that it takes looked at.
fn resume(tree: &Tree<Marks>, tokens: &[u32], limit: usize) -> (Walk, usize) {
    let walk = tree.walk(tokens);
    let at = tree.resume(&walk, limit);
    assert!(at <= limit && at <= walk.len);
    if at == 0 {
        return (walk, at);
    }
    let joined = |nodes: Vec<(usize, &Marks)>, from: usize| {
        let mut next = None;
        let mut all = Vec::new();
        for (start, part) in nodes {
            assert_eq!(start, next.unwrap_or(start), "no gap");
            next = Some(start + part.marks.len());
            for (i, mark) in part.marks.iter().enumerate() {
                if (from..at).contains(&(start + i)) {
                    all.push(*mark);
                }
            }
        }
        all
    };
    let entries = joined(tree.entries(&walk, at), 0);
    assert_eq!(entries, marks(tokens, 0, at, ENTRY).marks);
    if !tree.needs().reaches.is_empty() {
        let first = tree.needs().first(at);
        let windows = joined(tree.windows(&walk, first, at), first);
        assert_eq!(windows, marks(tokens, first, at, WINDOW).marks);
    }
    if tree.needs().state {
        assert_eq!(tree.state(&walk, at), Some(&state(&tokens[..at])));
    }
    (walk, at)
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn needs() -> impl Strategy<Value = Needs> {
    let reach = prop_oneof![
        (1usize..9).prop_map(Reach::Sliding),
        (1usize..9).prop_map(Reach::Chunked)
    ];
    (prop::collection::vec(reach, 0..3), any::<bool>())
        .prop_map(|(reaches, state)| Needs { reaches, state })
}

/// Sequences that share beginnings.
fn sequences() -> impl Strategy<Value = Vec<Vec<u32>>> {
    let sequence = prop::collection::vec(prop::sample::select(vec![1u32, 1, 1, 2, 3]), 1..24);
    prop::collection::vec(sequence, 1..25)
}

proptest! {
    /// Without a budget: the longest beginning shared with any stored sequence is known, each
    /// distinct prefix is held once, and a sequence goes on where a list of them says it can.
    #[test]
    fn it_knows_what_a_list_knows(needs in needs(), all in sequences(), asked in sequences()) {
        let mut tree = Tree::new(needs.clone());
        for tokens in &all {
            store(&mut tree, tokens, 0, usize::MAX, true);
        }
        let prefixes: BTreeSet<&[u32]> =
            all.iter().flat_map(|t| (1..=t.len()).map(|n| &t[..n])).collect();
        let stored: BTreeSet<&Vec<u32>> = all.iter().collect();
        let windows = usize::from(!needs.reaches.is_empty()) * WINDOW;
        let states = usize::from(needs.state) * STATE * stored.len();
        prop_assert_eq!(tree.nbytes(), prefixes.len() * (ENTRY + windows) + states);
        for tokens in all.iter().chain(&asked) {
            let known = all.iter().map(|other| common(tokens, other)).max().unwrap_or(0);
            let limit = tokens.len() - 1;
            let (walk, at) = resume(&tree, tokens, limit);
            prop_assert_eq!(walk.len, known);
            let can = |n: &usize| !needs.state || stored.contains(&tokens[..*n].to_vec());
            let expected = (1..=known.min(limit)).rev().find(can).unwrap_or(0);
            prop_assert_eq!(at, expected);
        }
    }

    /// Under a budget: it is never exceeded, what is pinned stays, what is found is what was stored.
    #[test]
    fn it_keeps_to_its_budget_and_its_pins(
        needs in needs(),
        all in sequences(),
        budget in 0usize..900,
        held in prop::collection::vec(0usize..24, 25),
        choices in prop::collection::vec(any::<[bool; 3]>(), 25),
    ) {
        let mut tree = Tree::new(needs);
        let mut pins: Vec<(Vec<u32>, usize, Pin)> = Vec::new();
        for ((tokens, held), [keep, pin, unpin]) in all.iter().zip(held).zip(choices) {
            store(&mut tree, tokens, held.min(tokens.len()), budget, keep);
            prop_assert!(tree.nbytes() <= budget);
            let (walk, at) = resume(&tree, tokens, tokens.len());
            if at > 0 && pin {
                tree.touch(&walk, at, true);
                pins.push((tokens.clone(), walk.len, tree.pin(&walk).unwrap()));
            }
            for (tokens, len, _pin) in &pins {
                prop_assert!(tree.walk(tokens).len >= *len, "a pinned way has been given up");
            }
            if unpin && !pins.is_empty() {
                pins.remove(0);
            }
            for other in &all {
                resume(&tree, other, other.len());
            }
        }
        pins.clear();
        prop_assert!(tree.shrink(0));
        prop_assert_eq!((tree.nbytes(), tree.is_empty()), (0, true));
    }

    /// Only entries: what goes first is the leaf that was touched longest ago, token for token as a
    /// list says that keeps for every prefix when it was last of use.
    #[test]
    fn what_was_not_of_use_for_longest_goes_first(all in sequences(), keep in 0usize..200) {
        let mut tree = Tree::new(Needs::default());
        let mut used: BTreeMap<Vec<u32>, usize> = BTreeMap::new();
        for (now, tokens) in all.iter().enumerate() {
            store(&mut tree, tokens, 0, usize::MAX, true);
            for n in 1..=tokens.len() {
                used.insert(tokens[..n].to_vec(), now);
            }
        }
        tree.shrink(keep * ENTRY);
        let stays = |prefix: &[u32]| tree.walk(prefix).len == prefix.len();
        let (left, gone): (Vec<_>, Vec<_>) = used.into_iter().partition(|(prefix, _)| stays(prefix));
        prop_assert_eq!(tree.nbytes(), left.len() * ENTRY);
        prop_assert!(left.len() <= keep);
        let newest_gone = gone.iter().map(|(_, at)| *at).max();
        let oldest_left = left.iter().map(|(_, at)| *at).min();
        if let (Some(gone), Some(left)) = (newest_gone, oldest_left) {
            prop_assert!(gone <= left, "gave up what was used at {gone}, kept {left}");
        }
    }
}

fn tokens(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

#[test]
fn states_nobody_went_on_from_go_before_everything_else() {
    let needs = Needs {
        state: true,
        ..Needs::default()
    };
    let mut tree = Tree::new(needs);
    let long = tokens(0..40);
    store(&mut tree, &tokens(100..110), 0, usize::MAX, true);
    for end in [10, 20, 30] {
        store(&mut tree, &long[..end], 0, usize::MAX, false);
    }
    store(&mut tree, &long, 0, usize::MAX, true);
    assert_eq!(tree.nbytes(), 50 * ENTRY + 5 * STATE);
    let at = |tree: &Tree<Marks>, limit| resume(tree, &long, limit).1;
    assert_eq!((at(&tree, 40), at(&tree, 39)), (40, 30));
    // One went on from 20: now it is worth as much as the ends are.
    let walk = tree.walk(&long[..20]);
    tree.touch(&walk, 20, true);
    assert!(tree.shrink(tree.nbytes() - 1));
    assert_eq!((at(&tree, 39), at(&tree, 19)), (30, 0));
    assert!(tree.shrink(tree.nbytes() - 1));
    assert_eq!(at(&tree, 39), 20);
    assert_eq!(tree.nbytes(), 50 * ENTRY + 3 * STATE);
    // Then what is oldest: the short one, whole.
    assert!(tree.shrink(tree.nbytes() - 1));
    assert_eq!(tree.walk(&tokens(100..110)).len, 0);
    assert_eq!(tree.nbytes(), 40 * ENTRY + 2 * STATE);
}

#[test]
fn windows_far_behind_go_first_and_the_end_stays_of_use() {
    let needs = Needs {
        reaches: vec![Reach::Sliding(8)],
        state: false,
    };
    let mut tree = Tree::new(needs);
    let long = tokens(0..40);
    for end in [10, 20, 30] {
        store(&mut tree, &long[..end], 0, usize::MAX, false);
    }
    store(&mut tree, &long, 0, usize::MAX, true);
    assert!(tree.shrink(tree.nbytes() - 3 * 10 * WINDOW));
    assert_eq!(tree.nbytes(), 40 * ENTRY + 10 * WINDOW);
    assert_eq!(resume(&tree, &long, 40).1, 40);
    // Seven positions before 37 are there, and those of 36 are not.
    assert_eq!(resume(&tree, &long, 37).1, 37);
    assert_eq!(resume(&tree, &long, 36).1, 0);
}

#[test]
fn a_tail_without_its_window_is_only_used_beyond_it() {
    let needs = Needs {
        reaches: vec![Reach::Sliding(5)],
        state: false,
    };
    let mut tree = Tree::new(needs);
    let long = tokens(0..30);
    store(&mut tree, &long[..10], 0, usize::MAX, true);
    store(&mut tree, &long, 20, usize::MAX, true);
    assert_eq!(resume(&tree, &long, 30).1, 30);
    assert_eq!(resume(&tree, &long, 24).1, 24);
    assert_eq!(resume(&tree, &long, 23).1, 10);
    assert_eq!(tree.nbytes(), 30 * ENTRY + 20 * WINDOW);
}
