//! Addresses of elements: the only unsafe call of this backend.
#![allow(unsafe_code)]

use inkwell::builder::{Builder, BuilderError};
use inkwell::types::BasicTypeEnum;
use inkwell::values::{IntValue, PointerValue};

/// `base + index * size of element`, without any claim that the result lies inside an object.
pub(super) fn element<'c>(builder: &Builder<'c>, ty: BasicTypeEnum<'c>, base: PointerValue<'c>, index: IntValue<'c>) -> Result<PointerValue<'c>, BuilderError> {
    // SAFETY: the call is unsafe because a `getelementptr` with wrong indices may make LLVM fault; here there is one index, an
    // integer, on a pointer to a sized scalar type, which is well-formed for every value of the index.
    unsafe { builder.build_gep(ty, base, &[index], "") }
}
