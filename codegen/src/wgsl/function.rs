//! A naga function under construction: values are expression handles, statements go to the innermost open block.

use crate::expand::{Binary, Lane, Unary};
use naga::{
    BinaryOperator, Block, Expression, Function, Handle, Literal, LocalVariable, MathFunction, Scalar, ScalarKind, Span, Statement, Type,
    TypeInner, UnaryOperator, UniqueArena,
};

pub(super) type Value = Handle<Expression>;

/// Types that every module has.
#[derive(Clone, Copy)]
pub(super) struct Types {
    pub real: Handle<Type>,
    pub int: Handle<Type>,
    pub word: Handle<Type>,
    pub truth: Handle<Type>,
}

impl Types {
    pub fn new(types: &mut UniqueArena<Type>) -> Types {
        let mut scalar = |scalar| types.insert(Type { name: None, inner: TypeInner::Scalar(scalar) }, Span::UNDEFINED);
        Types { real: scalar(Scalar::F32), int: scalar(Scalar::I32), word: scalar(Scalar::U32), truth: scalar(Scalar::BOOL) }
    }
}

pub(super) struct Writer {
    pub function: Function,
    pub types: Types,
    blocks: Vec<Block>,
}

impl Writer {
    pub fn new(types: Types) -> Writer {
        Writer { function: Function::default(), types, blocks: vec![Block::new()] }
    }

    /// The function with everything written as its body.
    pub fn finish(mut self) -> Function {
        self.function.body = self.blocks.swap_remove(0);
        self.function
    }

    pub fn push(&mut self, statement: Statement) {
        if let Some(block) = self.blocks.last_mut() {
            block.push(statement, Span::UNDEFINED);
        }
    }

    /// Starts a block of its own; statements go there until `close` returns it.
    pub fn open(&mut self) {
        self.blocks.push(Block::new());
    }

    pub fn close(&mut self) -> Block {
        self.blocks.pop().unwrap_or_default()
    }

    /// An expression that needs no evaluation: a literal, a variable, an argument, the result of a statement.
    pub fn plain(&mut self, expression: Expression) -> Value {
        self.function.expressions.append(expression, Span::UNDEFINED)
    }

    /// An expression evaluated here.
    pub fn emit(&mut self, expression: Expression) -> Value {
        let before = self.function.expressions.len();
        let value = self.plain(expression);
        let range = self.function.expressions.range_from(before);
        self.push(Statement::Emit(range));
        value
    }

    /// Gives a value a name, so that the text computes it once and in its place.
    pub fn name(&mut self, value: Value, name: String) {
        let evaluated = match self.function.expressions[value] {
            Expression::Literal(_) | Expression::ZeroValue(_) | Expression::Constant(_) | Expression::GlobalVariable(_) => false,
            Expression::LocalVariable(_) | Expression::FunctionArgument(_) | Expression::CallResult(_) => false,
            Expression::WorkGroupUniformLoadResult { .. } => false,
            _ => true,
        };
        if evaluated {
            self.function.named_expressions.entry(value).or_insert(name);
        }
    }

    /// A variable of the function, as a pointer.
    pub fn variable(&mut self, name: String, ty: Handle<Type>, init: Option<Literal>) -> Value {
        let init = init.map(|l| self.plain(Expression::Literal(l)));
        let variable = self.function.local_variables.append(LocalVariable { name: Some(name), ty, init }, Span::UNDEFINED);
        self.plain(Expression::LocalVariable(variable))
    }

    pub fn load(&mut self, pointer: Value) -> Value {
        self.emit(Expression::Load { pointer })
    }

    pub fn word(&mut self, x: u32) -> Value {
        self.plain(Expression::Literal(Literal::U32(x)))
    }

    pub fn op(&mut self, op: BinaryOperator, left: Value, right: Value) -> Value {
        self.emit(Expression::Binary { op, left, right })
    }

    /// Converts (`true`) or reinterprets the bits.
    pub fn cast(&mut self, expr: Value, kind: ScalarKind, convert: bool) -> Value {
        self.emit(Expression::As { expr, kind, convert: convert.then_some(4) })
    }

    fn math(&mut self, fun: MathFunction, args: [Option<Value>; 3], first: Value) -> Value {
        self.emit(Expression::Math { fun, arg: first, arg1: args[0], arg2: args[1], arg3: args[2] })
    }
}

impl Lane for Writer {
    type Value = Value;

    fn real(&mut self, x: f32) -> Value {
        if x.is_finite() {
            return self.plain(Expression::Literal(Literal::F32(x)));
        }
        // Constant expressions may not have such values, so the bits come from a variable.
        let pointer = self.variable("bits".to_string(), self.types.word, Some(Literal::U32(x.to_bits())));
        let bits = self.load(pointer);
        self.cast(bits, ScalarKind::Float, false)
    }

    fn int(&mut self, x: i32) -> Value {
        self.plain(Expression::Literal(Literal::I32(x)))
    }

    fn truth(&mut self, x: bool) -> Value {
        self.plain(Expression::Literal(Literal::Bool(x)))
    }

    fn unary(&mut self, op: Unary, a: Value) -> Value {
        let none = [None; 3];
        match op {
            Unary::FNeg => self.emit(Expression::Unary { op: UnaryOperator::Negate, expr: a }),
            Unary::FAbs => self.math(MathFunction::Abs, none, a),
            Unary::FSqrt => self.math(MathFunction::Sqrt, none, a),
            Unary::FRint => self.math(MathFunction::Round, none, a),
            Unary::FFloor => self.math(MathFunction::Floor, none, a),
            Unary::FCeil => self.math(MathFunction::Ceil, none, a),
            Unary::BNot => self.emit(Expression::Unary { op: UnaryOperator::LogicalNot, expr: a }),
            Unary::IClz => self.math(MathFunction::CountLeadingZeros, none, a),
            Unary::IToF => self.cast(a, ScalarKind::Float, true),
            Unary::FToI => self.cast(a, ScalarKind::Sint, true),
            Unary::FBits => self.cast(a, ScalarKind::Sint, false),
            Unary::IBits => self.cast(a, ScalarKind::Float, false),
            Unary::BToI => {
                let (one, zero) = (self.int(1), self.int(0));
                self.select(a, one, zero)
            }
        }
    }

    fn binary(&mut self, op: Binary, a: Value, b: Value) -> Value {
        use BinaryOperator as B;
        let op = match op {
            Binary::FAdd | Binary::IAdd => B::Add,
            Binary::FSub | Binary::ISub => B::Subtract,
            Binary::FMul | Binary::IMul => B::Multiply,
            Binary::FDiv | Binary::IQuot => B::Divide,
            Binary::FLt | Binary::ILt => B::Less,
            Binary::FLe | Binary::ILe => B::LessEqual,
            Binary::FEq | Binary::IEq => B::Equal,
            // On bools these do not short-circuit, so that no control flow arises.
            Binary::IAnd | Binary::BAnd => B::And,
            Binary::IOr | Binary::BOr => B::InclusiveOr,
            Binary::IXor => B::ExclusiveOr,
            Binary::IShl | Binary::IShr => {
                let count = self.cast(b, ScalarKind::Uint, true);
                let op = if op == Binary::IShl { B::ShiftLeft } else { B::ShiftRight };
                return self.op(op, a, count);
            }
        };
        self.op(op, a, b)
    }

    fn fma(&mut self, a: Value, b: Value, c: Value) -> Value {
        self.math(MathFunction::Fma, [Some(b), Some(c), None], a)
    }

    fn select(&mut self, c: Value, a: Value, b: Value) -> Value {
        self.emit(Expression::Select { condition: c, accept: a, reject: b })
    }
}
