//! The passes: graph to graph (`order`, `chunk`, `reads`, `algebra`), graph to tiles (`partition`, `tile`), tiles to kernel (`legalize`).

pub mod algebra;
pub mod chunk;
pub mod complex;
pub mod cost;
pub mod error;
pub mod legalize;
pub mod order;
pub mod partition;
pub mod reads;
pub mod rewrite;
pub mod split;
pub mod steps;
pub mod stream;
pub mod tile;
