//! THE table of scalar operations: parser, checker, folder, interpreter, printers and backends all read these rows.
//!
//! A value is `Real` (f64 here, f32 on targets), `Int` (i64 here), `Bool` or `Complex`. `eval` is the meaning in the interpreter.

use serde::{Deserialize, Serialize};

/// What a value is made of, in the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DType {
    Bool,
    Int,
    Real,
    Complex,
}

impl DType {
    /// Word of the language.
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::Int => "int",
            DType::Real => "real",
            DType::Complex => "complex",
        }
    }
}

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Real(f64),
    Complex(f64, f64),
}

impl Scalar {
    /// Dtype of this element.
    pub fn dtype(self) -> DType {
        match self {
            Scalar::Bool(_) => DType::Bool,
            Scalar::Int(_) => DType::Int,
            Scalar::Real(_) => DType::Real,
            Scalar::Complex(..) => DType::Complex,
        }
    }

    /// The zero of a dtype (`false` for bool): the value of elements that are absent.
    pub fn zero(dtype: DType) -> Scalar {
        match dtype {
            DType::Bool => Scalar::Bool(false),
            DType::Int => Scalar::Int(0),
            DType::Real => Scalar::Real(0.0),
            DType::Complex => Scalar::Complex(0.0, 0.0),
        }
    }
}

macro_rules! scalar_ops {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal / $arity:literal ),* $(,)?) => {
        /// A pointwise operation; operands have already been brought to one dtype by explicit conversions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum ScalarOp { $( $(#[$doc])* $variant ),* }

        impl ScalarOp {
            /// All rows, in order.
            pub const ALL: &'static [ScalarOp] = &[ $( ScalarOp::$variant ),* ];
            /// Name in dumps and, for the function-like ones, in programs.
            pub fn name(self) -> &'static str { match self { $( ScalarOp::$variant => $name ),* } }
            /// Number of operands.
            pub fn arity(self) -> usize { match self { $( ScalarOp::$variant => $arity ),* } }
            /// The row with this name.
            pub fn by_name(name: &str) -> Option<ScalarOp> { match name { $( $name => Some(ScalarOp::$variant), )* _ => None } }
        }
    };
}

scalar_ops! {
    /// Sum of two numbers (Int, Real, Complex).
    Add = "add"/2,
    /// Difference (Int, Real, Complex).
    Sub = "sub"/2,
    /// Product (Int, Real, Complex).
    Mul = "mul"/2,
    /// Real or complex quotient; never of ints.
    Div = "div"/2,
    /// Int quotient rounded towards minus infinity; by zero it is 0.
    IntDiv = "idiv"/2,
    /// Remainder with the sign of the divisor; by zero it is 0.
    Mod = "mod"/2,
    /// Real power; an Int power with a non-negative constant exponent stays Int.
    Pow = "pow"/2,
    /// Negation (Int, Real, Complex).
    Neg = "neg"/1,
    /// Smaller operand; NaN when either is NaN.
    Min = "min"/2,
    /// Larger operand; NaN when either is NaN.
    Max = "max"/2,
    /// Absolute value (Int, Real); modulus of a Complex, as Real.
    Abs = "abs"/1,
    /// -1, 0 or 1 (Int, Real); NaN stays.
    Sign = "sign"/1,
    /// Largest integer not above, as Int.
    Floor = "floor"/1,
    /// Smallest integer not below, as Int.
    Ceil = "ceil"/1,
    /// Nearest integer, ties to even, as Real.
    Rint = "rint"/1,
    /// e to the power x (Real, Complex). Targets may err by 2 ulp of f32.
    Exp = "exp"/1,
    /// Natural logarithm (Real); -inf at 0, NaN below.
    Log = "log"/1,
    /// log(1 + x), exact for small x.
    Log1p = "log1p"/1,
    /// Square root (Real).
    Sqrt = "sqrt"/1,
    /// Hyperbolic tangent.
    Tanh = "tanh"/1,
    /// 1 / (1 + exp(-x)), without overflow.
    Sigmoid = "sigmoid"/1,
    /// log(1 + exp(x)), without overflow.
    Softplus = "softplus"/1,
    /// Sine of an angle in radians.
    Sin = "sin"/1,
    /// Cosine of an angle in radians.
    Cos = "cos"/1,
    /// Error function.
    Erf = "erf"/1,
    /// exp(x - m), and 0 when x is -inf: the factor that rescales under a running maximum.
    ExpDiff = "expdiff"/2,
    /// a / b, and 0 when b is 0: the normaliser of an empty row.
    Ratio = "ratio"/2,
    /// Bitwise exclusive or of Ints.
    Xor = "xor"/2,
    /// Bitwise and of Ints.
    BitAnd = "bitand"/2,
    /// Bitwise or of Ints.
    BitOr = "bitor"/2,
    /// x * 2^n on Ints, n in 0..=62 (clamped).
    Shl = "shl"/2,
    /// Arithmetic shift right of Ints, n in 0..=63 (clamped).
    Shr = "shr"/2,
    /// Int quotient rounded up; by zero it is 0.
    CeilDiv = "ceildiv"/2,
    /// Smallest k with 2^k >= n; 0 for n <= 1.
    CeilLog2 = "ceil_log2"/1,
    /// Smallest power of two >= n; 1 for n <= 1.
    Pow2Ceil = "pow2ceil"/1,
    /// Less (Int, Real); false with NaN.
    Lt = "lt"/2,
    /// Less or equal (Int, Real); false with NaN.
    Le = "le"/2,
    /// Equal (Int, Real, Bool); false with NaN.
    Eq = "eq"/2,
    /// Not equal (Int, Real, Bool); true with NaN.
    Ne = "ne"/2,
    /// Conjunction.
    And = "and"/2,
    /// Disjunction.
    Or = "or"/2,
    /// Negation of a Bool.
    Not = "not"/1,
    /// `c ? a : b`; the arm not taken may hold anything, NaN included.
    Select = "select"/3,
    /// Int or Bool to Real.
    ToReal = "real"/1,
    /// Bool to 0 or 1; Real truncated towards zero (NaN to 0, out of range saturates); Int unchanged.
    ToInt = "int"/1,
    /// Real to Complex.
    ToComplex = "to_complex"/1,
    /// re + i im.
    Complex = "complex"/2,
    /// Real part.
    Re = "re"/1,
    /// Imaginary part.
    Im = "im"/1,
}

impl ScalarOp {
    /// Dtype of the result for operands of these dtypes, or `None` when the row does not take them.
    pub fn result(self, args: &[DType]) -> Option<DType> {
        use DType::{Bool, Int, Real};
        use ScalarOp::*;
        let same = || (args.windows(2).all(|w| w[0] == w[1])).then(|| args[0]);
        let a = *args.first()?;
        if args.len() != self.arity() {
            return None;
        }
        match self {
            Add | Sub | Mul => same().filter(|d| *d != Bool),
            Neg => Some(a).filter(|d| *d != Bool),
            Div => same().filter(|d| matches!(d, Real | DType::Complex)),
            Pow => same().filter(|d| matches!(d, Real | Int)),
            IntDiv | Mod | Xor | BitAnd | BitOr | Shl | Shr | CeilDiv => same().filter(|d| *d == Int),
            CeilLog2 | Pow2Ceil => Some(a).filter(|d| *d == Int),
            Min | Max => same().filter(|d| matches!(d, Int | Real)),
            Abs => match a {
                DType::Complex => Some(Real),
                Int | Real => Some(a),
                Bool => None,
            },
            Sign => Some(a).filter(|d| matches!(d, Int | Real)),
            Floor | Ceil => Some(Int).filter(|_| a == Real),
            Exp => Some(a).filter(|d| matches!(d, Real | DType::Complex)),
            Rint | Log | Log1p | Sqrt | Tanh | Sigmoid | Softplus | Sin | Cos | Erf => Some(a).filter(|d| *d == Real),
            ExpDiff | Ratio => same().filter(|d| *d == Real),
            Lt | Le => same().filter(|d| matches!(d, Int | Real)).map(|_| Bool),
            Eq | Ne => same().filter(|d| *d != DType::Complex).map(|_| Bool),
            And | Or => same().filter(|d| *d == Bool),
            Not => Some(a).filter(|d| *d == Bool),
            Select => (a == Bool && args[1] == args[2]).then_some(args[1]),
            ToReal => Some(Real).filter(|_| matches!(a, Int | Bool)),
            ToInt => Some(Int).filter(|_| matches!(a, Int | Bool | Real)),
            ToComplex => Some(DType::Complex).filter(|_| a == Real),
            ScalarOp::Complex => (same()? == Real).then_some(DType::Complex),
            Re | Im => Some(Real).filter(|_| a == DType::Complex),
        }
    }

    /// The meaning: value for operands of the dtypes that `result` accepts; `None` for others.
    pub fn eval(self, args: &[Scalar]) -> Option<Scalar> {
        use Scalar::{Bool as B, Complex as C, Int as I, Real as R};
        use ScalarOp::*;
        Some(match (self, args) {
            (Add, [I(a), I(b)]) => I(a.wrapping_add(*b)),
            (Add, [R(a), R(b)]) => R(a + b),
            (Add, [C(a, b), C(c, d)]) => C(a + c, b + d),
            (Sub, [I(a), I(b)]) => I(a.wrapping_sub(*b)),
            (Sub, [R(a), R(b)]) => R(a - b),
            (Sub, [C(a, b), C(c, d)]) => C(a - c, b - d),
            (Mul, [I(a), I(b)]) => I(a.wrapping_mul(*b)),
            (Mul, [R(a), R(b)]) => R(a * b),
            (Mul, [C(a, b), C(c, d)]) => C(a * c - b * d, a * d + b * c),
            (Div, [R(a), R(b)]) => R(a / b),
            (Div, [C(a, b), C(c, d)]) => {
                let n = c * c + d * d;
                C((a * c + b * d) / n, (b * c - a * d) / n)
            }
            (IntDiv, [I(a), I(b)]) => I(floor_div(*a, *b)),
            (Mod, [I(a), I(b)]) => I(a.wrapping_sub(floor_div(*a, *b).wrapping_mul(*b)) * (*b != 0) as i64),
            (Pow, [R(a), R(b)]) => R(a.powf(*b)),
            (Pow, [I(a), I(b)]) => I(int_pow(*a, *b)),
            (Neg, [I(a)]) => I(a.wrapping_neg()),
            (Neg, [R(a)]) => R(-a),
            (Neg, [C(a, b)]) => C(-a, -b),
            (Min, [I(a), I(b)]) => I(*a.min(b)),
            (Min, [R(a), R(b)]) => R(if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(*b) }),
            (Max, [I(a), I(b)]) => I(*a.max(b)),
            (Max, [R(a), R(b)]) => R(if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(*b) }),
            (Abs, [I(a)]) => I(a.wrapping_abs()),
            (Abs, [R(a)]) => R(a.abs()),
            (Abs, [C(a, b)]) => R(a.hypot(*b)),
            (Sign, [I(a)]) => I(a.signum()),
            (Sign, [R(a)]) => R(if *a > 0.0 {
                1.0
            } else if *a < 0.0 {
                -1.0
            } else {
                *a
            }),
            (Floor, [R(a)]) => I(a.floor() as i64),
            (Ceil, [R(a)]) => I(a.ceil() as i64),
            (Rint, [R(a)]) => R(a.round_ties_even()),
            (Exp, [R(a)]) => R(a.exp()),
            (Exp, [C(a, b)]) => C(a.exp() * b.cos(), a.exp() * b.sin()),
            (Log, [R(a)]) => R(a.ln()),
            (Log1p, [R(a)]) => R(a.ln_1p()),
            (Sqrt, [R(a)]) => R(a.sqrt()),
            (Tanh, [R(a)]) => R(a.tanh()),
            (Sigmoid, [R(a)]) => R(if *a >= 0.0 { 1.0 / (1.0 + (-a).exp()) } else { a.exp() / (1.0 + a.exp()) }),
            (Softplus, [R(a)]) => R(if a.is_nan() { *a } else { a.max(0.0) + (-a.abs()).exp().ln_1p() }),
            (Sin, [R(a)]) => R(a.sin()),
            (Cos, [R(a)]) => R(a.cos()),
            (Erf, [R(a)]) => R(erf(*a)),
            (ExpDiff, [R(a), R(b)]) => R(if *a == f64::NEG_INFINITY { 0.0 } else { (a - b).exp() }),
            (Ratio, [R(a), R(b)]) => R(if *b == 0.0 { 0.0 } else { a / b }),
            (Xor, [I(a), I(b)]) => I(a ^ b),
            (BitAnd, [I(a), I(b)]) => I(a & b),
            (BitOr, [I(a), I(b)]) => I(a | b),
            (Shl, [I(a), I(b)]) => I(a.wrapping_shl((*b).clamp(0, 62) as u32)),
            (Shr, [I(a), I(b)]) => I(a >> (*b).clamp(0, 63)),
            (CeilDiv, [I(a), I(b)]) => I(floor_div(a.wrapping_neg(), *b).wrapping_neg()),
            (CeilLog2, [I(a)]) => I(if *a <= 1 { 0 } else { 64 - i64::from((a - 1).leading_zeros()) }),
            (Pow2Ceil, [I(a)]) => I(if *a <= 1 { 1 } else { 1i64.wrapping_shl(64 - (a - 1).leading_zeros()) }),
            (Lt, [I(a), I(b)]) => B(a < b),
            (Lt, [R(a), R(b)]) => B(a < b),
            (Le, [I(a), I(b)]) => B(a <= b),
            (Le, [R(a), R(b)]) => B(a <= b),
            (Eq, [I(a), I(b)]) => B(a == b),
            (Eq, [R(a), R(b)]) => B(a == b),
            (Eq, [B(a), B(b)]) => B(a == b),
            (Ne, [I(a), I(b)]) => B(a != b),
            (Ne, [R(a), R(b)]) => B(a != b),
            (Ne, [B(a), B(b)]) => B(a != b),
            (And, [B(a), B(b)]) => B(*a && *b),
            (Or, [B(a), B(b)]) => B(*a || *b),
            (Not, [B(a)]) => B(!a),
            (Select, [B(c), a, b]) => {
                if *c {
                    *a
                } else {
                    *b
                }
            }
            (ToReal, [I(a)]) => R(*a as f64),
            (ToReal, [B(a)]) => R(f64::from(*a)),
            (ToInt, [I(a)]) => I(*a),
            (ToInt, [B(a)]) => I(i64::from(*a)),
            (ToInt, [R(a)]) => I(*a as i64),
            (ToComplex, [R(a)]) => C(*a, 0.0),
            (ScalarOp::Complex, [R(a), R(b)]) => C(*a, *b),
            (Re, [C(a, _)]) => R(*a),
            (Im, [C(_, b)]) => R(*b),
            (_, _) => return None,
        })
    }
}

fn floor_div(a: i64, b: i64) -> i64 {
    if b == 0 {
        return 0;
    }
    let q = a.wrapping_div(b);
    if a.wrapping_rem(b) != 0 && ((a < 0) != (b < 0)) { q - 1 } else { q }
}

fn int_pow(a: i64, b: i64) -> i64 {
    if b < 0 { if a == 1 { 1 } else if a == -1 { 1 - 2 * (b & 1) } else { 0 } } else { a.wrapping_pow(b.min(u32::MAX.into()) as u32) }
}

/// Error function to about 1e-16 relative: Maclaurin series for |x| < 2.5, continued fraction of erfc beyond.
/// Source: Abramowitz and Stegun 7.1.6 and 7.1.14.
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if x.is_nan() {
        return x;
    }
    let y = if a < 2.5 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term > 1e-18 * sum && n < 200.0 {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-a * a).exp() * sum
    } else if a > 6.5 {
        1.0
    } else {
        let mut f = a;
        for k in (1..=80).rev() {
            f = a + f64::from(k) / 2.0 / f;
        }
        1.0 - (-a * a).exp() / f / std::f64::consts::PI.sqrt()
    };
    y.copysign(x)
}

/// What ordering a row of `n` elements gives. Equal keys keep the order of their positions; NaN comes after all numbers, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderKind {
    /// Int, `n` of them: the place of each element in ascending order; absent ones come after all present ones, in order of position.
    Rank,
    /// Int, `count` of them: the positions in ascending order of the present elements, 0 past the last.
    Sorted,
    /// Bool, `n` of them: whether the element is among the `count` largest present ones.
    Largest,
    /// Int, `count` of them: the positions where the key (a Bool) holds, 0 past the last. There is no mask.
    Members,
}

impl OrderKind {
    pub fn name(self) -> &'static str {
        match self {
            OrderKind::Rank => "rank",
            OrderKind::Sorted => "sorted",
            OrderKind::Largest => "largest",
            OrderKind::Members => "members",
        }
    }
}
