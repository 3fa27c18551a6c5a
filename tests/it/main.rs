//! Integration tests: claims about programs, across the layers.

mod blocks;
mod devices;
mod docs;
mod examples;
mod golden;
mod layers;
mod meaning;
mod random;
mod selection;
mod snapshots;
mod streams;
mod warps;
