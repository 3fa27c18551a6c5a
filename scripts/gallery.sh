#!/usr/bin/env bash
# Writes docs/gallery.md from the headers of the examples and from what the compiler derives from them.
set -euo pipefail
cd "$(dirname "$0")/.."
ATTNC_WRITE=1 cargo test -q -p attnc-tests --test it examples::the_gallery_is_current
