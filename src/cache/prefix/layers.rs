//! Arrays of several layers, side by side in few arrays of their own.
//!
//! Each layer's arrays are copied: a view would keep the whole buffer alive from which it is cut.
//! Those of one shape stand in one array, a row each, because a GPU bounds how many arrays there can
//! be.

use std::rc::Rc;

use super::tree::Part;
use crate::mlx::{Array, Error, Result, eval};

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

    /// The array of number `i`, a view; none if it was not there.
    pub fn get(&self, i: usize) -> Result<Option<Array>> {
        let Some((group, row)) = self.places.get(i).copied().flatten() else {
            return Ok(None);
        };
        let group = self.groups.get(group).ok_or_else(|| {
            let message = format!("there are {} groups, not {group}", self.groups.len());
            Error::new("prefix", &[], message)
        })?;
        group.slice_axis(0, row, row + 1).map(Some)
    }
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
