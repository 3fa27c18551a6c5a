//! What can go wrong while a checked program is lowered, and whose fault it is.

/// See the variants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Code holds whole tiles along this axis, so its extent must be known when it is compiled.
    #[error("the extent of axis `{axis}` must be known to compile this kernel (give it with `--set {axis}=N`)")]
    NeedExtent { axis: String },
    /// A valid program that this compiler cannot lower.
    #[error("cannot compile this: {what}")]
    Unsupported { what: String },
    /// Ours.
    #[error("internal error in `{pass}`: {what}")]
    Bug { pass: &'static str, what: String },
}
