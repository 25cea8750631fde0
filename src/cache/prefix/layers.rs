//! Arrays of several layers, side by side in few arrays of their own.
//!
//! Each layer's arrays are copied: a view would keep the whole buffer alive from which it is cut.
//! Those of one shape stand in one array, a row each, because a GPU bounds how many arrays there can
//! be.

use std::ops::Range;
use std::rc::Rc;

use super::tree::Part;
use crate::mlx::{Array, Error, Result, async_eval, eval};

/// Bytes of caches that are put together at a time. Each operation on a GPU has its price, so as many
/// layers as possible should share one; but until they are apart again they take their memory twice.
const SLAB: usize = 128 << 20;

/// For each array the number of its group and its row there; none for an array that is not there.
pub(super) type Places = Rc<[Option<(usize, i32)>]>;

/// Arrays of layers, in an order that their owner knows. Positions are along axis 2.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    /// `[R, ..]` each.
    groups: Vec<Array>,
    places: Places,
}

impl Layers {
    /// Copies `arrays`, `[1, ..]` each. Nothing is computed yet. `known` is a list of places to share
    /// where it is the same.
    pub fn gather(arrays: &[Option<Array>], known: &mut Places) -> Result<Self> {
        let mut groups: Vec<Vec<&Array>> = Vec::new();
        let mut places: Vec<Option<(usize, i32)>> = Vec::with_capacity(arrays.len());
        for array in arrays {
            places.push(array.as_ref().map(|array| {
                let fits = |group: &Vec<&Array>| {
                    let alike =
                        |a: &&Array| a.dtype() == array.dtype() && a.shape() == array.shape();
                    group.first().is_some_and(alike)
                };
                let at = groups.iter().position(fits).unwrap_or_else(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                });
                let row = groups.get_mut(at).map_or(0, |group| {
                    group.push(array);
                    group.len() - 1
                });
                (at, row as i32)
            }));
        }
        let groups = groups.iter().map(|group| match group[..] {
            [one] => one.copied(),
            _ => Array::concatenate(group, 0),
        });
        let groups = groups.collect::<Result<_>>()?;
        if known[..] != places[..] {
            *known = places.into();
        }
        let places = known.clone();
        Ok(Self { groups, places })
    }

    /// Computes them.
    pub fn eval(&self) -> Result<()> {
        eval(&self.groups.iter().collect::<Vec<_>>())
    }

    /// Copies of all arrays, those of `nodes` joined: positions `start..end`, and behind them zeros up
    /// to `room` positions in all. Each of `nodes` comes with the position of its first entry. None for
    /// an array that is not there; nothing at all without nodes. The copying is started.
    pub fn join(
        nodes: &[(usize, &Layers)],
        start: usize,
        end: usize,
        room: usize,
    ) -> Result<Vec<Option<Array>>> {
        let Some((_, first)) = nodes.first() else {
            return Ok(Vec::new());
        };
        if nodes.iter().any(|(_, node)| node.places != first.places) {
            let message = "layers stand in another order in one node than in the next";
            return Err(Error::new("prefix", &[], message));
        }
        let mut joined: Vec<Vec<Array>> = Vec::with_capacity(first.groups.len());
        for (number, like) in first.groups.iter().enumerate() {
            let n_rows = like.dim(0)?;
            let positions = like.dim(2)?.max(1) as usize;
            let row_bytes = like.nbytes() / n_rows.max(1) as usize / positions * room;
            let at_once = (SLAB / row_bytes.max(1)).clamp(1, n_rows.max(1) as usize);
            let mut rows = Vec::with_capacity(n_rows as usize);
            for row in (0..n_rows).step_by(at_once) {
                let some = row..n_rows.min(row.saturating_add(at_once as i32));
                let slab = slab(nodes, number, some.clone(), start..end, room)?;
                let from = rows.len();
                match some.len() {
                    1 => rows.push(slab),
                    n => {
                        for i in 0..n as i32 {
                            rows.push(slab.slice_axis(0, i, i + 1)?.copied()?);
                        }
                    }
                }
                async_eval(&rows[from..].iter().collect::<Vec<_>>())?;
            }
            joined.push(rows);
        }
        let array = |&(group, row): &(usize, i32)| joined.get(group)?.get(row as usize).cloned();
        let places = first.places.iter();
        Ok(places.map(|place| place.as_ref().and_then(array)).collect())
    }

    /// The array of number `i`, a view; none if it was not there.
    pub fn get(&self, i: usize) -> Result<Option<Array>> {
        let Some((group, row)) = self.places.get(i).copied().flatten() else {
            return Ok(None);
        };
        let group = self.groups.get(group).ok_or_else(|| no_group(group))?;
        group.slice_axis(0, row, row + 1).map(Some)
    }
}

/// Some rows of a group, `[R, K, room, D]`: those of all nodes joined, as [`Layers::join`] has it.
fn slab(
    nodes: &[(usize, &Layers)],
    number: usize,
    rows: Range<i32>,
    positions: Range<usize>,
    room: usize,
) -> Result<Array> {
    let mut pieces = Vec::with_capacity(nodes.len() + 1);
    for (at, node) in nodes {
        let group = node.groups.get(number).ok_or_else(|| no_group(number))?;
        let len = group.dim(2)? as usize;
        let from = positions.start.saturating_sub(*at);
        let to = len.min(positions.end.saturating_sub(*at));
        let rows = group.slice_axis(0, rows.start, rows.end)?;
        pieces.push(rows.slice_axis(2, from as i32, to as i32)?);
    }
    if let Some(like) = pieces.first() {
        let rest = room.saturating_sub(positions.len()) as i32;
        let shape = [like.dim(0)?, like.dim(1)?, rest, like.dim(3)?];
        pieces.push(Array::zeros(&shape, like.dtype())?);
    }
    Array::concatenate(&pieces.iter().collect::<Vec<_>>(), 2)
}

fn no_group(number: usize) -> Error {
    Error::new(
        "prefix",
        &[],
        format!("there is no group {number} of layers"),
    )
}

impl Part for Layers {
    type Error = Error;

    fn nbytes(&self) -> usize {
        self.groups.iter().map(Array::nbytes).sum()
    }

    fn cut(self, at: usize) -> Result<(Self, Self)> {
        let part = |start: Option<i32>, stop: Option<i32>| {
            let group = |group: &Array| {
                let stop = stop.map_or_else(|| group.dim(2), Ok)?;
                group.slice_axis(2, start.unwrap_or(0), stop)?.copied()
            };
            let groups = self.groups.iter().map(group).collect::<Result<_>>()?;
            let places = self.places.clone();
            Ok(Self { groups, places })
        };
        let at = at as i32;
        let (head, tail) = (part(None, Some(at))?, part(Some(at), None)?);
        let both = head.groups.iter().chain(&tail.groups);
        eval(&both.collect::<Vec<_>>())?;
        Ok((head, tail))
    }
}
