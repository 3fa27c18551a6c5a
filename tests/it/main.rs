//! Integration tests: claims about programs, across the layers.

mod docs;
mod layers;
mod meaning;
mod random;
mod snapshots;
