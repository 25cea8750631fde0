//! A radix tree over token ids, whose nodes carry what a model remembers of their own tokens.
//!
//! It knows no arrays: what it carries is any [`Part`]. A node has *entries* of its tokens that every
//! later position needs, *window* entries that only near positions need, and a *state* behind its last
//! token. A sequence may go on at a position if entries cover all before it, window entries cover
//! what layers of limited reach see from there, and, for a model with states, a state stands exactly
//! there.
//!
//! Invariants: a node's entries cover its tokens, so those on the way from a root cover a whole
//! prefix; siblings start with different tokens, so a prefix is held once; `nbytes` is the sum of all
//! that is held; `order` lists everything that could be given up, the first to go first.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::cache::Reach;

/// What a node can carry.
pub trait Part: Sized {
    /// Why it could not be cut.
    type Error;

    /// Bytes it takes.
    fn nbytes(&self) -> usize;

    /// Its first `at` positions, and the others.
    ///
    /// # Errors
    /// If a copy fails.
    fn cut(self, at: usize) -> Result<(Self, Self), Self::Error>;
}

/// What a model needs beside entries in order to go on at a position.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// How far back its window layers see.
    pub reaches: Vec<Reach>,
    /// Whether it has layers with a state.
    pub state: bool,
}

impl Needs {
    /// The first position whose window entries are needed to go on at `position`.
    pub fn first(&self, position: usize) -> usize {
        let firsts = self.reaches.iter().map(|reach| reach.first(position));
        firsts.min().unwrap_or(position).min(position)
    }

    fn windows(&self) -> bool {
        !self.reaches.is_empty()
    }
}

/// Keeps a node while it lives.
pub type Pin = Rc<()>;

/// A node's number, valid until the tree changes.
pub type Id = usize;

/// Something that a node can do without.
struct Held<P> {
    part: P,
    /// When it was last of use.
    used: u64,
    /// Whether a sequence has gone on from it, or is likely to: others go first.
    kept: bool,
}

struct Node<P> {
    /// Position of the first token.
    start: usize,
    tokens: Vec<u32>,
    parent: Option<Id>,
    /// By their first token.
    children: BTreeMap<u32, Id>,
    entries: P,
    used: u64,
    window: Option<Held<P>>,
    state: Option<Held<P>>,
    pin: Pin,
}

impl<P> Node<P> {
    fn end(&self) -> usize {
        self.start + self.tokens.len()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    State,
    Window,
    Leaf,
}

/// What goes first: what nobody is likely to want, then what was not wanted for longest.
type Key = (bool, u64, Id, What);

/// How far the tree knows a sequence of tokens.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// The nodes on the way; the last one may go on otherwise than the sequence does.
    pub nodes: Vec<Id>,
    /// Tokens that are known.
    pub len: usize,
}

/// The tree.
pub struct Tree<P> {
    nodes: Vec<Option<Node<P>>>,
    free: Vec<Id>,
    roots: BTreeMap<u32, Id>,
    order: BTreeSet<Key>,
    needs: Needs,
    nbytes: usize,
    clock: u64,
}

impl<P: Part> Tree<P> {
    /// An empty one for a model with these needs.
    pub fn new(needs: Needs) -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            roots: BTreeMap::new(),
            order: BTreeSet::new(),
            needs,
            nbytes: 0,
            clock: 0,
        }
    }

    /// What going on at a position takes.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Bytes of all that is held.
    pub fn nbytes(&self) -> usize {
        self.nbytes
    }

    /// Nodes.
    pub fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How far `tokens` are known.
    pub fn walk(&self, tokens: &[u32]) -> Walk {
        let mut walk = Walk::default();
        let mut next = tokens.first().and_then(|token| self.roots.get(token));
        while let Some(node) = next.and_then(|&id| Some((id, self.node(id)?))) {
            let (id, node) = node;
            let left = tokens.get(walk.len..).unwrap_or_default();
            let same = node.tokens.iter().zip(left).take_while(|(a, b)| a == b);
            let same = same.count();
            walk.nodes.push(id);
            walk.len += same;
            if same < node.tokens.len() {
                break;
            }
            next = tokens
                .get(walk.len)
                .and_then(|token| node.children.get(token));
        }
        walk
    }

    /// The last position, `limit` or before, where a sequence that has come this way can go on; 0 is
    /// the start, where it can always.
    pub fn resume(&self, walk: &Walk, limit: usize) -> usize {
        let limit = limit.min(walk.len);
        let nodes: Vec<&Node<P>> = walk.nodes.iter().filter_map(|&id| self.node(id)).collect();
        // For each node where the unbroken window entries begin that lead up to its end.
        let mut from = 0;
        let runs: Vec<usize> = nodes
            .iter()
            .map(|node| {
                let run = from;
                if node.window.is_none() {
                    from = node.end();
                }
                run
            })
            .collect();
        for (node, run) in nodes.iter().zip(runs).rev() {
            let covered = |&p: &usize| {
                let run = if node.window.is_some() { run } else { p };
                self.needs.first(p) >= run
            };
            let end = node.end();
            let found = if self.needs.state {
                let stands = end <= limit && node.state.is_some();
                stands.then_some(end).filter(covered)
            } else {
                (node.start + 1..=end.min(limit)).rev().find(covered)
            };
            if let Some(position) = found {
                return position;
            }
        }
        0
    }

    /// The nodes of `walk` that begin before `end`, each with its first position and its entries.
    pub fn entries(&self, walk: &Walk, end: usize) -> Vec<(usize, &P)> {
        let nodes = walk.nodes.iter().filter_map(|&id| self.node(id));
        let before = nodes.filter(|node| node.start < end);
        before.map(|node| (node.start, &node.entries)).collect()
    }

    /// The same for window entries in `start..end`.
    pub fn windows(&self, walk: &Walk, start: usize, end: usize) -> Vec<(usize, &P)> {
        let nodes = walk.nodes.iter().filter_map(|&id| self.node(id));
        let within = nodes.filter(|node| node.start < end && node.end() > start);
        within
            .filter_map(|node| Some((node.start, &node.window.as_ref()?.part)))
            .collect()
    }

    /// The state at `position`, if there is one.
    pub fn state(&self, walk: &Walk, position: usize) -> Option<&P> {
        let nodes = walk.nodes.iter().filter_map(|&id| self.node(id));
        let mut nodes = nodes.filter(|node| node.end() == position);
        Some(&nodes.next()?.state.as_ref()?.part)
    }

    /// Notes that what it takes to go on at `position` is of use now, and with `keep` that it is likely
    /// to be so again.
    pub fn touch(&mut self, walk: &Walk, position: usize, keep: bool) {
        self.clock += 1;
        let (now, first) = (self.clock, self.needs.first(position));
        for &id in &walk.nodes {
            self.edit(id, |node| {
                if node.start >= position {
                    return;
                }
                node.used = now;
                let end = node.end();
                if let Some(window) = node.window.as_mut().filter(|_| end > first) {
                    (window.used, window.kept) = (now, window.kept || keep);
                }
                if let Some(state) = node.state.as_mut().filter(|_| end == position) {
                    (state.used, state.kept) = (now, state.kept || keep);
                }
            });
        }
    }

    /// Keeps the last node of `walk`, and with it all before, for as long as the pin lives.
    pub fn pin(&self, walk: &Walk) -> Option<Pin> {
        self.node(*walk.nodes.last()?).map(|node| node.pin.clone())
    }

    /// The positions of a node's tokens, and whether it has window entries and a state.
    pub fn describe(&self, id: Id) -> Option<(std::ops::Range<usize>, bool, bool)> {
        let node = self.node(id)?;
        let positions = node.start..node.end();
        Some((positions, node.window.is_some(), node.state.is_some()))
    }

    /// Makes the way of `walk` end with a node, by cutting its last one where that goes on.
    ///
    /// # Errors
    /// If the parts cannot be cut; the node and all behind it are then gone.
    pub fn end_at(&mut self, walk: &mut Walk) -> Result<(), P::Error> {
        let Some(&id) = walk.nodes.last() else {
            return Ok(());
        };
        match self.node(id) {
            Some(node) if node.end() > walk.len => {
                let at = walk.len - node.start;
                walk.nodes.pop();
                walk.nodes.push(self.cut(id, at)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Cuts a node in two and returns the one before; `id` stays the one behind.
    fn cut(&mut self, id: Id, at: usize) -> Result<Id, P::Error> {
        let Some(mut node) = self.take(id) else {
            return Ok(id);
        };
        let cut = |held: Held<P>| {
            let (head, tail) = held.part.cut(at)?;
            let held = |part| Held {
                part,
                used: held.used,
                kept: held.kept,
            };
            Ok((held(head), held(tail)))
        };
        let parts = || {
            let window = node.window.take().map(cut).transpose()?;
            Ok((node.entries.cut(at)?, window))
        };
        let ((head, tail), window) = match parts() {
            Ok(parts) => parts,
            Err(error) => {
                self.remove_all(node.children.into_values().collect());
                self.unlink(id, node.parent, node.tokens.first());
                return Err(error);
            }
        };
        let (window_head, window_tail) = window.unzip();
        let behind = node.tokens.split_off(at);
        let before = Node {
            start: node.start,
            tokens: node.tokens,
            parent: node.parent,
            children: behind
                .first()
                .map(|&token| (token, id))
                .into_iter()
                .collect(),
            entries: head,
            used: node.used,
            window: window_head,
            state: None,
            pin: Pin::default(),
        };
        let (first, parent) = (before.tokens.first().copied(), before.parent);
        let new = self.put(None, before);
        if let Some(token) = first {
            self.link(parent, token, new);
        }
        let behind = Node {
            start: node.start + at,
            tokens: behind,
            parent: Some(new),
            children: node.children,
            entries: tail,
            used: node.used,
            window: window_tail,
            state: node.state,
            pin: node.pin,
        };
        self.put(Some(id), behind);
        Ok(new)
    }

    /// Adds a node behind the last one of `walk`, which must end there, and goes on to it. Tokens that
    /// are known there already, or none at all, change nothing.
    pub fn push(&mut self, walk: &mut Walk, tokens: &[u32], entries: P, window: Option<P>) {
        let parent = walk.nodes.last().copied();
        let siblings = match parent.and_then(|id| self.node(id)) {
            Some(node) => &node.children,
            None => &self.roots,
        };
        let Some(&token) = tokens.first().filter(|token| !siblings.contains_key(token)) else {
            return;
        };
        let used = self.clock;
        let window = window.map(|part| Held {
            part,
            used,
            kept: false,
        });
        let node = Node {
            start: walk.len,
            tokens: tokens.to_vec(),
            parent,
            children: BTreeMap::new(),
            entries,
            used,
            window,
            state: None,
            pin: Pin::default(),
        };
        let id = self.put(None, node);
        self.link(parent, token, id);
        walk.nodes.push(id);
        walk.len += tokens.len();
    }

    /// Gives a node the window entries of its tokens.
    pub fn set_window(&mut self, id: Id, part: P) {
        let (used, kept) = (self.clock, false);
        let held = Held { part, used, kept };
        self.edit(id, |node| node.window = Some(held));
    }

    /// Gives a node the state behind its last token.
    pub fn set_state(&mut self, id: Id, part: P) {
        let (used, kept) = (self.clock, false);
        let held = Held { part, used, kept };
        self.edit(id, |node| node.state = Some(held));
    }

    /// Gives up what is needed least until at most `bytes` are held. Whether that could be reached:
    /// what is pinned stays.
    pub fn shrink(&mut self, bytes: usize) -> bool {
        while self.nbytes > bytes {
            let free = |key: &&Key| {
                let node = self.node(key.2);
                node.is_some_and(|node| Rc::strong_count(&node.pin) == 1)
            };
            match self.order.iter().find(free) {
                Some(&key) => self.give_up(key),
                None => return false,
            }
        }
        true
    }

    fn give_up(&mut self, (_, _, id, what): Key) {
        match what {
            What::State => self.edit(id, |node| node.state = None),
            What::Window => self.edit(id, |node| node.window = None),
            What::Leaf => return self.remove(id),
        }
        self.prune(id);
    }

    /// Removes a node without children where nothing could ever go on, and those before it that are
    /// so then.
    pub fn prune(&mut self, id: Id) {
        let mut next = Some(id);
        while let Some((id, node)) = next.and_then(|id| Some((id, self.node(id)?))) {
            let useless = (self.needs.state && node.state.is_none())
                || (self.needs.windows() && node.window.is_none());
            let pinned = Rc::strong_count(&node.pin) > 1;
            if pinned || !useless || !node.children.is_empty() {
                return;
            }
            next = node.parent;
            self.remove_alone(id);
        }
    }

    /// Removes a leaf, and what is useless without it.
    fn remove(&mut self, id: Id) {
        if let Some(parent) = self.remove_alone(id) {
            self.prune(parent);
        }
    }

    fn remove_alone(&mut self, id: Id) -> Option<Id> {
        let node = self.take(id)?;
        self.unlink(id, node.parent, node.tokens.first());
        node.parent
    }

    /// Removes these and all behind them.
    fn remove_all(&mut self, mut ids: Vec<Id>) {
        while let Some(id) = ids.pop() {
            if let Some(node) = self.take(id) {
                self.free.push(id);
                ids.extend(node.children.into_values());
            }
        }
    }

    fn link(&mut self, parent: Option<Id>, token: u32, id: Id) {
        match parent {
            Some(parent) => self.edit(parent, |node| {
                node.children.insert(token, id);
            }),
            None => {
                self.roots.insert(token, id);
            }
        }
    }

    /// Forgets the place of a node that has been taken out.
    fn unlink(&mut self, id: Id, parent: Option<Id>, token: Option<&u32>) {
        self.free.push(id);
        if let Some(token) = token {
            match parent {
                Some(parent) => self.edit(parent, |node| {
                    node.children.remove(token);
                }),
                None => {
                    self.roots.remove(token);
                }
            }
        }
    }

    fn node(&self, id: Id) -> Option<&Node<P>> {
        self.nodes.get(id)?.as_ref()
    }

    /// Changes a node, with the order and the bytes kept right.
    fn edit(&mut self, id: Id, change: impl FnOnce(&mut Node<P>)) {
        if let Some(mut node) = self.take(id) {
            change(&mut node);
            self.put(Some(id), node);
        }
    }

    fn take(&mut self, id: Id) -> Option<Node<P>> {
        let node = self.nodes.get_mut(id)?.take()?;
        for key in keys(id, &node) {
            self.order.remove(&key);
        }
        self.nbytes -= nbytes(&node);
        Some(node)
    }

    fn put(&mut self, id: Option<Id>, node: Node<P>) -> Id {
        let id = id.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.nodes.push(None);
            self.nodes.len() - 1
        });
        self.nbytes += nbytes(&node);
        self.order.extend(keys(id, &node));
        if let Some(place) = self.nodes.get_mut(id) {
            *place = Some(node);
        }
        id
    }
}

fn nbytes<P: Part>(node: &Node<P>) -> usize {
    let held = [&node.window, &node.state];
    let held = held.into_iter().flatten().map(|held| held.part.nbytes());
    node.entries.nbytes() + held.sum::<usize>()
}

fn keys<P>(id: Id, node: &Node<P>) -> impl Iterator<Item = Key> + use<P> {
    let key = |held: &Option<Held<P>>, what| {
        let held = held.as_ref()?;
        Some((held.kept, held.used, id, what))
    };
    let leaf = (true, node.used, id, What::Leaf);
    let keys = [
        key(&node.state, What::State),
        key(&node.window, What::Window),
        node.children.is_empty().then_some(leaf),
    ];
    keys.into_iter().flatten()
}
