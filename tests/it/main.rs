//! Integration tests: claims about programs, across the layers.

mod blocks;
mod chunks;
mod devices;
mod docs;
mod examples;
mod golden;
mod layers;
mod meaning;
#[cfg(feature = "ptx")]
mod ptx;
mod random;
mod resident;
mod selection;
mod snapshots;
mod streams;
mod warps;
