//! Rows in memory that are put in order: a tile call. Programs for targets without it have none of these (`passes::order`).

use super::{Element, Lower};
use crate::kernel::{Base, Place, TileCall, Value};
use crate::passes::error::CompileError;
use crate::tiles::*;

impl Lower<'_> {
    pub(super) fn order(&mut self, o: &Order) -> Result<(), CompileError> {
        if !self.caps.sort {
            return Err(self.bug("a target without a sort was given one"));
        }
        self.elements(&o.dims, &[], &mut |l, element| {
            let (n, count) = (l.eval(o.n, element)?, l.eval(o.count, element)?);
            let (key, key_step) = l.row(&o.key, element)?;
            let (out, out_step) = l.row(&o.out, element)?;
            let (mask, mask_step) = match &o.mask {
                Some(row) => {
                    let (place, step) = l.row(row, element)?;
                    (Some(place), step)
                }
                None => (None, l.b.int(0)),
            };
            l.b.tile(TileCall::Order { kind: o.kind, n, count, key, key_step, mask, mask_step, out, out_step });
            Ok(())
        })
    }

    /// Where a row starts, and its step.
    fn row(&mut self, row: &Row, element: &mut Element) -> Result<(Place, Value), CompileError> {
        let index = row.index.iter().map(|i| self.eval(*i, element)).collect::<Result<Vec<_>, _>>()?;
        let offset = self.linear(row.buffer, &index);
        let step = self.eval(row.step, element)?;
        Ok((Place { base: Base::Buffer(self.buffers[&row.buffer]), offset }, step))
    }
}
