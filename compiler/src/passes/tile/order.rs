//! Order operations of targets that have a sort: one row of memory at a time, each in a block of its own.

use super::{Home, Writer};
use crate::passes::order::{is_ordered, row_axes};
use crate::graph::{AxisId, NodeId, Op};
use crate::kernel::plan::HostExpr;
use crate::ops::{OrderKind, ScalarOp};
use crate::passes::error::CompileError;
use crate::tiles::*;

impl Writer<'_> {
    /// Writes the kernel of one order operation. Its operands are in memory.
    pub(super) fn order(&mut self, root: NodeId) -> Result<(), CompileError> {
        let (kind, axes, to, key, mask, count) = match self.graph.op(root).clone() {
            Op::Rank { axes, key, mask } => (OrderKind::Rank, axes, None, key, mask, None),
            Op::ArgSort { axes, to, key, mask } => (OrderKind::Sorted, axes, Some(to), key, mask, None),
            Op::TopK { axes, key, mask, count } => (OrderKind::Largest, axes, None, key, mask, Some(count)),
            Op::List { axes, to, set } => (OrderKind::Members, axes, Some(to), set, None, None),
            _ => return Err(self.bug("no order operation")),
        };
        let n = axes.iter().map(|a| HostExpr::Extent(a.0)).reduce(product).unwrap_or(HostExpr::Int(1));
        let n = self.k.add(Expr::Host(n));
        let count = match (count, to) {
            (Some(count), _) => self.expr(count)?,
            (None, Some(to)) => self.k.add(Expr::Host(HostExpr::Extent(to.0))),
            (None, None) => n,
        };
        let over = to.map_or(axes.clone(), |to| vec![to]);
        for home in self.root_homes(root) {
            // Axes that only the output has repeat the row.
            let more: Vec<AxisId> = home.axes.iter().copied().filter(|a| !over.contains(a) && self.env(*a).is_none()).collect();
            let mut dims = Vec::new();
            for axis in more {
                let dim = self.add_dim(axis, DimKind::Loop { block: 1 });
                self.push_scope([(axis, dim)].into());
                dims.push(dim);
            }
            let source = |w: &Self, id: NodeId| match w.graph.op(id) {
                Op::Input(input) => w.inputs.get(input).cloned(),
                _ => w.homes.get(&id).cloned(),
            };
            let operand = source(self, key).ok_or_else(|| self.bug("a key that is not in memory"))?;
            let key = self.row(&operand, &axes)?;
            let mask = match mask {
                Some(mask) => {
                    let home = source(self, mask).ok_or_else(|| self.bug("a mask that is not in memory"))?;
                    Some(self.row(&home, &axes)?)
                }
                None => None,
            };
            let out = self.row(&home, &over)?;
            let places = self.k.grid.iter().copied().filter(|d| self.k.dim(*d).kind.capacity() != 1).collect();
            self.push(Stmt::Order(Box::new(Order { kind, dims: places, n, count, key, mask, out })));
            self.close_loops(dims);
        }
        Ok(())
    }

    /// Makes the rows that this kernel keeps, operands first.
    pub(super) fn rows(&mut self) -> Result<(), CompileError> {
        let wanted = self.part.rows.iter().copied().collect();
        for id in super::super::rewrite::order(self.graph, &wanted).into_iter().filter(|id| wanted.contains(id)) {
            self.making = Some(id);
            if is_ordered(self.graph, id) {
                self.order(id)?;
            } else {
                let over = row_axes(self.graph, id).ok_or_else(|| self.bug("a row that nobody orders"))?;
                let home = self.homes.get(&id).cloned().ok_or_else(|| self.bug("a row without a place"))?;
                self.needs(&[(id, over.clone())])?;
                let opened = self.open_loops(&over)?;
                self.needs(&[(id, vec![])])?;
                self.store(id, &home)?;
                self.close_loops(opened);
            }
            self.making = None;
        }
        Ok(())
    }

    /// Position along a dimension in a buffer.
    pub(super) fn at(&mut self, home: &Home, dim: DimId) -> ExprId {
        let position = self.k.add(Expr::Pos(dim));
        if !home.block || !self.k.grid.contains(&dim) {
            return position;
        }
        let start = self.k.add(Expr::Start(dim));
        self.k.op(ScalarOp::Sub, &[position, start])
    }

    /// The row of a buffer along axes that lie together, at the current position of the others.
    fn row(&mut self, home: &Home, over: &[AxisId]) -> Result<Row, CompileError> {
        let mut index = Vec::new();
        for axis in &home.axes {
            index.push(if over.contains(axis) {
                self.k.int(0)
            } else {
                let dim = self.dim_of(*axis)?;
                self.at(home, dim)
            });
        }
        let places: Vec<Option<usize>> = over.iter().map(|a| home.axes.iter().position(|h| h == a)).collect();
        if places.iter().all(Option::is_none) {
            let step = self.k.int(0);
            return Ok(Row { buffer: home.buffer, index, step });
        }
        let together = places.windows(2).all(|w| matches!((w[0], w[1]), (Some(a), Some(b)) if a + 1 == b));
        let last = match places.last() {
            Some(Some(last)) if together => *last,
            _ => return Err(self.bug("a row whose axes lie apart")),
        };
        let step = home.axes[last + 1..].iter().map(|a| HostExpr::Extent(a.0)).reduce(product).unwrap_or(HostExpr::Int(1));
        let step = match step {
            HostExpr::Int(v) => self.k.int(v),
            step => self.k.add(Expr::Host(step)),
        };
        Ok(Row { buffer: home.buffer, index, step })
    }
}

fn product(a: HostExpr, b: HostExpr) -> HostExpr {
    HostExpr::Op(ScalarOp::Mul, vec![a, b])
}
