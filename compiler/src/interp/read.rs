//! Reads `x[a = e]`: a relabelled view where the indices are axes or single positions, a gather otherwise.

use super::InterpError;
use super::eval::{Env, Eval, Frame, level};
use super::value::{Data, Dim, View};
use crate::graph::{AxisId, NodeId, Op};
use crate::ops::Scalar;

/// A value beyond this many times the limit of arrays that is read at a single position is computed there alone, again for each.
const PULL: usize = 1 << 8;

impl Eval<'_> {
    pub(super) fn read(&mut self, node: NodeId, value: NodeId, subs: &[(AxisId, NodeId)], env: Env) -> Result<View, InterpError> {
        let graph = self.graph;
        let mut indices = Vec::new();
        for (axis, index) in subs {
            let view = self.eval(*index, env, level(env))?;
            if !matches!(view.data(), Data::Int(_)) {
                return Err(InterpError::Broken(format!("an index of {node:?} is not an int")));
            }
            indices.push((*axis, self.binding.extent(*axis), view, *index));
        }
        let zero = Scalar::zero(graph.dtype(node));
        let single = |view: &View| match view.scalar() {
            Some(Scalar::Int(at)) => Some(at),
            _ => None,
        };
        let outside = |extent: usize, view: &View| single(view).is_some_and(|at| usize::try_from(at).map_or(true, |at| at >= extent));
        if indices.iter().any(|(_, extent, view, _)| *extent == 0 || outside(*extent, view)) {
            return Ok(self.constant(zero));
        }
        let mut inner = self.unbind(env, |a| subs.iter().any(|s| s.0 == a));
        let mut source = if let Op::History { scan, index } = graph.op(value) {
            let frame = self.step_frame(*scan, env).ok_or_else(|| InterpError::Broken(format!("{value:?} outside of its scan")))?;
            let history = self.frames[frame].history.get(*index as usize).cloned();
            let history = history.ok_or_else(|| InterpError::Broken(format!("{value:?} names no result")))?;
            // The loop over steps binds the scan axis, which this read replaces; other loops bind theirs.
            self.localise(history, inner)
        } else if self.count(&self.free(value, inner)).unwrap_or(usize::MAX) > self.limit.saturating_mul(PULL) {
            let frames = self.frames.len();
            for (axis, _, view, _) in &indices {
                if let Some(at) = single(view) {
                    inner = self.push(inner, Frame::new(Some(*axis), at as usize))?;
                }
            }
            let source = self.eval(value, inner, usize::MAX)?;
            self.frames.truncate(frames);
            source
        } else {
            self.eval(value, inner, level(env))?
        };
        // Take single positions and relabel where an index is an axis: no copy is needed.
        let mut gathered = Vec::new();
        let mut relabelled = Vec::new();
        for (axis, extent, view, index) in indices {
            let (mut cut, stride) = (std::mem::take(&mut source.dims), source.stride(axis));
            let stride = cut.iter().find(|d| d.axis == axis).map_or(stride, |d| d.stride);
            cut.retain(|d| d.axis != axis);
            source.dims = cut;
            if let Some(at) = single(&view) {
                source.offset += at as usize * stride;
            } else if let (Op::Index(to), true) = (graph.op(index), view.dims.iter().all(|d| d.extent <= extent)) {
                relabelled.push(Dim { axis: *to, extent: self.binding.extent(*to), stride });
            } else {
                gathered.push((extent, stride, view));
            }
        }
        for dim in relabelled {
            match source.dims.iter_mut().find(|d| d.axis == dim.axis) {
                Some(kept) => kept.stride += dim.stride,
                None => source.dims.push(dim),
            }
        }
        source.dims.sort_by_key(|d| d.axis);
        if gathered.is_empty() {
            return Ok(source);
        }
        let has = |a: &AxisId| source.dim(*a).is_some() || gathered.iter().any(|g| g.2.dim(*a).is_some());
        let axes: Vec<(AxisId, usize)> = self.free(node, env).into_iter().filter(|(a, _)| has(a)).collect();
        let mut data = self.filled(zero, &axes)?;
        match (&mut data, source.data()) {
            (Data::Real(to), Data::Real(from)) => gather(to, from, &source, &gathered, &axes),
            (Data::Int(to), Data::Int(from)) => gather(to, from, &source, &gathered, &axes),
            (Data::Bool(to), Data::Bool(from)) => gather(to, from, &source, &gathered, &axes),
            (Data::Complex(to), Data::Complex(from)) => gather(to, from, &source, &gathered, &axes),
            _ => return Err(InterpError::Broken(format!("{node:?} and its value differ in dtype"))),
        }
        Ok(self.array(data, &axes))
    }
}

/// `to` holds zeros; positions with an index out of range stay so.
fn gather<T: Copy>(to: &mut [T], from: &[T], source: &View, indices: &[(usize, usize, View)], axes: &[(AxisId, usize)]) {
    if to.is_empty() {
        return;
    }
    let data: Vec<&[i64]> = indices.iter().map(|(_, _, v)| if let Data::Int(x) = v.data() { x.as_slice() } else { &[] }).collect();
    let strides: Vec<Vec<usize>> = indices.iter().map(|(_, _, v)| axes.iter().map(|a| v.stride(a.0)).collect()).collect();
    let own: Vec<usize> = axes.iter().map(|a| source.stride(a.0)).collect();
    let mut at = vec![0usize; axes.len()];
    let mut base = source.offset;
    let mut heads: Vec<usize> = indices.iter().map(|(_, _, v)| v.offset).collect();
    for slot in to.iter_mut() {
        let mut place = Some(base);
        for (k, (extent, stride, _)) in indices.iter().enumerate() {
            let index = data[k][heads[k]];
            place = place.filter(|_| index >= 0 && (index as u64) < *extent as u64).map(|p| p + index as usize * stride);
        }
        if let Some(place) = place {
            *slot = from[place];
        }
        // Step to the next position, last axis fastest.
        for d in (0..axes.len()).rev() {
            at[d] += 1;
            if at[d] < axes[d].1 {
                base += own[d];
                heads.iter_mut().zip(&strides).for_each(|(h, s)| *h += s[d]);
                break;
            }
            at[d] = 0;
            base -= own[d] * (axes[d].1 - 1);
            heads.iter_mut().zip(&strides).for_each(|(h, s)| *h -= s[d] * (axes[d].1 - 1));
        }
    }
}
