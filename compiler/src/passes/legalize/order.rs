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
        let mut element = Element::default();
        let (n, count) = (self.eval(o.n, &mut element)?, self.eval(o.count, &mut element)?);
        let (key, key_step) = self.row(&o.key, &mut element)?;
        let (out, out_step) = self.row(&o.out, &mut element)?;
        let (mask, mask_step) = match &o.mask {
            Some(row) => {
                let (place, step) = self.row(row, &mut element)?;
                (Some(place), step)
            }
            None => (None, self.b.int(0)),
        };
        self.b.tile(TileCall::Order { kind: o.kind, n, count, key, key_step, mask, mask_step, out, out_step });
        Ok(())
    }

    /// Where a row starts, and its step.
    fn row(&mut self, row: &Row, element: &mut Element) -> Result<(Place, Value), CompileError> {
        let index = row.index.iter().map(|i| self.eval(*i, element)).collect::<Result<Vec<_>, _>>()?;
        let offset = self.linear(row.buffer, &index);
        let step = self.eval(row.step, element)?;
        Ok((Place { base: Base::Buffer(self.buffers[&row.buffer]), offset }, step))
    }
}
