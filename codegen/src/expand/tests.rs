use super::*;
use attnc_compiler::ops::Scalar;

#[derive(Clone, Copy, Debug)]
enum V {
    F(f32),
    I(i32),
    B(bool),
}

/// Runs instructions at once, on the host; the fused or the unfused multiply-add.
struct Host {
    fused: bool,
}

impl V {
    fn f(self) -> f32 {
        match self {
            V::F(x) => x,
            V::I(_) | V::B(_) => panic!("not a real: {self:?}"),
        }
    }
    fn i(self) -> i32 {
        match self {
            V::I(x) => x,
            V::F(_) | V::B(_) => panic!("not an int: {self:?}"),
        }
    }
    fn b(self) -> bool {
        match self {
            V::B(x) => x,
            V::F(_) | V::I(_) => panic!("not a bool: {self:?}"),
        }
    }
}

impl Lane for Host {
    type Value = V;
    fn real(&mut self, x: f32) -> V {
        V::F(x)
    }
    fn int(&mut self, x: i32) -> V {
        V::I(x)
    }
    fn truth(&mut self, x: bool) -> V {
        V::B(x)
    }
    fn unary(&mut self, op: Unary, a: V) -> V {
        match op {
            Unary::FNeg => V::F(-a.f()),
            Unary::FAbs => V::F(a.f().abs()),
            Unary::FSqrt => V::F(a.f().sqrt()),
            Unary::FRint => V::F(a.f().round_ties_even()),
            Unary::FFloor => V::F(a.f().floor()),
            Unary::FCeil => V::F(a.f().ceil()),
            Unary::BNot => V::B(!a.b()),
            Unary::IClz => V::I(a.i().leading_zeros() as i32),
            Unary::IToF => V::F(a.i() as f32),
            // Anything may come out of range.
            Unary::FToI => V::I(if a.f().abs() < 2147483648.0 || a.f() == -2147483648.0 { a.f() as i32 } else { 0x5555_5555 }),
            Unary::FBits => V::I(a.f().to_bits() as i32),
            Unary::IBits => V::F(f32::from_bits(a.i() as u32)),
            Unary::BToI => V::I(i32::from(a.b())),
        }
    }
    fn binary(&mut self, op: Binary, a: V, b: V) -> V {
        match op {
            Binary::FAdd => V::F(a.f() + b.f()),
            Binary::FSub => V::F(a.f() - b.f()),
            Binary::FMul => V::F(a.f() * b.f()),
            Binary::FDiv => V::F(a.f() / b.f()),
            Binary::FLt => V::B(a.f() < b.f()),
            Binary::FLe => V::B(a.f() <= b.f()),
            Binary::FEq => V::B(a.f() == b.f()),
            Binary::IAdd => V::I(a.i().wrapping_add(b.i())),
            Binary::ISub => V::I(a.i().wrapping_sub(b.i())),
            Binary::IMul => V::I(a.i().wrapping_mul(b.i())),
            Binary::IQuot => {
                assert!(b.i() != 0 && b.i() != -1, "divisor {}", b.i());
                V::I(a.i() / b.i())
            }
            Binary::IAnd => V::I(a.i() & b.i()),
            Binary::IOr => V::I(a.i() | b.i()),
            Binary::IXor => V::I(a.i() ^ b.i()),
            Binary::IShl | Binary::IShr if !(0..32).contains(&b.i()) => panic!("shift by {}", b.i()),
            Binary::IShl => V::I(a.i() << b.i()),
            Binary::IShr => V::I(a.i() >> b.i()),
            Binary::ILt => V::B(a.i() < b.i()),
            Binary::ILe => V::B(a.i() <= b.i()),
            Binary::IEq => V::B(a.i() == b.i()),
            Binary::BAnd => V::B(a.b() && b.b()),
            Binary::BOr => V::B(a.b() || b.b()),
        }
    }
    fn fma(&mut self, a: V, b: V, c: V) -> V {
        V::F(if self.fused { a.f().mul_add(b.f(), c.f()) } else { a.f() * b.f() + c.f() })
    }
    fn select(&mut self, c: V, a: V, b: V) -> V {
        if c.b() { a } else { b }
    }
}

fn samples(ty: DType) -> Vec<Scalar> {
    match ty {
        DType::Bool => vec![Scalar::Bool(false), Scalar::Bool(true)],
        DType::Int => [0, 1, -1, 2, -2, 3, 5, -7, 8, 31, 32, 40, 100, -100, 4096, 65_537, -65_536, i32::MAX, i32::MIN]
            .map(|x| Scalar::Int(i64::from(x)))
            .to_vec(),
        DType::Real => {
            let mut all = vec![0.0f32, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-8, -1e-8, 1e-3, 0.3, -0.29, 0.41, 0.625, 0.927, 3.0, -3.0, 7.0, 10.0];
            all.extend([-20.0, 50.0, 88.0, -87.0, -103.0, 100.0, -150.0, 1000.25, 54321.5, 99_999.0, 3e9, -3e9, 1e30, 1e-30, 1e-40, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
            all.extend((0..400).map(|i| (i as f32 - 200.0) * 0.0937));
            all.into_iter().map(|x| Scalar::Real(f64::from(x))).collect()
        }
        DType::Complex => vec![],
    }
}

fn host(s: Scalar) -> V {
    match s {
        Scalar::Bool(x) => V::B(x),
        Scalar::Int(x) => V::I(narrow(x)),
        Scalar::Real(x) => V::F(x as f32),
        Scalar::Complex(..) => panic!("complex"),
    }
}

/// Units in the last place of f32 at `want`.
fn ulps(found: f32, want: f64) -> f64 {
    let ulp = f64::from(f32::from_bits((want.abs() as f32).to_bits().max(0x0080_0000) & 0x7f80_0000)) * 2f64.powi(-23);
    (f64::from(found) - want).abs() / ulp
}

/// Size of the difference of two reals, 0 where there is none.
fn difference(args: &[Scalar]) -> f64 {
    match args {
        [Scalar::Real(a), Scalar::Real(b)] if (a - b).is_finite() => (a - b).abs(),
        _ => 0.0,
    }
}

fn check(op: ScalarOp, args: &[Scalar], worst: &mut f64) {
    let want = op.eval(args).unwrap();
    for fused in [false, true] {
        let values: Vec<V> = args.iter().map(|a| host(*a)).collect();
        let found = expand(&mut Host { fused }, op, args[0].dtype(), &values).unwrap_or_else(|| panic!("{op:?} {args:?}"));
        let at = || format!("{}{args:?} = {want:?}, found {found:?}", op.name());
        match (want, found) {
            (Scalar::Bool(w), V::B(f)) => assert_eq!(w, f, "{}", at()),
            // Exact where the true value fits; beyond, wrapping agrees in the low bits but saturation and quotients need not.
            (Scalar::Int(w), V::I(f)) if i32::try_from(w).is_ok() => assert_eq!(w, i64::from(f), "{}", at()),
            (Scalar::Int(w), V::I(f)) => assert!(f == w as i32 || (args[0].dtype() == DType::Real && f == if w < 0 { i32::MIN } else { i32::MAX }), "{}", at()),
            (Scalar::Real(w), V::F(f)) if w.is_nan() || f.is_nan() => assert!(w.is_nan() && f.is_nan(), "{}", at()),
            (Scalar::Real(w), V::F(f)) if (w as f32).is_infinite() || f.is_infinite() => {
                assert!(f.is_infinite() && (w as f32 == f || w.abs() > 3.4e38 && w.signum() == f64::from(f).signum()), "{}", at());
            }
            (Scalar::Real(w), V::F(f)) => {
                // A power's error grows with its logarithm.
                let allowed = match op {
                    ScalarOp::Pow => 4.0 + 2.0 * w.abs().max(1e-45).ln().abs(),
                    // The difference is rounded.
                    ScalarOp::ExpDiff => 4.0 + difference(args),
                    // Near their zeros the absolute error counts.
                    ScalarOp::Sin | ScalarOp::Cos => 4.0 + 1e-7 / (w.abs() * 1.2e-7),
                    _ => 4.0,
                };
                let error = ulps(f, w);
                assert!(error <= allowed, "{}: {error} ulp", at());
                if allowed == 4.0 {
                    *worst = worst.max(error);
                }
            }
            (_, _) => panic!("{}", at()),
        }
    }
}

#[test]
fn every_op_agrees_with_the_table() {
    let types = [DType::Bool, DType::Int, DType::Real];
    for op in ScalarOp::ALL {
        let mut tried = 0;
        let mut worst = 0.0;
        for a in types {
            match op.arity() {
                1 if op.result(&[a]).is_some_and(|t| t != DType::Complex) => samples(a).into_iter().for_each(|x| {
                    tried += 1;
                    check(*op, &[x], &mut worst);
                }),
                2 if op.result(&[a, a]).is_some_and(|t| t != DType::Complex) => {
                    for x in samples(a).into_iter().take(45) {
                        for y in samples(a).into_iter().take(45) {
                            tried += 1;
                            check(*op, &[x, y], &mut worst);
                        }
                    }
                }
                3 => {
                    for c in [false, true] {
                        let (x, y) = (samples(a)[0], samples(a)[1]);
                        tried += 1;
                        check(*op, &[Scalar::Bool(c), x, y], &mut worst);
                    }
                }
                _ => {}
            }
        }
        let complex = matches!(op, ScalarOp::ToComplex | ScalarOp::Complex | ScalarOp::Re | ScalarOp::Im);
        assert_eq!(tried == 0, complex, "{op:?} was tried {tried} times");
        println!("{:10} {tried:5} {worst:.2} ulp", op.name());
    }
}
