//! What the prefix cache's tree takes, without arrays.
//!
//!     cargo bench --bench prefix

use std::convert::Infallible;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pensieve::cache::Reach;
use pensieve::cache::prefix::{Needs, Part, Tree};

/// As large as a number says.
struct Bytes(usize);

impl Part for Bytes {
    type Error = Infallible;

    fn nbytes(&self) -> usize {
        self.0
    }

    fn cut(self, at: usize) -> Result<(Self, Self), Infallible> {
        Ok((Bytes(at), Bytes(self.0 - at)))
    }
}

fn store(tree: &mut Tree<Bytes>, tokens: &[u32], budget: usize) {
    let mut walk = tree.walk(tokens);
    let Ok(()) = tree.end_at(&mut walk);
    while walk.len < tokens.len() {
        let to = tokens.len().min(walk.len + 512);
        let own = &tokens[walk.len..to];
        let pin = tree.pin(&walk);
        tree.shrink(budget - 2 * own.len());
        tree.push(&mut walk, own, Bytes(own.len()), Some(Bytes(own.len())));
        drop(pin);
    }
    tree.touch(&walk, walk.len, true);
}

/// A dialogue of `n` tokens; those of the same kind share the first half.
fn dialogue(kind: u32, number: u32, n: u32) -> Vec<u32> {
    let token = |i| {
        if i < n / 2 {
            i ^ kind << 20
        } else {
            i ^ number << 16
        }
    };
    (0..n).map(token).collect()
}

fn tree(c: &mut Criterion) {
    let needs = Needs {
        reaches: vec![Reach::Sliding(1024)],
        state: false,
    };
    let mut tree = Tree::new(needs);
    let budget = 4_000_000;
    for i in 0..200 {
        store(&mut tree, &dialogue(i % 10, i, 20_000), budget);
    }
    let known = dialogue(9, 199, 20_000);
    c.bench_function("prefix tree: look up 20000 tokens", |b| {
        b.iter(|| {
            let walk = tree.walk(&known);
            black_box(tree.resume(&walk, known.len() - 1))
        });
    });
    let mut number = 1000;
    c.bench_function(
        "prefix tree: store 20000 tokens of which half are known",
        |b| {
            b.iter(|| {
                number += 1;
                store(&mut tree, &dialogue(number % 10, number, 20_000), budget);
            });
        },
    );
}

criterion_group!(benches, tree);
criterion_main!(benches);
