//! Integration tests: claims about programs, across the layers.

mod meaning;
mod random;
